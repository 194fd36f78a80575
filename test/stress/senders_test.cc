// Eight senders, four connections, every mode of a stop, round after round.

#include <xtcp/error.h>

#include <array>
#include <atomic>
#include <catch2/catch.hpp>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "support/event_recorder.h"
#include "support/random.h"
#include "support/raw_peer.h"
#include "support/stop_books.h"
#include "support/stop_pieces.h"
#include "support/test_server.h"

namespace xtcp::test {
namespace {

constexpr std::size_t kSenders = 8;
constexpr std::size_t kConnections = 4;
constexpr std::size_t kRounds = 200;

// What one sender did.
struct Sent {
  std::array<std::uint32_t, kConnections> accepted{};  // pieces, numbered from 0
  int odd_answers = 0;
};

// Sends pieces of its own to connections in turn, until each has told it that it stops.
Sent SendUntilStopped(std::uint8_t sender, const std::vector<ConnPtr>& conns, Random random) {
  Sent sent;
  std::array<bool, kConnections> over{};
  for (std::size_t left = kConnections, i = sender; left > 0; ++i) {
    const std::size_t c = i % kConnections;
    if (over[c]) continue;
    const std::size_t size = random.Between(kSmallestPiece, 300);
    const std::error_code answer = conns[c]->Send(Piece(sender, sent.accepted[c], size));
    if (!answer) {
      ++sent.accepted[c];
      continue;
    }
    if (answer == Errc::kFull) {
      std::this_thread::yield();
      continue;
    }
    if (answer != Errc::kStopping && answer != Errc::kClosed) ++sent.odd_answers;
    over[c] = true;
    --left;
  }
  return sent;
}

void RunRound(StopMode mode, bool server_wide, Random& random) {
  Options options;
  options.loops = 2;
  options.send_buffer_limit = 64 << 10;
  auto events = std::make_shared<EventRecorder>();
  TestServer server(events, options);
  std::vector<RawPeer> peers;
  std::vector<ConnPtr> conns;
  for (std::size_t c = 0; c < kConnections; ++c) {
    peers.emplace_back(server.port());
    REQUIRE(events->WaitForAccepted(c + 1));
    conns.push_back(events->conn(c));
  }
  std::array<std::string, kConnections> received;
  std::array<End, kConnections> ends{};
  Threads readers;
  for (std::size_t c = 0; c < kConnections; ++c) {
    readers.Add([&, c] {
      ends[c] = peers[c].ReadAll(&received[c]);
      peers[c].Close();
    });
  }
  std::array<Sent, kSenders> sent;
  Threads senders;
  for (std::size_t s = 0; s < kSenders; ++s) {
    senders.Add([&, s, own = Random(random.Next())] {
      sent[s] = SendUntilStopped(static_cast<std::uint8_t>(s), conns, own);
    });
  }
  KeepBusy(random.Between(0, 100'000));
  WithinDeadline("the stops", [&] {
    if (server_wide) static_cast<void>(server->Stop(mode));
    for (const ConnPtr& conn : conns) static_cast<void>(conn->Stop(mode));
  });
  senders.Join();
  readers.Join();

  for (std::size_t c = 0; c < kConnections; ++c) {
    INFO("connection " << c);
    const bool graceful = mode != StopMode::kImmediately;
    REQUIRE(ends[c] == End::kEof);
    Pieces pieces;
    REQUIRE(pieces.Check(received[c], graceful) == "");
    for (std::size_t s = 0; s < kSenders; ++s) {
      const std::size_t count = pieces.count(static_cast<std::uint8_t>(s));
      REQUIRE(count <= sent[s].accepted[c]);
      if (graceful) REQUIRE(count == sent[s].accepted[c]);
    }
    REQUIRE(BookProblems(conns[c]->Stats(), received[c].size()) == "");
  }
  for (const Sent& each : sent) REQUIRE(each.odd_answers == 0);
  REQUIRE(server.Finish(mode) == "");
}

TEST_CASE("eight senders and four connections: every call is whole, in order, and answered",
          "[M10][M11][M12][M19][B1][B2][B3][B4][E3][seen-29]") {
  const StopMode mode = GENERATE(StopMode::kImmediately, StopMode::kGracefullyButNotWait,
                                 StopMode::kGracefullyAndWait);
  CAPTURE(Name(mode));
  Random random(8 + static_cast<std::uint64_t>(mode));
  for (std::size_t round = 0; round < kRounds; ++round) {
    INFO("round " << round);
    RunRound(mode, round % 2 == 0, random);
  }
}

}  // namespace
}  // namespace xtcp::test
