// Time that a callback takes is over when it returns: what the turn then begins is timed from there.
// With a clock that the test moves, on accepted and dialled connections.

#include <unistd.h>

#include <catch2/catch.hpp>
#include <chrono>
#include <functional>
#include <memory>
#include <string>

#include "support/event_recorder.h"
#include "support/fault_control.h"
#include "support/one_connection.h"
#include "support/test_protocol.h"

namespace xtcp::test {
namespace {

using namespace std::chrono_literals;

// A connection whose callback takes 900 ms of the test's clock, and then does `then`.
struct Slow {
  Slow(const Options& options, std::function<void(const ConnPtr&)> then)
      : one(GENERATE(Kind::kAccepted, Kind::kDialled), options,
            "unix:@xtcp-slow-" + std::to_string(::getpid()), Recorder(std::move(then))) {
    REQUIRE(clock.Settle());
    REQUIRE(one.peer.SendAll(Frame("go")));
    REQUIRE(clock.Settle());
  }

  std::shared_ptr<EventRecorder> Recorder(std::function<void(const ConnPtr&)> then) {
    auto events = std::make_shared<EventRecorder>();
    events->on_recv = [this, then = std::move(then)](const ConnPtr& conn, std::string_view) {
      clock.Advance(900ms);
      then(conn);
    };
    return events;
  }

  // It ends `time` after the callback, and not before.
  void MustEndIn(std::chrono::milliseconds time, CloseReason reason) {
    clock.Advance(time - 1ms);
    REQUIRE(clock.Settle());
    REQUIRE_FALSE(one.closed());
    clock.Advance(101ms);
    REQUIRE(clock.Settle());
    REQUIRE(one.events->WaitForClosed(1));
    REQUIRE(one.reason() == reason);
    REQUIRE(one.Finish() == "");
  }

  const FaultPlan no_faults;
  VirtualClock clock;
  OneConnection one;
};

TEST_CASE("the linger of a stop begins when the callback that asked for it returns",
          "[M19][R8][seen-26]") {
  Options options;
  options.linger_timeout = 1000ms;
  Slow slow(options, [](const ConnPtr& conn) { conn->Stop(StopMode::kGracefullyButNotWait); });
  slow.MustEndIn(1000ms, CloseReason::kLingerTimeout);
}

TEST_CASE("what leaves at the end of a slow callback moves the write deadline",
          "[M19][R8][seen-26]") {
  Options options;
  options.write_deadline = 1000ms;
  Slow slow(options, [](const ConnPtr& conn) {
    static_cast<void>(conn->Send(std::string(4 << 20, 'x')));  // more than the kernel takes
  });
  slow.MustEndIn(1000ms, CloseReason::kWriteDeadline);
}

}  // namespace
}  // namespace xtcp::test
