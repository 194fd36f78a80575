#include "server/end_calls.h"

#include <pthread.h>

#include <catch2/catch.hpp>
#include <memory>
#include <stdexcept>
#include <thread>
#include <utility>
#include <vector>

#include "base/callback_scope.h"
#include "support/alloc_hook.h"
#include "unit/loop/one_loop.h"

namespace xtcp::internal {
namespace {

// Counts calls, and notes where the last one was made.
struct Calls {
  EndCall Make() {
    return [this](const StopReport& report) {
      ++count;
      cut = report.cut;
      inside = InsideCallback();
    };
  }
  std::vector<EndCall> MakeOne() { return std::vector<EndCall>(1, Make()); }

  int count = 0;
  std::size_t cut = 0;
  bool inside = false;
};

const StopReport kReport{.connections = 5, .cut = 3};

TEST_CASE("what a stop calls at its end is called at once where no loop ran, as a callback",
          "[M42][M26]") {
  Calls calls;
  MakeEndCalls({calls.Make(), calls.Make()}, kReport, nullptr);
  CHECK(calls.count == 2);
  CHECK(calls.cut == 3);
  CHECK(calls.inside);
}

TEST_CASE("what a stop calls at its end is a task of the loop", "[M42]") {
  OneLoop loop;
  Calls calls;
  MakeEndCalls({calls.Make(), calls.Make()}, kReport, loop.context.get());
  CHECK(calls.count == 0);
  loop.Run();
  CHECK(calls.count == 2);
  CHECK(calls.cut == 3);
  CHECK(loop.context->tasks.run() == 2);
  loop.core.Close();
  CHECK(calls.count == 2);
}

TEST_CASE("what a stop calls at its end is called though the loop takes no tasks, or runs no more",
          "[M42]") {
  const bool refused = GENERATE(false, true);
  CAPTURE(refused);
  OneLoop loop;
  Calls calls;
  if (refused) loop.core.Close();
  MakeEndCalls(calls.MakeOne(), kReport, loop.context.get());
  CHECK(calls.count == (refused ? 1 : 0));
  loop.core.Close();
  CHECK(calls.count == 1);
  CHECK(calls.inside);
}

TEST_CASE("what a stop calls at its end is called once though there is no memory", "[M42][F4]") {
  // For the task's call, for the task, and for the queue of tasks.
  for (std::uint64_t which = 1; which <= 4; ++which) {
    CAPTURE(which);
    OneLoop loop;
    Calls calls;
    std::vector<EndCall> one = calls.MakeOne();
    {
      const test::FailAllocations fail(which, test::FailAllocations::kAlways);
      MakeEndCalls(std::move(one), kReport, loop.context.get());
    }
    loop.Run();
    loop.core.Close();
    CHECK(calls.count == 1);
  }
}

TEST_CASE("an exception from what a stop calls at its end keeps no other call away", "[M42][M38]") {
  Calls calls;
  const EndCall throwing = [](const StopReport&) { throw std::runtime_error("an end's"); };
  CHECK_NOTHROW(MakeEndCalls({throwing, calls.Make()}, kReport, nullptr));
  OneLoop loop;
  MakeEndCalls({throwing, calls.Make()}, kReport, loop.context.get());
  loop.Run();
  CHECK(loop.context->tasks.exceptions() == 1);
  CHECK(calls.count == 2);
}

// The address sanitizer cannot follow a thread that is unwound by force.
#if !defined(__SANITIZE_ADDRESS__)
TEST_CASE("a thread may end in what a stop calls at its end", "[M42][M24]") {
  bool returned = false;
  std::thread thread([&returned] {
    MakeEndCalls({[](const StopReport&) { ::pthread_exit(nullptr); }}, kReport, nullptr);
    returned = true;
  });
  thread.join();
  CHECK_FALSE(returned);
}
#endif

}  // namespace
}  // namespace xtcp::internal
