// What time alone costs: nothing, without a deadline that is near.

#include <catch2/catch.hpp>
#include <chrono>
#include <memory>
#include <string>

#include "support/event_recorder.h"
#include "support/fault_control.h"
#include "support/one_connection.h"
#include "support/raw_peer.h"
#include "support/test_client.h"
#include "support/test_protocol.h"
#include "support/test_server.h"

namespace xtcp::test {
namespace {

using namespace std::chrono_literals;

// How often a loop returns from its wait while so much time passes, a second at a time.
std::uint64_t WakeUps(VirtualClock& clock, std::chrono::seconds time) {
  REQUIRE(clock.Settle());
  const std::uint64_t before = CallsOf(Site::kEpollWait);
  for (std::chrono::seconds passed{0}; passed < time; passed += 1s) {
    clock.Advance(1s);
    REQUIRE(clock.Settle());
  }
  return CallsOf(Site::kEpollWait) - before;
}

TEST_CASE("without a deadline idle loops sleep for ever", "[R7]") {
  FaultPlan no_faults;
  VirtualClock clock;
  Options options;
  options.loops = 3;
  auto events = std::make_shared<EventRecorder>();
  events->on_recv = [](const ConnPtr& conn, std::string_view payload) {
    if (payload == "pause") conn->PauseRecv();
  };
  const std::uint64_t threads = CallsOf(Site::kStartThread);
  TestServer server(events, options);
  REQUIRE(WaitUntil([&] { return CallsOf(Site::kStartThread) == threads + 2; }));
  SECTION("no connection") { REQUIRE(WakeUps(clock, 100s) == 0); }
  SECTION("connections of every kind of quiet") {
    TestClient client(events, server.address());
    RawPeer silent(server.port()), half(server.port()), paused(server.port());
    RawPeer full("127.0.0.1:" + std::to_string(server.port()), 4096);
    REQUIRE(events->WaitForAccepted(5));
    REQUIRE(half.SendAll(Frame("half").substr(0, 5)));
    REQUIRE(paused.SendAll(Frame("pause") + Frame("waits")));
    REQUIRE(events->WaitForPackets(1));
    paused.HalfClose();
    REQUIRE(WakeUps(clock, 100s) == 0);
    REQUIRE(client.Finish() == "");
  }
  REQUIRE(server.Finish() == "");
}

TEST_CASE("a deadline costs one wake-up, however much comes before it", "[R7][R8]") {
  const Kind kind = GENERATE(Kind::kAccepted, Kind::kDialled);
  FaultPlan no_faults;
  VirtualClock clock;
  Options options;
  options.read_deadline = 1000s;
  OneConnection one(kind, options);
  REQUIRE(clock.Settle());
  // Traffic moves the deadline; the timer of the first one finds that it came too early.
  clock.Advance(500s);
  for (int i = 0; i < 100; ++i) REQUIRE(one.peer.SendAll(Frame("x")));
  REQUIRE(one.events->WaitForPackets(100));
  REQUIRE(WakeUps(clock, 990s) <= 2);
  REQUIRE_FALSE(one.closed());
  REQUIRE(one.Finish() == "");
}

TEST_CASE("a paused connection is not looked at, whatever its deadline", "[M18][R7]") {
  const Kind kind = GENERATE(Kind::kAccepted, Kind::kDialled);
  FaultPlan no_faults;
  VirtualClock clock;
  Options options;
  options.read_deadline = options.packet_deadline = 10s;
  OneConnection one(kind, options);
  one.conn->PauseRecv();
  REQUIRE(one.peer.SendAll(Frame("waits")));
  // The timer that was armed before the pause comes once.
  REQUIRE(WakeUps(clock, 200s) <= 1);
  REQUIRE_FALSE(one.closed());
  REQUIRE(one.Finish() == "");
}

}  // namespace
}  // namespace xtcp::test
