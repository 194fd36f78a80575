// Random stops of random connections to peers of every kind: each accepted byte arrived, or is in
// the account. XTCP_ROUNDS sets how many rounds.

#include "support/random.h"

#include <netinet/in.h>
#include <sys/socket.h>

#include <atomic>
#include <catch2/catch.hpp>
#include <chrono>
#include <cstdlib>
#include <map>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "support/event_recorder.h"
#include "support/raw_peer.h"
#include "support/test_protocol.h"
#include "support/test_server.h"

namespace xtcp::test {
namespace {

using std::chrono::milliseconds;

enum class Kind { kReader, kSlow, kSilent, kFlooding, kHalfClosing, kResetting, kCount };

int Rounds() {
  if (const char* text = std::getenv("XTCP_ROUNDS")) return std::atoi(text);
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
  return 300;
#else
  return 2000;
#endif
}

std::uint16_t PortOf(int fd) {
  sockaddr_in address{};
  socklen_t size = sizeof address;
  ::getsockname(fd, reinterpret_cast<sockaddr*>(&address), &size);
  return ntohs(address.sin_port);
}

// Plays one peer to the end of its connection.
void Play(Kind kind, RawPeer& peer, Random random, const Signal& over) {
  static_cast<void>(peer.SendAll(Frame("fill")));
  switch (kind) {
    case Kind::kReader:
      break;
    case Kind::kSlow:
      for (int i = 0; i < 20; ++i) {
        std::string some;
        if (peer.ReadExactly(random.Between(1, 3000), &some, milliseconds(20)) != End::kOpen) break;
      }
      break;
    case Kind::kSilent:
      WaitUntil([&] { return over.IsSet(); });
      break;
    case Kind::kFlooding: {
      const std::string frame = Frame(std::string(3000, 'f'));
      while (!over.IsSet() && peer.SendAll(frame, milliseconds(20))) {
      }
      break;
    }
    case Kind::kHalfClosing:
      peer.HalfClose();
      break;
    case Kind::kResetting: {
      std::string some;
      static_cast<void>(peer.ReadExactly(random.Between(1, 3000), &some, milliseconds(20)));
      peer.Reset();
      return;
    }
    case Kind::kCount:
      break;
  }
  static_cast<void>(peer.ReadAll());
  peer.Close();
}

TEST_CASE("random stops lose nothing unsaid", "[M11][M19][M21][M22][S1][S5][B1][B2]") {
  Random random(11);
  const int rounds = Rounds();
  for (int round = 0; round < rounds; ++round) {
    Options options;
    options.loops = random.Between(1, 3);
    options.linger_timeout = milliseconds(random.Between(0, 12));
    auto events = std::make_shared<EventRecorder>();
    events->keep_payloads = false;
    const std::size_t fill = random.Between(1, random.OneIn(4) ? 8 << 20 : 100'000);
    events->on_recv = [fill](const ConnPtr& conn, std::string_view payload) {
      if (payload == "fill") static_cast<void>(conn->Send(std::string(fill, 'x')));
    };
    TestServer server(events, options);
    const std::size_t count = random.Between(1, 3);
    std::vector<RawPeer> peers;
    std::map<std::uint16_t, std::size_t> by_port;
    std::vector<Kind> kinds;
    Signal over;
    for (std::size_t i = 0; i < count; ++i) {
      peers.emplace_back(server.port(), random.OneIn(2) ? 4096 : 0);
      REQUIRE(peers.back().connected());
      by_port[PortOf(peers.back().fd())] = i;
      kinds.push_back(
          static_cast<Kind>(random.Between(0, static_cast<std::size_t>(Kind::kCount) - 1)));
    }
    REQUIRE(events->WaitForAccepted(count));
    std::vector<std::thread> threads;
    for (std::size_t i = 0; i < count; ++i) {
      threads.emplace_back(Play, kinds[i], std::ref(peers[i]), Random(random.Next()),
                           std::cref(over));
    }
    std::thread sender([&, stream = random.Next()] {
      Random own(stream);
      for (int i = 0; i < 20; ++i) {
        const ConnPtr conn = events->conn(own.Between(0, count - 1));
        static_cast<void>(conn->Send(std::string(own.Between(1, 2000), 's')));
        if (own.OneIn(40)) static_cast<void>(conn->Stop(StopMode::kGracefullyButNotWait));
        if (own.OneIn(60)) static_cast<void>(conn->Stop(StopMode::kImmediately));
      }
    });
    KeepBusy(random.Between(0, 500'000));
    if (random.OneIn(2)) static_cast<void>(server->Stop(StopMode::kGracefullyButNotWait));
    if (random.OneIn(3)) static_cast<void>(server->Stop(StopMode::kImmediately));
    StopReport report;
    WithinDeadline("a stop", [&] { report = server->Stop(StopMode::kGracefullyAndWait); });
    over.Set();
    sender.join();
    for (std::thread& thread : threads) thread.join();

    INFO("round " << round);
    for (const auto& connection : events->connections()) {
      const std::size_t i = by_port.at(connection.conn->RemoteAddress().Port());
      const ConnStats& stats = connection.at_closed;
      const std::uint64_t got = peers[i].received();
      INFO("kind " << static_cast<int>(kinds[i]) << ", got " << got << ", written "
                   << stats.written_bytes << ", unacked " << stats.unacked_bytes);
      REQUIRE(stats.accepted_bytes == stats.written_bytes + stats.unsent_bytes());
      REQUIRE(got <= stats.written_bytes);
      // Whoever resets throws away what its kernel had acknowledged.
      if (kinds[i] != Kind::kResetting) {
        REQUIRE(got + stats.unacked_bytes >= stats.written_bytes);
      }
    }
    REQUIRE(report.connections <= count);
    REQUIRE(server.Finish() == "");
  }
}

}  // namespace
}  // namespace xtcp::test
