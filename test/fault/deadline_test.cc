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

}  // namespace
}  // namespace xtcp::test
