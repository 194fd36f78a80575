#include <sys/socket.h>

#include <catch2/catch.hpp>
#include <cerrno>
#include <chrono>
#include <memory>
#include <string>

#include "support/event_recorder.h"
#include "support/fault_control.h"
#include "support/raw_peer.h"
#include "support/test_protocol.h"
#include "support/test_server.h"

namespace xtcp::test {
namespace {

using std::chrono::milliseconds;

TEST_CASE("the write deadline runs from when bytes begin to wait", "[R8]") {
  // Bytes that another connection's callback sends are queued outside the connection's turn; when the
  // kernel takes nothing at first, the connection's last write is long ago.
  FaultPlan plan;
  Options options;
  options.write_deadline = milliseconds(500);
  auto events = std::make_shared<EventRecorder>();
  events->on_recv = [&](const ConnPtr&, std::string_view) {
    plan.Add({.site = Site::kSendMsg, .error = EAGAIN, .times = 4});
    static_cast<void>(events->conn(1)->Send("late"));
  };
  TestServer server(events, options);
  RawPeer talks(server.port());
  REQUIRE(events->WaitForAccepted(1));
  RawPeer listens(server.port());
  REQUIRE(events->WaitForAccepted(2));
  REQUIRE(WaitUntil([&] { return events->conn(1)->Stats().age > 2 * options.write_deadline; }));
  REQUIRE(talks.SendAll(Frame("go")));
  std::string bytes;
  REQUIRE(listens.ReadExactly(4, &bytes) == End::kOpen);
  REQUIRE(bytes == "late");
  REQUIRE(plan.injected() == 4);
  REQUIRE(server.Finish() == "");
}

TEST_CASE("a peer's end that has arrived by the end of the linger is no cut", "[M19][M21]") {
  // The loop is late: bytes and end of stream wait when it looks, and the time is over. It takes
  // one read for each.
  FaultPlan plan;
  VirtualClock clock;
  Options options;
  options.linger_timeout = milliseconds(500);
  auto events = std::make_shared<EventRecorder>();
  TestServer server(events, options);
  RawPeer peer(server.port());
  REQUIRE(events->WaitForAccepted(1));
  REQUIRE_FALSE(events->conn()->Send("bye"));
  static_cast<void>(server->Stop(StopMode::kGracefullyButNotWait));
  std::string bytes;
  REQUIRE(peer.ReadAll(&bytes) == End::kEof);
  REQUIRE(bytes == "bye");
  Signal ended;
  plan.Add({.site = Site::kRecv, .act = [&](int) {
              ended.Wait();
              clock.Advance(2 * options.linger_timeout);
            }});
  REQUIRE(peer.SendAll("bye"));
  peer.HalfClose();
  ended.Set();
  REQUIRE(events->WaitForClosed(1));
  CHECK(events->connection().at_closed.reason == CloseReason::kLocalStop);
  REQUIRE(server.Finish(StopMode::kGracefullyAndWait) == "");
  CHECK(server.report().connections == 1);
  CHECK(server.report().cut == 0);
}

TEST_CASE("with no time to flush, a flush that has ended in time is no cut", "[M16]") {
  // After the peer's end of stream the kernel takes nothing at first, and all when the time is over.
  FaultPlan plan;
  Options options;
  options.linger_timeout = milliseconds(0);
  auto events = std::make_shared<EventRecorder>();
  events->on_recv = [&](const ConnPtr& conn, std::string_view) {
    plan.Add({.site = Site::kSend, .error = EAGAIN});
    plan.Add({.site = Site::kSendMsg, .error = EAGAIN});
    static_cast<void>(conn->Send("late"));
  };
  TestServer server(events, options);
  RawPeer peer(server.port());
  REQUIRE(peer.SendAll(Frame("x")));
  peer.HalfClose();
  std::string bytes;
  REQUIRE(peer.ReadAll(&bytes) == End::kEof);
  CHECK(bytes == "late");
  REQUIRE(events->WaitForClosed(1));
  CHECK(events->connection().at_closed.reason == CloseReason::kPeerClosed);
  REQUIRE(server.Finish() == "");
}

}  // namespace
}  // namespace xtcp::test
