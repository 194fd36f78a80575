// The schedules of a start and a stop on a group that nobody runs: the stop ends it, since no loop
// will.

#include <xtcp/xtcp.h>

#include <catch2/catch.hpp>
#include <memory>
#include <stdexcept>
#include <string>

#include "support/explorer.h"
#include "support/fault_control.h"
#include "support/test_protocol.h"

namespace xtcp::test {
namespace {

struct Silent : Handler {
  void OnEvent(EventType, const ConnPtr&, PacketPtr) override {}
};

Options SomeOptions() {
  return {.handler = std::make_shared<Silent>(), .protocol = std::make_shared<TestProtocol>()};
}

// What `make` makes on a group is started by one thread and stopped by another.
template <typename Make>
void StopEnds(Make make) {
  const FaultPlan no_faults;
  const Exploration result = Explore({.preemptions = 2}, [&](Schedule& schedule) -> std::string {
    LoopGroup group;
    const auto made = make(group);
    bool ended = false;
    schedule.Add("starter", [&] { static_cast<void>(made->Start()); });
    schedule.Add("stopper", [&] {
      made->Stop(StopMode::kImmediately, [&](const StopReport&) { ended = true; });
    });
    schedule.Run();
    return ended ? "" : "it was stopped, and waits for a loop";
  });
  CAPTURE(result.schedules);
  CHECK(result.problem == "");
  CHECK(result.schedules > 20);
}

TEST_CASE("schedules: a stop ends a server that starts where nothing runs", "[M20][M44][S5]") {
  StopEnds([](LoopGroup& group) {
    auto server = std::make_unique<Server>(SomeOptions(), group);
    if (server->Listen("127.0.0.1:0")) throw std::runtime_error("nobody listens");
    return server;
  });
}

TEST_CASE("schedules: a stop ends a redialer that starts where nothing runs", "[M20][M55][S5]") {
  StopEnds([](LoopGroup& group) {
    return std::make_unique<Redialer>(SomeOptions(), "127.0.0.1:1", group[0]);
  });
}

TEST_CASE("schedules: a stop ends a dial that begins where nothing runs", "[M20][M51][S5]") {
  const FaultPlan no_faults;
  const Exploration result = Explore({.preemptions = 2}, [](Schedule& schedule) -> std::string {
    LoopGroup group;
    const ConnPtr conn = NewConn(SomeOptions(), group[0]);
    schedule.Add("dialler", [&] { static_cast<void>(conn->Dial("127.0.0.1:1")); });
    schedule.Add("stopper", [&] { conn->Stop(StopMode::kImmediately); });
    schedule.Run();
    return conn->Stats().reason == CloseReason::kConnectFailed
               ? ""
               : "it was stopped, and waits for a loop";
  });
  CAPTURE(result.schedules);
  CHECK(result.problem == "");
  CHECK(result.schedules > 20);
}

}  // namespace
}  // namespace xtcp::test
