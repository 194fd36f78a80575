#include "loop/task_queue.h"

#include <xtcp/error.h>

#include <catch2/catch.hpp>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <stdexcept>
#include <string>
#include <system_error>

#include "base/callback_scope.h"
#include "base/scope.h"
#include "support/alloc_hook.h"
#include "unit/loop/one_loop.h"

namespace xtcp::internal {
namespace {

constexpr std::size_t kPerTurn = TaskQueue::kPerTurn;

// Returns whether the mailbox held this channel once, and nothing beside it.
bool HoldsOnly(Mailbox& mailbox, const Channel& channel) {
  Channel* const first = mailbox.TakeAll();
  return first == &channel && Mailbox::Next(first) == nullptr;
}

TEST_CASE("a burst of tasks is one post to their loop", "[M46][B6]") {
  Mailbox mailbox;
  TaskQueue tasks(mailbox);
  for (int i = 0; i < 3; ++i) REQUIRE_FALSE(tasks.Push([] {}));
  CHECK_FALSE(tasks.empty());
  CHECK(HoldsOnly(mailbox, tasks));
  tasks.Close();
}

TEST_CASE("of more tasks than a turn takes the others come in order in the next turns",
          "[M46][R9]") {
  constexpr std::size_t kTasks = 2 * kPerTurn + 1;
  OneLoop loop;
  std::size_t run = 0;
  bool in_order = true;
  for (std::size_t i = 0; i < kTasks; ++i) {
    REQUIRE_FALSE(loop.context->tasks.Push([&, i] { in_order = in_order && run++ == i; }));
  }
  for (const std::size_t expected : {kPerTurn, 2 * kPerTurn, kTasks, kTasks}) {
    loop.Run();
    CHECK(run == expected);
    CHECK(loop.context->tasks.run() == expected);
  }
  CHECK(in_order);
}

TEST_CASE("tasks that come while a long queue is worked off come after it", "[M46]") {
  OneLoop loop;
  std::string order;
  TaskQueue& tasks = loop.context->tasks;
  for (std::size_t i = 0; i < kPerTurn; ++i) REQUIRE_FALSE(tasks.Push([] {}));
  REQUIRE_FALSE(tasks.Push([&] { order += 'a'; }));
  loop.Run();
  CHECK(order.empty());
  REQUIRE_FALSE(tasks.Push([&] { order += 'b'; }));
  loop.Run(2);
  CHECK(order == "ab");
}

TEST_CASE("a task that posts itself again runs once in an iteration", "[M46][R9]") {
  OneLoop loop;
  int run = 0;
  std::function<void()> again = [&] {
    ++run;
    if (run < 5) static_cast<void>(loop.context->tasks.Push([&again] { again(); }));
  };
  REQUIRE_FALSE(loop.context->tasks.Push([&again] { again(); }));
  for (int i = 1; i <= 5; ++i) {
    loop.Run();
    CHECK(run == i);
  }
  loop.Run();
  CHECK(run == 5);
}

TEST_CASE("what a task has captured is destroyed before the next task runs", "[M46]") {
  OneLoop loop;
  auto held = std::make_shared<int>();
  const std::weak_ptr<int> seen = held;
  bool gone = false;
  REQUIRE_FALSE(loop.context->tasks.Push([held = std::move(held)] {}));
  REQUIRE_FALSE(loop.context->tasks.Push([&] { gone = seen.expired(); }));
  loop.Run();
  CHECK(gone);
}

TEST_CASE("tasks that throw, whatever it is, are counted, and the others run", "[M49]") {
  OneLoop loop;
  TaskQueue& tasks = loop.context->tasks;
  REQUIRE_FALSE(tasks.Push([] { throw std::runtime_error("a task's"); }));
  REQUIRE_FALSE(tasks.Push([] { throw 42; }));
  bool ran = false;
  REQUIRE_FALSE(tasks.Push([&] { ran = true; }));
  loop.Run();
  CHECK(ran);
  CHECK(tasks.run() == 3);
  CHECK(tasks.exceptions() == 2);
}

TEST_CASE("a closed queue refuses a task and destroys it", "[M46]") {
  Mailbox mailbox;
  TaskQueue tasks(mailbox);
  tasks.Close();
  const auto held = std::make_shared<int>();
  CHECK(tasks.Push([held] {}) == Errc::kStopped);
  CHECK(held.use_count() == 1);
  CHECK(tasks.empty());
  CHECK(mailbox.empty());
}

TEST_CASE("Close destroys the tasks that wait, those that a turn has left over too, and runs none",
          "[M46]") {
  OneLoop loop;
  TaskQueue& tasks = loop.context->tasks;
  const auto held = std::make_shared<int>();
  for (std::size_t i = 0; i < kPerTurn + 2; ++i) REQUIRE_FALSE(tasks.Push([held] {}));
  loop.Run();
  REQUIRE_FALSE(tasks.Push([held] {}));
  REQUIRE(held.use_count() == 4);
  tasks.Close();
  CHECK(held.use_count() == 1);
  CHECK(tasks.run() == kPerTurn);
}

TEST_CASE(
    "a task that is destroyed with its queue may post, which is refused, and is in a callback",
    "[M46][M26][M27]") {
  Mailbox mailbox;
  TaskQueue tasks(mailbox);
  std::error_code refused;
  bool inside = false;
  {
    // Its end is called once: what a task has captured is moved, never copied.
    auto at_end = [&] {
      refused = tasks.Push([] {});
      inside = InsideCallback();
    };
    auto last = std::make_unique<AtScopeEnd<decltype(at_end)>>(at_end);
    REQUIRE_FALSE(tasks.Push([last = std::move(last)] {}));
  }
  REQUIRE_FALSE(refused);
  tasks.Close();
  CHECK(refused == Errc::kStopped);
  CHECK(inside);
}

TEST_CASE("a task for which there is no memory is kNoMemory, and the next one runs", "[M46][F4]") {
  OneLoop loop;
  TaskQueue& tasks = loop.context->tasks;
  const auto held = std::make_shared<int>();
  std::error_code error;
  {
    const test::NoMemory none;
    error = tasks.Push([held] {});
  }
  CHECK(error == Errc::kNoMemory);
  CHECK(held.use_count() == 1);
  bool ran = false;
  REQUIRE_FALSE(tasks.Push([&] { ran = true; }));
  loop.Run();
  CHECK(ran);
  CHECK(tasks.run() == 1);
}

TEST_CASE("tasks cost no memory once their number has been seen", "[R6]") {
  OneLoop loop;
  TaskQueue& tasks = loop.context->tasks;
  std::uint64_t allocated = 0;
  for (int round = 0; round < 6; ++round) {
    const std::uint64_t before = test::Allocations();
    bool good = true;
    for (std::size_t i = 0; i < kPerTurn; ++i) good = !tasks.Push([] {}) && good;
    allocated = test::Allocations() - before;
    loop.Run();
    REQUIRE(good);
  }
  CHECK(allocated == 0);
}

TEST_CASE("after a burst of tasks its memory is given back", "[R1]") {
  OneLoop loop;
  TaskQueue& tasks = loop.context->tasks;
  REQUIRE_FALSE(tasks.Push([] {}));
  loop.Run();
  const std::int64_t before = test::BytesInUse();
  for (std::size_t i = 0; i < 16 * kPerTurn; ++i) REQUIRE_FALSE(tasks.Push([] {}));
  loop.Run(17);
  REQUIRE(tasks.run() == 16 * kPerTurn + 1);
  for (int i = 0; i < 2; ++i) {
    REQUIRE_FALSE(tasks.Push([] {}));
    loop.Run();
  }
  // What remains is less than room for the tasks of a few turns.
  CHECK(test::BytesInUse() - before < static_cast<std::int64_t>(8 * kPerTurn * sizeof(Task)));
}

}  // namespace
}  // namespace xtcp::internal
