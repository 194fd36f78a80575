// What becomes of a daemon when the system refuses what its signals need.

#include <signal.h>
#include <sys/epoll.h>
#include <unistd.h>
#include <xtcp/daemon.h>
#include <xtcp/error.h>

#include <catch2/catch.hpp>
#include <cerrno>
#include <memory>
#include <system_error>

#include "support/event_recorder.h"
#include "support/fault_control.h"
#include "support/leak_guard.h"
#include "support/test_server.h"

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

}  // namespace
}  // namespace xtcp::test
