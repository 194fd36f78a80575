// A dial that is stopped: in its look-up, and inside each of its system calls.

#include <array>
#include <catch2/catch.hpp>
#include <chrono>
#include <memory>
#include <optional>
#include <string>
#include <system_error>
#include <thread>

#include "support/deadline.h"
#include "support/event_recorder.h"
#include "support/fake_names.h"
#include "support/fault_control.h"
#include "support/raw_peer.h"
#include "support/test_client.h"
#include "support/violations.h"

namespace xtcp::test {
namespace {

TEST_CASE("a stop during the look-up returns at once, the dial when the look-up does",
          "[M22][M32]") {
  FaultPlan plan;
  RawListener listener;
  Signal looks_up, answer;
  plan.Add({.site = Site::kGetAddrInfo, .act = [&](int) {
              looks_up.Set();
              if (!answer.Wait(3 * kDeadline)) AddViolation("nobody lets the look-up go on");
            }});
  const FakeNames names({"127.0.0.1"});
  TestClient client(std::make_shared<EventRecorder>(),
                    "some.name:" + std::to_string(listener.port()));
  REQUIRE(looks_up.Wait());
  const StopMode mode = GENERATE(StopMode::kImmediately, StopMode::kGracefullyButNotWait,
                                 StopMode::kGracefullyAndWait);
  WithinDeadline("a stop", [&] { static_cast<void>(client->Stop(mode)); });
  REQUIRE_FALSE(answer.IsSet());
  REQUIRE(client->IsStopped());
  REQUIRE(client->Send("x") == Errc::kStopping);
  REQUIRE(client->Stats().reason == CloseReason::kNone);  // the dial still runs
  const std::uint64_t sockets = CallsOf(Site::kSocket);
  answer.Set();
  REQUIRE(client.Wait() == Errc::kStopped);
  REQUIRE(CallsOf(Site::kSocket) == sockets);
  REQUIRE(client.Finish(mode, Errc::kStopped) == "");
}

constexpr std::array kCallsOfADial = {Site::kGetAddrInfo, Site::kEpollCreate, Site::kEventFd,
                                      Site::kEpollCtl,    Site::kEpollWait,   Site::kSocket,
                                      Site::kSetSockOpt,  Site::kConnect,     Site::kGetSockOpt,
                                      Site::kGetSockName, Site::kGetPeerName, Site::kNow};

// Stops a dial inside the nth call of a kind, and gives what it returned; none when no such call
// came.
std::optional<std::error_code> StopInside(Site site, std::size_t nth, StopMode mode,
                                          RawListener& listener, bool* stood) {
  FaultPlan plan;
  VirtualClock clock;
  const FakeNames names({"127.0.0.1"});
  auto events = std::make_shared<EventRecorder>();
  const ConnPtr conn = NewConn(WithDefaults({}, events));
  const std::uint64_t connects = CallsOf(Site::kConnect);
  Signal ended;
  std::error_code result;
  plan.Add({.site = site, .first = nth, .act = [&](int) { static_cast<void>(conn->Stop(mode)); }});
  std::thread dialling([&] {
    result = conn->DialAndServe("some.name:" + std::to_string(listener.port()));
    ended.Set();
  });
  REQUIRE(WaitUntil([&] { return ended.IsSet() || CallsOf(Site::kConnect) > connects; }));
  REQUIRE(clock.Settle());
  const bool reached = plan.injected() > 0;
  static_cast<void>(conn->Stop(mode));  // where that call did not come
  REQUIRE(clock.Settle());
  *stood = events->totals().connected > 0;
  // A graceful stop waits for the peer's end of stream.
  if (*stood) REQUIRE(listener.Accept().connected());
  WithinDeadline("a dial", [&] { dialling.join(); });
  REQUIRE(conn->IsStopped());
  REQUIRE(conn->Stats().reason == (*stood ? CloseReason::kLocalStop : CloseReason::kConnectFailed));
  // One that stood in spite of it was admitted during the stop (M21).
  REQUIRE(conn->Stop(StopMode::kGracefullyAndWait).connections == (*stood ? 1 : 0));
  REQUIRE(events->Verify() == "");
  if (!reached) return std::nullopt;
  return result;
}

TEST_CASE("a dial that hangs may be stopped inside each of its calls", "[M22][M31][M32][S5]") {
  const StopMode mode = GENERATE(StopMode::kImmediately, StopMode::kGracefullyButNotWait);
  // A queue that is full drops further SYNs.
  RawListener hung(0);
  RawPeer fills_it(hung.port());
  int moments = 0;
  for (const Site site : kCallsOfADial) {
    for (std::size_t nth = 1; nth < 50; ++nth) {
      CAPTURE(static_cast<int>(site), nth);
      bool stood = false;
      const auto result = StopInside(site, nth, mode, hung, &stood);
      REQUIRE_FALSE(stood);
      if (!result) break;
      REQUIRE(*result == Errc::kStopped);
      ++moments;
    }
  }
  REQUIRE(moments > 10);
}

TEST_CASE("a dial that stands may be stopped inside each of its calls", "[M21][M22][M31][S5][S6]") {
  const StopMode mode = GENERATE(StopMode::kImmediately, StopMode::kGracefullyButNotWait);
  RawListener listener;
  int stopped = 0, served = 0;
  for (const Site site : kCallsOfADial) {
    for (std::size_t nth = 1; nth < 50; ++nth) {
      CAPTURE(static_cast<int>(site), nth);
      bool stood = false;
      const auto result = StopInside(site, nth, mode, listener, &stood);
      // Its connect may have stood for the listener all the same.
      if (!stood) static_cast<void>(listener.Accept(std::chrono::milliseconds(0)));
      if (!result) break;
      REQUIRE(*result == (stood ? std::error_code() : Errc::kStopped));
      ++(stood ? served : stopped);
    }
  }
  REQUIRE(stopped > 4);
  REQUIRE(served > 4);
}

}  // namespace
}  // namespace xtcp::test
