// The schedules of senders that are refused, and of those who make room.

#include <xtcp/error.h>

#include <catch2/catch.hpp>
#include <string>
#include <vector>

#include "schedules/served.h"
#include "support/alloc_hook.h"
#include "support/explorer.h"
#include "support/fault_control.h"

namespace xtcp::test {
namespace {

constexpr std::size_t kLimit = 64 << 10;

Options WithLimit() {
  Options options;
  options.send_buffer_limit = kLimit;
  return options;
}

// Sends, and knows what must follow.
struct Sender {
  // On the sender's thread.
  void Send(const Served& served, std::size_t size) {
    ready_before = served.send_ready();
    const std::string bytes(size, 'x');
    refused = served.conn().Send(bytes) == Errc::kFull;
  }

  // When everything is written and the loop sleeps.
  bool forgotten(const Served& served) const {
    return refused && served.send_ready() == ready_before;
  }

  bool refused = false;
  int ready_before = 0;
};

TEST_CASE("schedules: a sender that was refused is told when all is written",
          "[M14][B6][seen-26]") {
  const FaultPlan no_faults;
  bool some_refused = false;
  const Exploration result = Explore({.preemptions = 3}, [&](Schedule& schedule) -> std::string {
    Served served(schedule, {}, WithLimit());
    Sender first, second;
    schedule.Add("sender", [&] {
      first.Send(served, kLimit);
      second.Send(served, kLimit);
    });
    schedule.Run();
    some_refused = some_refused || second.refused;
    const bool forgotten = first.forgotten(served) || second.forgotten(served);
    served.End();
    return forgotten ? "OnSendReady did not come" : "";
  });
  CAPTURE(result.schedules);
  CHECK(result.problem == "");
  CHECK(some_refused);
  CHECK(result.schedules > 50);
}

TEST_CASE("schedules: of two senders each that was refused is told", "[M14][B6][seen-26]") {
  const FaultPlan no_faults;
  const Exploration result = Explore({.preemptions = 1}, [](Schedule& schedule) -> std::string {
    Served served(schedule, {}, WithLimit());
    Sender one, another;
    schedule.Add("one", [&] { one.Send(served, kLimit); });
    schedule.Add("another", [&] { another.Send(served, kLimit); });
    schedule.Run();
    const bool forgotten = one.forgotten(served) || another.forgotten(served);
    served.End();
    return forgotten ? "OnSendReady did not come" : "";
  });
  CAPTURE(result.schedules);
  CHECK(result.problem == "");
  CHECK(result.schedules > 50);
}

// What the first one has taken of the limit comes back when there is no memory for its bytes.
TEST_CASE("schedules: a sender that was refused is told when another one has no memory",
          "[M14][F4][seen-26]") {
  const FaultPlan no_faults;
  bool some_refused = false;
  const Exploration result = Explore({.preemptions = 2}, [&](Schedule& schedule) -> std::string {
    Served served(schedule, {}, WithLimit());
    Sender refused;
    const std::string bytes(kLimit, 'x');
    bool no_memory = false;
    schedule.Add("unlucky", [&] {
      const NoMemoryHere here;
      no_memory = served.conn().Send(bytes) == Errc::kNoMemory;
    });
    schedule.Add("sender", [&] { refused.Send(served, 1); });
    schedule.Run();
    some_refused = some_refused || (refused.refused && no_memory);
    const bool forgotten = refused.forgotten(served);
    served.End();
    return forgotten ? "OnSendReady did not come" : "";
  });
  CAPTURE(result.schedules);
  CHECK(result.problem == "");
  CHECK(some_refused);
  CHECK(result.schedules > 50);
}

TEST_CASE("schedules: a handler that was refused is told when another thread's bytes are written",
          "[M14][B6][seen-26]") {
  const FaultPlan no_faults;
  bool some_refused = false;
  const Exploration result = Explore({.preemptions = 2}, [&](Schedule& schedule) -> std::string {
    Served* self = nullptr;
    Sender on_loop, elsewhere;
    Served served(schedule, {.on_recv = [&](const ConnPtr&) { on_loop.Send(*self, kLimit); }},
                  WithLimit());
    self = &served;
    served.PeerSends("go");
    schedule.Add("sender", [&] { elsewhere.Send(served, kLimit); });
    schedule.Run();
    some_refused = some_refused || on_loop.refused;
    const bool forgotten = on_loop.forgotten(served) || elsewhere.forgotten(served);
    served.End();
    return forgotten ? "OnSendReady did not come" : "";
  });
  CAPTURE(result.schedules);
  CHECK(result.problem == "");
  CHECK(some_refused);
  CHECK(result.schedules > 50);
}

}  // namespace
}  // namespace xtcp::test
