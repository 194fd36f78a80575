// What a graceful stop delivers; account_test.cc has what it says of the rest.

#include <atomic>
#include <catch2/catch.hpp>
#include <chrono>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "support/event_recorder.h"
#include "support/random.h"
#include "support/raw_peer.h"
#include "support/stop_books.h"
#include "support/stop_pieces.h"
#include "support/test_client.h"
#include "support/test_protocol.h"
#include "support/test_server.h"

namespace xtcp::test {
namespace {

using std::chrono::milliseconds;

constexpr std::size_t kMega = 1 << 20;
// --- Unread input. -------------------------------------------------------------------------------

TEST_CASE("unread input does not destroy output that is on its way", "[M18][M19][B2][S7]") {
  const bool server_wide = GENERATE(true, false);
  const StopMode mode = GENERATE(StopMode::kGracefullyButNotWait, StopMode::kGracefullyAndWait);
  CAPTURE(server_wide, Name(mode));
  constexpr std::size_t kInput = 64 << 10;
  auto events = std::make_shared<EventRecorder>();
  std::atomic<bool> enough{false};
  events->on_accept = [&](const ConnPtr& conn) {
    conn->PauseRecv();
    // 64 KiB wait in this kernel, unread, before anything else happens.
    enough = WaitUntil([&] { return Unread(conn->Descriptor()) == kInput; });
  };
  TestServer server(events);
  RawPeer peer(server.port(), 4096);
  REQUIRE(peer.SendAll(std::string(kInput, 'i')));
  REQUIRE(WaitUntil([&] { return enough.load(); }));
  const ConnPtr conn = events->conn();
  REQUIRE_FALSE(conn->Send(Piece(0, 0, kMega)));
  Threads stopper;
  stopper.Add([&] {
    WithinDeadline("a stop",
                   [&] { static_cast<void>(server_wide ? server->Stop(mode) : conn->Stop(mode)); });
  });
  REQUIRE(WaitUntil([&] { return conn->IsStopped(); }));
  std::this_thread::sleep_for(milliseconds(20));  // the peer comes late
  std::string received;
  REQUIRE(peer.ReadAll(&received) == End::kEof);
  REQUIRE(received.size() == kMega);
  REQUIRE(Pieces().Check(received, true) == "");
  peer.Close();
  stopper.Join();
  REQUIRE(events->WaitForClosed(1));
  REQUIRE(server.Finish() == "");
  if (server_wide) REQUIRE(Text(server.report()) == OnlyConnections(1));
  REQUIRE(conn->Stats().unacked_bytes == 0);
  REQUIRE(conn->Stats().received_packets == 0);
}

TEST_CASE("a peer that goes on sending gets everything, too", "[M19][B2][S7]") {
  const StopMode mode = GENERATE(StopMode::kGracefullyButNotWait, StopMode::kGracefullyAndWait);
  auto events = std::make_shared<EventRecorder>();
  events->keep_payloads = false;
  TestServer server(events);
  RawPeer peer(server.port());
  REQUIRE(events->WaitForAccepted(1));
  std::atomic<bool> enough{false};
  Threads threads([&] { enough = true; });
  threads.Add([&] {
    const std::string frame = Frame(std::string(4000, 's'));
    while (!enough && peer.SendAll(frame, milliseconds(1000))) {
    }
  });
  REQUIRE(events->WaitForPackets(10));
  const ConnPtr conn = events->conn();
  REQUIRE_FALSE(conn->Send(Piece(0, 0, kMega)));
  threads.Add([&] { static_cast<void>(conn->Stop(mode)); });
  std::string received;
  REQUIRE(peer.ReadAll(&received) == End::kEof);
  REQUIRE(received.size() == kMega);
  REQUIRE(Pieces().Check(received, true) == "");
  enough = true;
  // It ends its own stream only now, having sent all the while.
  peer.HalfClose();
  threads.Join();
  REQUIRE(events->WaitForClosed(1));
  REQUIRE(conn->Stats().reason == CloseReason::kLocalStop);
  REQUIRE(conn->Stats().unacked_bytes == 0);
  REQUIRE(server.Finish() == "");
}

TEST_CASE("the handler that blocks does not cost the peer a byte", "[M19][B2]") {
  // 256 KiB come while the handler blocks; a stop of the whole server comes meanwhile, too.
  auto events = std::make_shared<EventRecorder>();
  Signal inside, go;
  events->on_recv = [&](const ConnPtr& conn, std::string_view) {
    static_cast<void>(conn->Send(Piece(0, 0, kMega)));
    inside.Set();
    static_cast<void>(go.Wait());
  };
  TestServer server(events);
  RawPeer peer(server.port(), 4096);
  REQUIRE(peer.SendAll(Frame("x")));
  REQUIRE(inside.Wait());
  Threads threads([&] { go.Set(); });
  threads.Add([&] { static_cast<void>(peer.SendAll(std::string(256 << 10, '\0'))); });
  REQUIRE(WaitUntil([&] { return events->totals().packets == 1; }));
  static_cast<void>(server->Stop(StopMode::kGracefullyButNotWait));
  std::this_thread::sleep_for(milliseconds(20));
  go.Set();
  std::string received;
  REQUIRE(peer.ReadAll(&received) == End::kEof);
  REQUIRE(received.size() == kMega);
  threads.Join();
  peer.Close();
  REQUIRE(server.Finish(StopMode::kGracefullyAndWait) == "");
  REQUIRE(Text(server.report()) == OnlyConnections(1));
}

// --- Everything, then the FIN. -------------------------------------------------------------------

TEST_CASE("a slow reader gets every byte and then the FIN", "[M19][M23][B2]") {
  const bool server_wide = GENERATE(true, false);
  auto events = std::make_shared<EventRecorder>();
  TestServer server(events);
  RawPeer peer(server.port(), 4096);
  REQUIRE(events->WaitForAccepted(1));
  const ConnPtr conn = events->conn();
  REQUIRE_FALSE(conn->Send(Piece(3, 0, 300'000)));
  static_cast<void>(server_wide ? server->Stop(StopMode::kGracefullyButNotWait)
                                : conn->Stop(StopMode::kGracefullyButNotWait));
  std::string received, some;
  End end = End::kOpen;
  while (end == End::kOpen) {
    end = peer.ReadExactly(1000, &some);
    received += some;
    std::this_thread::sleep_for(std::chrono::microseconds(200));
  }
  REQUIRE(end == End::kEof);
  REQUIRE(received.size() == 300'000);
  REQUIRE(Pieces().Check(received, true) == "");
  peer.Close();
  REQUIRE(events->WaitForClosed(1));
  REQUIRE(server.Finish() == "");
  REQUIRE(conn->Stats().unacked_bytes == 0);
}

TEST_CASE("everything queued goes out before the FIN, in pieces of every size", "[M10][B2][B4]") {
  const StopMode mode = GENERATE(StopMode::kGracefullyButNotWait, StopMode::kGracefullyAndWait);
  const bool dialled = GENERATE(false, true);
  CAPTURE(Name(mode), dialled);
  Options options;
  options.send_buffer_limit = 256 << 20;
  auto events = std::make_shared<EventRecorder>();
  std::optional<TestServer> server;
  std::optional<TestClient> client;
  RawListener listener;
  RawPeer peer;
  if (dialled) {
    client.emplace(events, listener.address(), options);
    peer = listener.Accept();
    REQUIRE(events->WaitForConnected(1));
  } else {
    server.emplace(events, options);
    peer = RawPeer(server->port(), 8192);
    REQUIRE(events->WaitForAccepted(1));
  }
  const ConnPtr conn = events->conn();
  constexpr std::uint32_t kPieces = 50;
  std::atomic<std::uint64_t> accepted{0};
  std::atomic<int> refused{0};
  Threads threads;
  for (std::uint8_t sender = 0; sender < 2; ++sender) {
    threads.Add([&, sender] {
      Random random(sender);
      for (std::uint32_t i = 0; i < kPieces; ++i) {
        std::size_t size = random.Between(kSmallestPiece, random.OneIn(5) ? kMega : 5000);
        if (random.OneIn(4)) size = 1;
        if (i == 7) size = kMega;
        // A piece that cannot carry its number does not break the count of those that do.
        if (conn->Send(Piece(sender, i, size))) ++refused;
        accepted += size;
      }
    });
  }
  threads.Join();
  REQUIRE(refused == 0);
  threads.Add([&] { static_cast<void>(conn->Stop(mode)); });
  std::string received;
  REQUIRE(peer.ReadAll(&received) == End::kEof);
  REQUIRE(received.size() == accepted);
  Pieces pieces;
  REQUIRE(pieces.Check(received, true) == "");
  for (std::uint8_t sender = 0; sender < 2; ++sender) REQUIRE(pieces.count(sender) == kPieces);
  peer.Close();
  threads.Join();
  REQUIRE(conn->Stats().accepted_sends == 2 * kPieces);
  REQUIRE((dialled ? client->Finish() : server->Finish()) == "");
}

TEST_CASE("Send and then Stop on another thread: the bytes arrive", "[M10][B2][S2]") {
  const StopMode mode = GENERATE(StopMode::kGracefullyButNotWait, StopMode::kGracefullyAndWait);
  constexpr std::size_t kRounds = 25;
  constexpr std::size_t kTogether = 8;
  auto events = std::make_shared<EventRecorder>();
  Options options;
  options.loops = 2;
  TestServer server(events, options);
  const std::string bytes = Piece(5, 0, 100 << 10);
  for (std::size_t round = 0; round < kRounds; ++round) {
    std::vector<RawPeer> peers;
    Threads senders;
    for (std::size_t i = 0; i < kTogether; ++i) {
      peers.emplace_back(server.port());
      const std::size_t number = round * kTogether + i;
      REQUIRE(events->WaitForAccepted(number + 1));
      senders.Add([&, conn = events->conn(number)] {
        static_cast<void>(conn->Send(bytes));
        static_cast<void>(conn->Stop(mode));
      });
    }
    for (RawPeer& peer : peers) {
      std::string received;
      REQUIRE(peer.ReadAll(&received) == End::kEof);
      REQUIRE(received == bytes);
      peer.Close();
    }
  }
  REQUIRE(server.Finish() == "");
  REQUIRE(server->Stats().unsent_bytes == 0);
  REQUIRE(server->Stats().unacked_bytes == 0);
}

TEST_CASE("a stop of the server delivers what other threads had sent to all connections",
          "[M10][M19][M21][B2][B3]") {
  const StopMode mode = GENERATE(StopMode::kGracefullyButNotWait, StopMode::kGracefullyAndWait);
  constexpr std::size_t kConnections = 40;
  auto events = std::make_shared<EventRecorder>();
  Options options;
  options.loops = 3;
  TestServer server(events, options);
  std::vector<RawPeer> peers;
  for (std::size_t i = 0; i < kConnections; ++i) peers.emplace_back(server.port());
  REQUIRE(events->WaitForAccepted(kConnections));
  // Several threads send until they are told why not; each counts for itself what was accepted.
  std::atomic<std::uint64_t> accepted{0};
  std::atomic<int> other_answers{0};
  std::atomic<int> under_way{0};
  Threads threads;
  for (std::uint8_t sender = 0; sender < 3; ++sender) {
    threads.Add([&, sender] {
      Random random(sender);
      std::vector<std::uint32_t> numbers(kConnections);
      std::size_t stopped = 0;
      while (stopped < kConnections) {
        for (std::size_t i = 0; i < kConnections; ++i) {
          if (numbers[i] == UINT32_MAX) continue;
          const std::size_t size = random.Between(kSmallestPiece, 500);
          const std::error_code answer = events->conn(i)->Send(Piece(sender, numbers[i], size));
          if (!answer) {
            ++numbers[i];
            accepted += size;
          } else if (answer != Errc::kFull) {
            if (answer != Errc::kStopping && answer != Errc::kClosed) ++other_answers;
            numbers[i] = UINT32_MAX;
            ++stopped;
          }
        }
        ++under_way;
      }
    });
  }
  REQUIRE(WaitUntil([&] { return under_way > 6; }));
  threads.Add([&] { static_cast<void>(server->Stop(mode)); });
  std::uint64_t received_by_all = 0;
  for (RawPeer& peer : peers) {
    std::string received;
    REQUIRE(peer.ReadAll(&received) == End::kEof);
    REQUIRE(Pieces().Check(received, true) == "");
    received_by_all += received.size();
    peer.Close();
  }
  threads.Join();
  REQUIRE(other_answers == 0);
  REQUIRE(received_by_all == accepted);
  REQUIRE(server.Finish(StopMode::kGracefullyAndWait) == "");
  REQUIRE(Text(server.report()) == OnlyConnections(kConnections));
}

TEST_CASE("a stop is a point in the order of sends", "[M10][B3][B4]") {
  auto events = std::make_shared<EventRecorder>();
  TestServer server(events);
  for (std::size_t round = 0; round < 50; ++round) {
    RawPeer peer(server.port());
    REQUIRE(events->WaitForAccepted(round + 1));
    const ConnPtr conn = events->conn(round);
    std::atomic<std::uint64_t> accepted{0};
    std::atomic<int> wrong{0};
    Threads senders;
    for (std::uint8_t t = 0; t < 3; ++t) {
      senders.Add([&, t] {
        std::uint32_t number = 0;
        std::error_code answer;
        while (!(answer = conn->Send(Piece(t, number, 20))) || answer == Errc::kFull) {
          if (answer) continue;
          ++number;
          accepted += 20;
        }
        // Once refused, always refused.
        if (answer != Errc::kStopping && answer != Errc::kClosed) ++wrong;
        if (!conn->Send("x")) ++wrong;
      });
    }
    REQUIRE(WaitUntil([&] { return accepted > 100; }));
    static_cast<void>(conn->Stop(StopMode::kGracefullyButNotWait));
    REQUIRE(conn->Send("x") != std::error_code());
    std::string received;
    REQUIRE(peer.ReadAll(&received) == End::kEof);
    senders.Join();
    REQUIRE(wrong == 0);
    REQUIRE(received.size() == accepted);
    REQUIRE(Pieces().Check(received, true) == "");
    peer.Close();
  }
  REQUIRE(server.Finish() == "");
}

TEST_CASE("a graceful stop in OnUnpackError takes its course, also where no way leads on",
          "[M4][M19][B2]") {
  auto events = std::make_shared<EventRecorder>();
  events->on_unpack_error = [](const ConnPtr& conn, std::span<const std::byte>, std::error_code) {
    static_cast<void>(conn->Send(Piece(0, 0, kTooMuch)));
    static_cast<void>(conn->Stop(StopMode::kGracefullyButNotWait));
  };
  TestServer server(events);
  RawPeer peer(server.port(), 4096);
  REQUIRE(peer.SendAll(MarkedFrame(Marker::kNoResync) + Frame("behind")));
  std::string received;
  REQUIRE(peer.ReadAll(&received) == End::kEof);
  REQUIRE(received.size() == kTooMuch);
  peer.Close();
  REQUIRE(events->WaitForClosed(1));
  REQUIRE(events->totals().packets == 0);
  REQUIRE(events->conn()->Stats().reason == CloseReason::kLocalStop);
  REQUIRE(server.Finish() == "");
}

TEST_CASE("nothing is written after an immediate stop, also from OnSendReady", "[S1][M19]") {
  Options options;
  options.send_buffer_limit = 1000;
  auto events = std::make_shared<EventRecorder>();
  events->on_recv = [](const ConnPtr& conn, std::string_view) {
    static_cast<void>(conn->Send(std::string(1000, 'x')));
    static_cast<void>(conn->Send("refused"));
  };
  events->on_send_ready = [](const ConnPtr& conn) {
    static_cast<void>(conn->Send("late"));
    static_cast<void>(conn->Stop(StopMode::kImmediately));
  };
  TestServer server(events, options);
  RawPeer peer(server.port());
  REQUIRE(peer.SendAll(Frame("go")));
  REQUIRE(events->WaitForClosed(1));
  const ConnStats stats = events->conn()->Stats();
  REQUIRE(stats.accepted_bytes == 1004);
  REQUIRE(stats.written_bytes == 1000);
  REQUIRE(server.Finish() == "");
}

}  // namespace
}  // namespace xtcp::test
