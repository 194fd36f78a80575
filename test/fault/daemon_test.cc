// What becomes of a daemon when the system refuses what its signals need, and what a drain does
// with time.

#include <signal.h>
#include <sys/epoll.h>
#include <unistd.h>
#include <xtcp/daemon.h>
#include <xtcp/error.h>

#include <catch2/catch.hpp>
#include <cerrno>
#include <chrono>
#include <memory>
#include <system_error>
#include <thread>
#include <utility>

#include "support/deadline.h"
#include "support/event_recorder.h"
#include "support/fault_control.h"
#include "support/leak_guard.h"
#include "support/raw_peer.h"
#include "support/test_server.h"
#include "support/violations.h"

namespace xtcp::test {
namespace {

std::error_code System(int error) { return {error, std::system_category()}; }

void* HandlerOf(int signal) {
  struct sigaction action {};
  ::sigaction(signal, nullptr, &action);
  return reinterpret_cast<void*>(action.sa_handler);
}

// Serves with this fault. Whatever it is, there must be an end.
std::error_code ServeWith(const Fault& fault) {
  void* const first = HandlerOf(SIGUSR1);
  void* const second = HandlerOf(SIGUSR2);
  const std::size_t descriptors = Holdings::Now().descriptors;
  auto events = std::make_shared<EventRecorder>();
  std::error_code error;
  {
    Server server(WithDefaults({}, events));
    REQUIRE_FALSE(server.Listen("127.0.0.1:0"));
    FaultPlan plan;
    plan.Add(fault);
    StopReport report;
    WithinDeadline("ServeUntilSignal", [&] {
      error = ServeUntilSignal(server, {.signals = {SIGUSR1, SIGUSR2}}, &report);
    });
    CHECK(plan.injected() == 1);
    CHECK(report.connections == 0);
    CHECK(HandlerOf(SIGUSR1) == first);
    CHECK(HandlerOf(SIGUSR2) == second);
  }
  CHECK(Holdings::Now().descriptors == descriptors);
  CHECK(events->Verify() == "");
  return error;
}

TEST_CASE("what signals need and the system refuses is returned", "[M64][F2]") {
  CHECK(ServeWith({.site = Site::kEventFd, .error = EMFILE}) == System(EMFILE));
  // Two look, and two install.
  for (std::size_t first = 1; first <= 4; ++first) {
    CHECK(ServeWith({.site = Site::kSigAction, .error = EINVAL, .first = first}) == System(EINVAL));
  }
  CHECK(ServeWith({.site = Site::kSigMask, .error = EINVAL}) == System(EINVAL));
  // The loop's eventfd, the listener, and ours, in whatever order.
  for (std::size_t first = 1; first <= 3; ++first) {
    CHECK(ServeWith({.site = Site::kEpollCtl,
                     .error = ENOMEM,
                     .first = first,
                     .operation = EPOLL_CTL_ADD}) == System(ENOMEM));
  }
}

TEST_CASE("a drain waits for those who have begun to connect", "[M64][M63]") {
  for (const bool whole_group : {false, true}) {
    CAPTURE(whole_group);
    VirtualClock clock;
    auto events = std::make_shared<EventRecorder>();
    LoopGroup group;
    Options options;
    options.drain_grace = std::chrono::seconds(1);
    options = WithDefaults(std::move(options), events);
    Server server = whole_group ? Server(options, group) : Server(options);
    REQUIRE_FALSE(server.Listen("127.0.0.1:0"));
    if (whole_group) REQUIRE_FALSE(server.Start());
    const SignalPlan plan{.signals = {SIGUSR1}, .drain = std::chrono::hours(1)};
    std::error_code error;
    Signal ended;
    std::thread serving([&] {
      error = whole_group ? RunUntilSignal(group, plan) : ServeUntilSignal(server, plan);
      ended.Set();
    });
    // It serves, and nobody is connected any more.
    RawPeer(server.Addresses().at(0).Port()).Close();
    const bool closed = events->WaitForClosed(1);
    CAPTURE(ended.IsSet(), server.IsDraining(), server.Stats().accepted, server.Stats().refused);
    REQUIRE(closed);
    REQUIRE(::kill(::getpid(), SIGUSR1) == 0);
    REQUIRE(WaitUntil([&] { return server.IsDraining(); }));
    REQUIRE(clock.Settle());
    clock.Advance(std::chrono::milliseconds(900));
    REQUIRE(clock.Settle());
    CHECK_FALSE(server.IsStopped());
    // When its grace is over it ends, and does not wait for an hour.
    CHECK(WaitUntil([&] {
      clock.Advance(std::chrono::milliseconds(20));
      return ended.IsSet();
    }));
    if (!ended.Wait(3 * kDeadline)) Die("a drain does not end");
    serving.join();
    CHECK_FALSE(error);
    CHECK(events->Verify() == "");
  }
}

}  // namespace
}  // namespace xtcp::test
