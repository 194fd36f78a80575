// What the report of a stop and the account of a connection say: to the byte.

#include <catch2/catch.hpp>
#include <chrono>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "support/event_recorder.h"
#include "support/one_connection.h"
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
TEST_CASE("a clean stop reports zero, on Unix sockets as well", "[M21][M23][B1]") {
  const std::string address = GENERATE("127.0.0.1:0", "unix:@xtcp-test-clean-stop");
  CAPTURE(address);
  // The kernel's count stays at 1 for some time after all was acknowledged (our FIN), so many.
  for (int round = 0; round < 30; ++round) {
    auto events = std::make_shared<EventRecorder>();
    TestServer server(events, {}, address);
    std::vector<RawPeer> peers;
    for (int i = 0; i < 4; ++i) peers.emplace_back(server.address());
    REQUIRE(events->WaitForAccepted(4));
    const std::size_t size = round == 0 ? 3 * kMega : 1 + static_cast<std::size_t>(round) * 997;
    for (std::size_t i = 0; i < 4; ++i) {
      REQUIRE_FALSE(events->conn(i)->Send(std::string(size, 'x')));
    }
    Threads threads;
    threads.Add([&] { static_cast<void>(server->Stop(StopMode::kGracefullyAndWait)); });
    for (RawPeer& peer : peers) {
      REQUIRE(peer.ReadAll() == End::kEof);
      REQUIRE(peer.received() == size);
      if (round % 2 == 0) {
        peer.Close();
      } else {
        peer.HalfClose();
      }
    }
    threads.Join();
    REQUIRE(server.Finish() == "");
    REQUIRE(Text(server.report()) == OnlyConnections(4));
  }
}

TEST_CASE("unacknowledged bytes are exact: our FIN is none of them", "[M21][M23][B1]") {
  // 500,000: all of it fits into the kernel, so the FIN goes out behind it. More: it does not, and
  // no FIN goes out. In both cases the peer's kernel has less.
  const std::size_t size = GENERATE(std::size_t{1}, std::size_t{500'000}, kTooMuch);
  const bool dialled = GENERATE(false, true);
  CAPTURE(size, dialled);
  Options options;
  // Time for the bytes to leave, also on a busy machine, and for every delayed acknowledgement.
  options.linger_timeout = milliseconds(600);
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
    peer = RawPeer(server->port(), 4096);
    REQUIRE(events->WaitForAccepted(1));
  }
  const ConnPtr conn = events->conn();
  REQUIRE_FALSE(conn->Send(std::string(size, 'x')));
  StopReport report;
  WithinDeadline("a stop", [&] { report = conn->Stop(StopMode::kGracefullyAndWait); });
  REQUIRE(report.cut == 1);
  const ConnStats stats = conn->Stats();
  if (size < kTooMuch) {
    REQUIRE(stats.written_bytes == size);
  } else {
    REQUIRE(report.unsent_bytes > 0);
    REQUIRE(stats.written_bytes > 0);
  }
  REQUIRE(report.unsent_bytes == size - stats.written_bytes);
  // What the peer's kernel has now is what it had acknowledged when the descriptor was closed.
  REQUIRE(report.unacked_bytes == stats.written_bytes - Unread(peer.fd()));
  static_cast<void>(peer.ReadAll());
  REQUIRE(BookProblems(stats, peer.received()) == "");
  REQUIRE((dialled ? client->Finish() : server->Finish()) == "");
}

TEST_CASE("an immediate stop counts to the byte what it drops", "[M19][M21][M23][S1][B1]") {
  const bool server_wide = GENERATE(true, false);
  auto events = std::make_shared<EventRecorder>();
  TestServer server(events);
  RawPeer peer(server.port(), 4096);
  REQUIRE(events->WaitForAccepted(1));
  const ConnPtr conn = events->conn();
  REQUIRE_FALSE(conn->Send(Piece(0, 0, kTooMuch)));
  // Until the kernel takes no more.
  REQUIRE(WaitUntil([&] { return conn->Stats().written_bytes > 0; }));
  std::uint64_t written = 0;
  int still = 0;
  REQUIRE(WaitUntil([&] {
    std::this_thread::sleep_for(milliseconds(20));
    const std::uint64_t before = std::exchange(written, conn->Stats().written_bytes);
    still = before == written ? still + 1 : 0;
    return still == 15;
  }));
  StopReport report;
  WithinDeadline("a stop", [&] {
    static_cast<void>(server_wide ? server->Stop(StopMode::kImmediately)
                                  : conn->Stop(StopMode::kImmediately));
    report = server_wide ? server->Stop(StopMode::kGracefullyAndWait)
                         : conn->Stop(StopMode::kGracefullyAndWait);
  });
  // S1: nothing more was written.
  REQUIRE(conn->Stats().written_bytes == written);
  REQUIRE(Text(report) == Text({.connections = 1,
                                .unsent_bytes = kTooMuch - written,
                                .unacked_bytes = conn->Stats().unacked_bytes}));
  REQUIRE(report.unacked_bytes > 0);
  // The kernel goes on with what it took: its peer reads all of that, and a FIN.
  std::string received;
  REQUIRE(peer.ReadAll(&received) == End::kEof);
  REQUIRE(received.size() == written);
  REQUIRE(Pieces().Check(received, false) == "");
  REQUIRE(server.Finish() == "");
}

TEST_CASE("a Unix socket has unsent bytes, but none unacknowledged", "[M21][M23][B1]") {
  const StopMode mode = GENERATE(StopMode::kImmediately, StopMode::kGracefullyButNotWait);
  CAPTURE(Name(mode));
  Options options;
  options.linger_timeout = milliseconds(150);
  auto events = std::make_shared<EventRecorder>();
  TestServer server(events, options, "unix:@xtcp-test-unix-account");
  RawPeer peer(server.address());
  REQUIRE(events->WaitForAccepted(1));
  const ConnPtr conn = events->conn();
  REQUIRE_FALSE(conn->Send(Piece(0, 0, kTooMuch)));
  REQUIRE(WaitUntil([&] { return conn->Stats().written_bytes > 0; }));
  static_cast<void>(server->Stop(mode));
  REQUIRE(events->WaitForClosed(1));
  const ConnStats stats = conn->Stats();
  REQUIRE(stats.unsent_bytes() > 0);
  REQUIRE(stats.unacked_bytes == 0);
  std::string received;
  REQUIRE(peer.ReadAll(&received) == End::kEof);
  REQUIRE(received.size() == stats.written_bytes);
  REQUIRE(Pieces().Check(received, false) == "");
  REQUIRE(server.Finish() == "");
  REQUIRE(Text(server.report()) == Text({.connections = 1,
                                         .cut = mode == StopMode::kImmediately ? 0u : 1u,
                                         .unsent_bytes = stats.unsent_bytes()}));
}

TEST_CASE("a stop that finds its connection ended reports nothing; its account has the loss",
          "[M20][M21][B1]") {
  OneConnection one(GENERATE(Kind::kAccepted, Kind::kDialled));
  REQUIRE_FALSE(one.conn->Send(Piece(0, 0, kTooMuch)));
  REQUIRE(WaitUntil([&] { return one.conn->Stats().written_bytes > 0; }));
  one.peer.Reset();
  REQUIRE(one.events->WaitForClosed(1));
  REQUIRE(one.conn->Stats().unsent_bytes() > 0);
  for (const StopMode mode : {StopMode::kGracefullyAndWait, StopMode::kImmediately,
                              StopMode::kGracefullyButNotWait, StopMode::kGracefullyAndWait}) {
    CAPTURE(Name(mode));
    StopReport report;
    WithinDeadline("a stop", [&] { report = one.conn->Stop(mode); });
    REQUIRE(Text(report) == OnlyConnections(0));
  }
  REQUIRE(one.conn->Stats().reason == CloseReason::kPeerReset);
  REQUIRE(one.Finish() == "");
}

}  // namespace
}  // namespace xtcp::test
