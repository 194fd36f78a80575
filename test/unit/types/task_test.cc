#include <xtcp/task.h>

#include <array>
#include <catch2/catch.hpp>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <new>
#include <stdexcept>
#include <type_traits>
#include <utility>

#include "support/alloc_hook.h"

namespace xtcp {
namespace {

// How many allocations it takes to make a task of `function`, and then to move it, call it and end it.
struct Cost {
  std::uint64_t made = 0;
  std::uint64_t moved = 0;
};
template <typename Function>
Cost CostOf(Function function) {
  Cost cost;
  std::uint64_t before = test::Allocations();
  Task task(std::move(function));
  cost.made = test::Allocations() - before;
  before = test::Allocations();
  Task moved(std::move(task));
  moved();
  moved = Task();
  cost.moved = test::Allocations() - before;
  return cost;
}

struct Throwing {
  Throwing() = default;
  Throwing(const Throwing&) = default;
  Throwing(Throwing&&) noexcept(false) {}  // NOLINT: that is what it is for
  void operator()() const {}
};

struct alignas(64) Aligned {
  explicit Aligned(bool* to) : good(to) {}
  void operator()() const { *good = reinterpret_cast<std::uintptr_t>(this) % 64 == 0; }
  bool* good;
};

TEST_CASE("a task of up to 48 bytes needs no memory, a byte more does", "[R6][M46]") {
  const std::array<std::byte, 48> fits{};
  const std::array<std::byte, 49> does_not{};
  const Cost small = CostOf([fits] { static_cast<void>(fits); });
  CHECK(small.made == 0);
  CHECK(small.moved == 0);
  const Cost large = CostOf([does_not] { static_cast<void>(does_not); });
  CHECK(large.made == 1);
  CHECK(large.moved == 0);
}

TEST_CASE("a function object whose move may throw is never moved with its task", "[M46]") {
  const Cost cost = CostOf(Throwing());
  CHECK(cost.made == 1);
  CHECK(cost.moved == 0);
  CHECK(std::is_nothrow_move_constructible_v<Task>);
  CHECK(std::is_nothrow_move_assignable_v<Task>);
  CHECK_FALSE(std::is_copy_constructible_v<Task>);
}

TEST_CASE("a function object keeps its alignment, wherever the task is", "[M46]") {
  bool good = false;
  Task task{Aligned(&good)};
  Task moved(std::move(task));
  moved();
  CHECK(good);
}

TEST_CASE("a task without memory throws, and its function object is destroyed", "[F4]") {
  const auto held = std::make_shared<int>();
  bool thrown = false;
  {
    auto function = [held, large = std::array<char, 100>()] { static_cast<void>(large); };
    try {
      const test::NoMemory none;
      const Task task(std::move(function));
    } catch (const std::bad_alloc&) {
      thrown = true;
    }
  }
  CHECK(thrown);
  CHECK(held.use_count() == 1);
}

TEST_CASE("a task keeps its captures through calls and moves, until it goes", "[M46]") {
  const auto held = std::make_shared<int>();
  const bool large = GENERATE(false, true);
  CAPTURE(large);
  int calls = 0;
  Task task;
  if (large) {
    task = [held, &calls, room = std::array<char, 100>()] { calls += 1 + room[0]; };
  } else {
    task = [held, &calls] { ++calls; };
  }
  CHECK(held.use_count() == 2);
  task();
  Task moved(std::move(task));
  moved();
  CHECK(calls == 2);
  CHECK(held.use_count() == 2);
  moved = [] {};
  CHECK(held.use_count() == 1);
}

TEST_CASE("a task that is assigned to itself stays", "[M46]") {
  const auto held = std::make_shared<int>();
  Task task([held] {});
  Task& same = task;
  task = std::move(same);
  REQUIRE(task);
  CHECK(held.use_count() == 2);
}

TEST_CASE("what a call throws comes out, and the task can still be destroyed", "[M49]") {
  const auto held = std::make_shared<int>();
  {
    Task task([held] { throw std::runtime_error("a task's"); });
    CHECK_THROWS_AS(task(), std::runtime_error);
    CHECK(task);
  }
  CHECK(held.use_count() == 1);
}

TEST_CASE("a task may be made of a function and of what cannot be copied") {
  static int calls = 0;
  calls = 0;
  struct Plain {
    static void Call() { ++calls; }
  };
  Task function(&Plain::Call);
  function();
  Task owner([owned = std::make_unique<int>(2)] { calls += *owned; });
  owner();
  CHECK(calls == 3);
}

}  // namespace
}  // namespace xtcp
