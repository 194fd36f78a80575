// A stop of a connection whose peer ends first, or takes nothing.

#include <sys/socket.h>

#include <catch2/catch.hpp>
#include <chrono>
#include <latch>
#include <memory>
#include <optional>
#include <string>
#include <string_view>

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

using Clock = std::chrono::steady_clock;
using std::chrono::milliseconds;

TEST_CASE("the peer's FIN: without progress linger_timeout ends it", "[M16][R8][B1]") {
  const bool dialled = GENERATE(false, true);
  Options options;
  options.linger_timeout = milliseconds(200);
  auto events = std::make_shared<EventRecorder>();
  events->on_recv = [](const ConnPtr& conn, std::string_view) {
    static_cast<void>(conn->Send(std::string(kTooMuch, 'x')));
  };
  std::optional<TestServer> server;
  std::optional<TestClient> client;
  RawListener listener;
  RawPeer peer;
  if (dialled) {
    client.emplace(events, listener.address(), options);
    peer = listener.Accept();
  } else {
    server.emplace(events, options);
    peer = RawPeer(server->port(), 4096);
  }
  const auto begin = Clock::now();
  REQUIRE(peer.SendAll(Frame("go")));
  peer.HalfClose();
  REQUIRE(events->WaitForClosed(1));
  REQUIRE(Clock::now() - begin >= options.linger_timeout);
  const ConnStats stats = events->conn()->Stats();
  REQUIRE(stats.reason == CloseReason::kLingerTimeout);
  REQUIRE(stats.unsent_bytes() > 0);
  static_cast<void>(peer.ReadAll());
  REQUIRE(BookProblems(stats, peer.received()) == "");
  REQUIRE((dialled ? client->Finish() : server->Finish()) == "");
  if (!dialled) REQUIRE(Text(server->report()) == OnlyConnections(0));  // no stop ran then
}

TEST_CASE("a reset while the peer's FIN is being answered ends that at once", "[M16][M17][B1]") {
  // A Unix socket is reset by closing it with unread input.
  const std::string address = GENERATE("127.0.0.1:0", "unix:@xtcp-test-reset-after-fin");
  CAPTURE(address);
  Options options;
  options.linger_timeout = std::chrono::minutes(1);
  auto events = std::make_shared<EventRecorder>();
  TestServer server(events, options, address);
  RawPeer peer(server.address(), address[0] == 'u' ? 0 : 4096);
  REQUIRE(events->WaitForAccepted(1));
  const ConnPtr conn = events->conn();
  REQUIRE_FALSE(conn->Send(std::string(kTooMuch, 'x')));
  peer.HalfClose();
  REQUIRE(WaitUntil([&] { return conn->IsStopped(); }));
  REQUIRE(events->totals().closed == 0);
  if (address[0] == 'u') {
    peer.Close();
  } else {
    peer.Reset();
  }
  REQUIRE(events->WaitForClosed(1));
  const ConnStats stats = conn->Stats();
  REQUIRE(stats.reason == CloseReason::kPeerReset);
  REQUIRE(stats.unsent_bytes() > 0);
  REQUIRE(BookProblems(stats, 0, false) == "");
  REQUIRE(server.Finish() == "");
}

TEST_CASE("a stop while the peer's FIN is being answered takes its course", "[M16][M19][M21][B2]") {
  // Immediately: counted. Gracefully: delivered; there is no more end of stream to wait for.
  const StopMode mode = GENERATE(StopMode::kImmediately, StopMode::kGracefullyButNotWait,
                                 StopMode::kGracefullyAndWait);
  CAPTURE(Name(mode));
  auto events = std::make_shared<EventRecorder>();
  events->on_recv = [](const ConnPtr& conn, std::string_view) {
    static_cast<void>(conn->Send(Piece(0, 0, kTooMuch)));
  };
  TestServer server(events);
  RawPeer peer(server.port());
  REQUIRE(peer.SendAll(Frame("go")));
  peer.HalfClose();
  REQUIRE(events->WaitForPackets(1));
  const ConnPtr conn = events->conn();
  REQUIRE(WaitUntil([&] { return conn->IsStopped(); }));
  Threads threads;
  if (mode == StopMode::kGracefullyAndWait) {
    threads.Add([&] { static_cast<void>(conn->Stop(mode)); });
  } else {
    static_cast<void>(conn->Stop(mode));
  }
  std::string received;
  REQUIRE(peer.ReadAll(&received) == End::kEof);
  threads.Join();
  REQUIRE(events->WaitForClosed(1));
  const ConnStats stats = conn->Stats();
  REQUIRE(stats.reason != CloseReason::kLingerTimeout);
  if (mode == StopMode::kImmediately) {
    REQUIRE(stats.unsent_bytes() > 0);
  } else {
    REQUIRE(received.size() == kTooMuch);
  }
  REQUIRE(received.size() == stats.written_bytes);
  REQUIRE(Pieces().Check(received, mode != StopMode::kImmediately) == "");
  REQUIRE(server.Finish() == "");
}

TEST_CASE("a reset ends a graceful stop, and is no cut", "[M17][M19][M21][B1]") {
  const bool server_wide = GENERATE(true, false);
  const bool queued = GENERATE(true, false);
  CAPTURE(server_wide, queued);
  auto events = std::make_shared<EventRecorder>();
  TestServer server(events);
  RawPeer peer(server.port(), 4096);
  REQUIRE(events->WaitForAccepted(1));
  const ConnPtr conn = events->conn();
  if (queued) REQUIRE_FALSE(conn->Send(std::string(kTooMuch, 'x')));
  const auto stop = [&](StopMode mode) {
    return server_wide ? server->Stop(mode) : conn->Stop(mode);
  };
  static_cast<void>(stop(StopMode::kGracefullyButNotWait));
  REQUIRE(WaitUntil([&] { return conn->IsStopped(); }));
  peer.Reset();
  StopReport report;
  WithinDeadline("a stop", [&] { report = stop(StopMode::kGracefullyAndWait); });
  REQUIRE(conn->Stats().reason == CloseReason::kPeerReset);
  REQUIRE(report.connections == 1);
  REQUIRE(report.cut == 0);
  REQUIRE(report.unsent_bytes == conn->Stats().unsent_bytes());
  REQUIRE((report.unsent_bytes > 0) == queued);
  REQUIRE(report.unacked_bytes == conn->Stats().unacked_bytes);
  REQUIRE(BookProblems(conn->Stats(), 0, false) == "");
  REQUIRE(server.Finish() == "");
}

TEST_CASE("a reset and a stop in the same moment end a connection once", "[M17][M22][E2][F2]") {
  auto events = std::make_shared<EventRecorder>();
  TestServer server(events);
  Random random(17);
  for (std::size_t round = 0; round < 300; ++round) {
    RawPeer peer(server.port());
    REQUIRE(events->WaitForAccepted(round + 1));
    const ConnPtr conn = events->conn(round);
    if (random.OneIn(2)) REQUIRE_FALSE(conn->Send("something"));
    std::latch together(2);
    Threads threads;
    threads.Add([&] {
      together.arrive_and_wait();
      static_cast<void>(conn->Stop(kModes.at(round % 3)));
    });
    together.arrive_and_wait();
    KeepBusy(random.Between(0, 20'000));
    peer.Reset();
    threads.Join();
    REQUIRE(events->WaitForClosed(round + 1));
    const CloseReason reason = conn->Stats().reason;
    REQUIRE((reason == CloseReason::kLocalStop || reason == CloseReason::kPeerReset));
  }
  REQUIRE(server.Finish() == "");
}

TEST_CASE("a paused peer that wrote and left does not hold a graceful stop up", "[M18][M19][B1]") {
  // On a Unix socket that is a hang-up, which cannot be masked: the socket is out of the poller.
  const std::string address = GENERATE("127.0.0.1:0", "unix:@xtcp-test-wrote-and-left");
  const bool queued = GENERATE(false, true);
  CAPTURE(address, queued);
  auto events = std::make_shared<EventRecorder>();
  events->on_accept = [](const ConnPtr& conn) { conn->PauseRecv(); };
  TestServer server(events, {}, address);
  RawPeer peer(server.address());
  REQUIRE(events->WaitForAccepted(1));
  const ConnPtr conn = events->conn();
  REQUIRE(peer.SendAll(Frame("unread")));
  peer.Close();
  std::this_thread::sleep_for(milliseconds(20));
  if (queued) static_cast<void>(conn->Send(std::string(100'000, 'x')));
  StopReport report;
  WithinDeadline("a stop", [&] { report = conn->Stop(StopMode::kGracefullyAndWait); });
  REQUIRE(report.cut == 0);
  REQUIRE(events->totals().packets == 0);
  REQUIRE(BookProblems(conn->Stats(), 0, false) == "");
  REQUIRE(server.Finish() == "");
}

TEST_CASE("linger_timeout 0 writes what the kernel takes at once", "[M19][M21]") {
  Options options;
  options.linger_timeout = milliseconds(0);
  auto events = std::make_shared<EventRecorder>();
  TestServer server(events, options);
  RawPeer peer(server.port(), 4096);
  REQUIRE(events->WaitForAccepted(1));
  const ConnPtr conn = events->conn();
  REQUIRE_FALSE(conn->Send(std::string(kTooMuch, 'x')));
  StopReport report;
  WithinDeadline("a stop", [&] { report = conn->Stop(StopMode::kGracefullyAndWait); });
  REQUIRE(report.cut == 1);
  REQUIRE(report.unsent_bytes > 0);
  REQUIRE(conn->Stats().written_bytes > 0);
  static_cast<void>(peer.ReadAll());
  REQUIRE(BookProblems(conn->Stats(), peer.received()) == "");
  REQUIRE(server.Finish() == "");
}

TEST_CASE("a peer that takes no output does not make a graceful stop spin", "[R7][S7]") {
  // shutdown(SHUT_RD) on a Unix socket: our write fails with EPIPE, and no end of stream comes.
  Options options;
  options.linger_timeout = milliseconds(1000);
  auto events = std::make_shared<EventRecorder>();
  events->on_recv = [](const ConnPtr& conn, std::string_view) {
    static_cast<void>(conn->Send("answer"));
    static_cast<void>(conn->Stop(StopMode::kGracefullyButNotWait));
  };
  TestServer server(events, options, "unix:@xtcp-test-no-output");
  RawPeer peer(server.address());
  REQUIRE(events->WaitForAccepted(1));
  REQUIRE(::shutdown(peer.fd(), SHUT_RD) == 0);
  timespec begin{}, end{};
  ::clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &begin);
  REQUIRE(peer.SendAll(Frame("go")));
  REQUIRE(events->WaitForClosed(1));
  ::clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &end);
  REQUIRE(events->conn()->Stats().reason == CloseReason::kPeerReset);
  const double cpu = static_cast<double>(end.tv_sec - begin.tv_sec) +
                     static_cast<double>(end.tv_nsec - begin.tv_nsec) * 1e-9;
  REQUIRE(cpu < 0.5);
  REQUIRE(server.Finish() == "");
}

}  // namespace
}  // namespace xtcp::test
