// What becomes of a server or a dial whose epoll breaks, of interrupted wake-ups, and how many turns
// an immediate stop takes.

#include <unistd.h>

#include <atomic>
#include <catch2/catch.hpp>
#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <system_error>
#include <vector>

#include "support/event_recorder.h"
#include "support/fault_control.h"
#include "support/log_lines.h"
#include "support/one_connection.h"
#include "support/raw_peer.h"
#include "support/test_client.h"
#include "support/test_protocol.h"
#include "support/test_server.h"

namespace xtcp::test {
namespace {

std::error_code System(int error) { return {error, std::system_category()}; }

TEST_CASE("a broken epoll ends its loop's connections in order, and the server", "[F2][M34][E2]") {
  const int error = GENERATE(EBADF, EINVAL);
  const std::size_t loops = GENERATE(1u, 2u);
  CAPTURE(error, loops);
  FaultPlan plan;
  const LogLines log;
  auto events = std::make_shared<EventRecorder>();
  events->on_recv = Echo;
  Options options;
  options.loops = loops;
  TestServer server(events, options);
  std::vector<RawPeer> peers;
  for (std::size_t i = 0; i < 4; ++i) {
    peers.emplace_back(server.port());  // dealt to the loops in turn
    REQUIRE(events->WaitForAccepted(i + 1));
    REQUIRE(peers[i].SendAll(Frame("x")));
    REQUIRE(peers[i].ReadFrame() == "x");
  }
  plan.Add({.site = Site::kEpollWait, .error = error});
  REQUIRE(peers[0].SendAll(Frame("x")));  // whichever loop waits next
  for (RawPeer& peer : peers) {
    static_cast<void>(peer.ReadAll());
    peer.Close();
  }
  REQUIRE(server.WaitForEnd());
  CHECK(plan.injected() == 1);
  CHECK(log.With("an event loop is broken") == 1);
  const auto connections = events->connections();
  const bool first = connections[0].at_closed.reason == CloseReason::kSystemError;
  for (std::size_t i = 0; i < connections.size(); ++i) {
    CAPTURE(i, first);
    const bool hit = loops == 1 || (i % 2 == 0) == first;
    const ConnStats& stats = connections[i].at_closed;
    CHECK(stats.reason == (hit ? CloseReason::kSystemError : CloseReason::kLocalStop));
    CHECK(stats.error == (hit ? System(error) : std::error_code()));
  }
  REQUIRE(server.Finish(StopMode::kImmediately, System(error)) == "");
}

TEST_CASE("of several loops that break the first one is what Serve returns", "[M34][F2]") {
  FaultPlan plan;
  auto events = std::make_shared<EventRecorder>();
  events->on_recv = Echo;
  Options options;
  options.loops = 2;
  TestServer server(events, options);
  std::vector<RawPeer> peers;
  for (std::size_t i = 0; i < 2; ++i) {
    peers.emplace_back(server.port());
    REQUIRE(events->WaitForAccepted(i + 1));
  }
  plan.Add({.site = Site::kEpollWait, .error = EBADF});
  REQUIRE(peers[0].SendAll(Frame("x")));
  REQUIRE(events->WaitForClosed(1));
  // The other loop waits for its peer's end of stream.
  const std::size_t left = events->connection(0).closed ? 1 : 0;
  REQUIRE(peers[left].ReadAll() == End::kEof);
  REQUIRE(events->totals().closed == 1);
  plan.Add({.site = Site::kEpollWait, .error = EINVAL});
  REQUIRE(peers[left].SendAll("discarded"));
  REQUIRE(server.WaitForEnd());
  CHECK(plan.injected() == 2);
  CHECK(events->connection(left).at_closed.error == System(EINVAL));
  REQUIRE(server.Finish(StopMode::kImmediately, System(EBADF)) == "");
}

TEST_CASE("a broken epoll ends a dialled connection, or fails its dial", "[F2][M31]") {
  const int error = GENERATE(EBADF, EINVAL);
  FaultPlan plan;
  RawListener listener;
  auto events = std::make_shared<EventRecorder>();
  SECTION("once it stands") {
    TestClient client(events, listener.address());
    RawPeer peer = listener.Accept();
    REQUIRE(events->WaitForConnected(1));
    plan.Add({.site = Site::kEpollWait, .error = error});
    REQUIRE(peer.SendAll(Frame("x")));
    REQUIRE(events->WaitForClosed(1));
    CHECK_FALSE(client.Wait());
    CHECK(client->Stats().reason == CloseReason::kSystemError);
    CHECK(client->Stats().error == System(error));
    CHECK(client.Finish() == "");
  }
  SECTION("before") {
    plan.Add({.site = Site::kEpollWait, .error = error});
    TestClient client(events, listener.address());
    CHECK(client.Wait() == System(error));
    CHECK(client->Stats().reason == CloseReason::kConnectFailed);
    CHECK(client.Finish(StopMode::kImmediately, System(error)) == "");
    CHECK(events->connections().empty());
  }
}

TEST_CASE("an interrupted or needless write to the eventfd still wakes the loop", "[F1][F2][B6]") {
  const bool full = GENERATE(false, true);  // EAGAIN: the counter is at its end, so the loop wakes
  FaultPlan plan;
  auto events = std::make_shared<EventRecorder>();
  TestServer server(events);
  RawPeer peer(server.port());
  REQUIRE(events->WaitForAccepted(1));
  const std::size_t faults = full ? 1 : 5;
  plan.Add(
      {.site = Site::kWrite, .error = full ? EAGAIN : EINTR, .times = faults, .after_call = full});
  std::string byte;
  // A loop that is awake needs no write.
  for (int i = 0; i < 100'000 && plan.injected() < faults; ++i) {
    REQUIRE_FALSE(events->conn()->Send("x"));
    REQUIRE(peer.ReadExactly(1, &byte) == End::kOpen);
  }
  CHECK(plan.injected() == faults);
  REQUIRE(server.Finish() == "");
}

TEST_CASE("an immediate stop is carried out in the turn that sees it, and writes nothing",
          "[S1][M19]") {
  const Kind kind = GENERATE(Kind::kAccepted, Kind::kDialled);
  const bool queued = GENERATE(false, true);
  // Graceful first: what is left of it is cut in that turn, too.
  const bool graceful_first = GENERATE(false, true);
  CAPTURE(queued, graceful_first);
  FaultPlan no_faults;
  VirtualClock clock;
  std::uint64_t waits_at_closed = 0;
  auto events = std::make_shared<EventRecorder>();
  events->on_closed = [&](const ConnPtr&) { waits_at_closed = CallsOf(Site::kEpollWait); };
  // Where the kernel takes a known number of bytes.
  OneConnection one(kind, {}, "unix:@xtcp-test-turn-" + std::to_string(::getpid()), events);
  if (queued) REQUIRE_FALSE(one.conn->Send(std::string(4 << 20, 'x')));
  if (graceful_first) static_cast<void>(one.conn->Stop(StopMode::kGracefullyButNotWait));
  REQUIRE(clock.Settle());
  const std::uint64_t written = one.conn->Stats().written_bytes;
  REQUIRE(one.conn->Stats().unsent_bytes() == (queued ? (4 << 20) - written : 0));
  const std::uint64_t waits = CallsOf(Site::kEpollWait);
  const std::uint64_t writes = CallsOf(Site::kSend) + CallsOf(Site::kSendMsg);
  static_cast<void>(one.conn->Stop(StopMode::kImmediately));
  REQUIRE(events->WaitForClosed(1));
  CHECK(waits_at_closed == waits);  // the wait that was under way was the last one before
  CHECK(CallsOf(Site::kSend) + CallsOf(Site::kSendMsg) == writes);
  CHECK(one.conn->Stats().written_bytes == written);
  CHECK(one.reason() == CloseReason::kLocalStop);
  REQUIRE(one.Finish() == "");
}

TEST_CASE("a server's immediate stop ends the connections of a loop in the turn that sees it",
          "[S1][M19]") {
  constexpr std::size_t kPeers = 20;
  FaultPlan no_faults;
  VirtualClock clock;
  std::atomic<std::uint64_t> waits_at_last{0};
  auto events = std::make_shared<EventRecorder>();
  events->on_closed = [&](const ConnPtr&) { waits_at_last = CallsOf(Site::kEpollWait); };
  TestServer server(events, {}, "unix:@xtcp-test-turn-" + std::to_string(::getpid()));
  std::vector<RawPeer> peers;
  for (std::size_t i = 0; i < kPeers; ++i) {
    peers.emplace_back(server.address());
    REQUIRE(events->WaitForAccepted(i + 1));
    if (i % 2 == 0) REQUIRE_FALSE(events->conn(i)->Send(std::string(1 << 20, 'x')));
  }
  REQUIRE(clock.Settle());
  const std::uint64_t waits = CallsOf(Site::kEpollWait);
  const std::uint64_t writes = CallsOf(Site::kSend) + CallsOf(Site::kSendMsg);
  static_cast<void>(server->Stop(StopMode::kImmediately));
  REQUIRE(events->WaitForClosed(kPeers));
  CHECK(waits_at_last == waits);
  CHECK(CallsOf(Site::kSend) + CallsOf(Site::kSendMsg) == writes);
  REQUIRE(server.Finish() == "");
}

}  // namespace
}  // namespace xtcp::test
