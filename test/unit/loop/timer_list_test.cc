#include "loop/timer_list.h"

#include <pthread.h>

#include <catch2/catch.hpp>
#include <chrono>
#include <functional>
#include <memory>
#include <stdexcept>
#include <utility>

#include "base/callback_scope.h"
#include "base/scope.h"
#include "support/alloc_hook.h"
#include "sys/syscalls.h"
#include "unit/loop/one_loop.h"

namespace xtcp::internal {
namespace {

using namespace std::chrono_literals;

using Time = TimerNode::Time;

constexpr Time kPast{1};
constexpr Time kOnce{0};

// A loop, and timers on it.
struct Timers : OneLoop {
  std::shared_ptr<TimerNode> Start(Task task, Time due = kPast, Time period = kOnce) {
    return list().Start(context, std::move(task), due, period);
  }
  TimerList& list() { return context->timers; }
};

Time InAnHour() { return sys::Now() + 1h; }

TEST_CASE("a timer that is due runs once, and is not armed in its own task any more", "[M48]") {
  Timers t;
  bool armed = true;
  const TimerNode* self = nullptr;
  const auto timer = t.Start([&] { armed = self->armed(); });
  self = timer.get();
  REQUIRE(timer->armed());
  t.Run(4);
  CHECK_FALSE(armed);
  CHECK(t.list().run() == 1);
  CHECK_FALSE(timer->armed());
}

TEST_CASE("a timer that is not due does not run", "[M48]") {
  Timers t;
  const auto timer = t.Start([] {}, InAnHour());
  t.Run(4);
  CHECK(t.list().run() == 0);
  CHECK(timer->armed());
}

TEST_CASE("a timer lives without its handle until it has run, and then its task goes", "[M48]") {
  Timers t;
  const auto held = std::make_shared<int>();
  const std::weak_ptr<TimerNode> seen = t.Start([held] {});
  CHECK_FALSE(seen.expired());
  t.Run(4);
  CHECK(t.list().run() == 1);
  CHECK(seen.expired());
  CHECK(held.use_count() == 1);
}

TEST_CASE("a handle that is kept keeps no task that has run", "[M48]") {
  Timers t;
  const auto held = std::make_shared<int>();
  const auto timer = t.Start([held] {});
  t.Run(4);
  CHECK(held.use_count() == 1);
}

TEST_CASE("a timer that is cancelled before its loop looks never runs, and its task goes",
          "[M48]") {
  Timers t;
  const auto held = std::make_shared<int>();
  const auto timer = t.Start([held] {});
  timer->Cancel();
  CHECK_FALSE(timer->armed());
  t.Run();
  CHECK(held.use_count() == 1);
  t.Run(4);
  CHECK(t.list().run() == 0);
}

TEST_CASE("a timer that is armed on its loop can be cancelled, and its task goes", "[M48]") {
  Timers t;
  const auto held = std::make_shared<int>();
  const auto timer = t.Start([held] {}, InAnHour());
  t.Run(2);
  timer->Cancel();
  t.Run();
  CHECK(held.use_count() == 1);
  CHECK(t.core.loop().TimeLeft() < Time{0});  // nothing is armed any more
}

TEST_CASE("a cancel of what has finished posts nothing, however often", "[M48][B6]") {
  Timers t;
  const auto timer = t.Start([] {});
  t.Run(4);
  REQUIRE(t.list().run() == 1);
  timer->Cancel();
  timer->Cancel();
  CHECK(t.context->mailbox.empty());
}

TEST_CASE("a cancel after the end of the loop does nothing", "[M45][M48]") {
  std::shared_ptr<TimerNode> timer;
  {
    Timers t;
    timer = t.Start([] {}, InAnHour());
    t.Run();
  }
  CHECK_FALSE(timer->armed());
  timer->Cancel();
  CHECK_FALSE(timer->armed());
}

TEST_CASE("periods that were missed are passed over, and the next one is on the grid", "[M48]") {
  Timers t;
  const auto timer = t.Start([] {}, sys::Now() - 10h - 30min, 1h);
  t.Run(6);
  CHECK(t.list().run() == 1);
  CHECK(timer->armed());
  CHECK(t.core.loop().TimeLeft() > Time{0});
  CHECK(t.core.loop().TimeLeft() <= 30min);  // an hour, if it counted from now
}

TEST_CASE("a period that is just over does not run twice", "[M48]") {
  Timers t;
  const auto timer = t.Start([] {}, sys::Now() - 1h, 1h);
  t.Run(6);
  CHECK(t.list().run() == 1);
  CHECK(t.core.loop().TimeLeft() > Time{0});
}

TEST_CASE("a periodic timer that throws is counted, and goes on", "[M49]") {
  Timers t;
  const auto timer = t.Start([] { throw std::runtime_error("a timer's"); }, kPast, Time{1});
  t.Run(6);
  CHECK(t.list().run() >= 2);
  CHECK(t.list().exceptions() == t.list().run());
  CHECK(timer->armed());
}

TEST_CASE("a periodic timer may end itself in its task", "[M48]") {
  Timers t;
  std::weak_ptr<TimerNode> self;
  const auto held = std::make_shared<int>();
  self = t.Start([&self, held] { self.lock()->Cancel(); }, kPast, Time{1});
  t.Run(6);
  CHECK(t.list().run() == 1);
  CHECK(self.expired());
  CHECK(held.use_count() == 1);
}

TEST_CASE("after Stop no timer begins, and what it had captured goes", "[M42][M48]") {
  Timers t;
  t.list().Stop();
  const auto held = std::make_shared<int>();
  CHECK(t.Start([held] {}) == nullptr);
  CHECK(held.use_count() == 1);
  CHECK(t.context->mailbox.empty());
}

TEST_CASE(
    "Stop ends the timers that are armed at once, and those in the mailbox when they come out",
    "[M42][M48]") {
  Timers t;
  const auto armed = std::make_shared<int>();
  const auto posted = std::make_shared<int>();
  const auto one = t.Start([armed] {}, InAnHour());
  t.Run();
  const auto two = t.Start([posted] {}, kPast);
  t.list().Stop();
  CHECK(armed.use_count() == 1);
  CHECK_FALSE(two->armed());
  CHECK(posted.use_count() == 2);
  t.Run(3);
  CHECK(posted.use_count() == 1);
  CHECK(t.list().run() == 0);
}

TEST_CASE("Close ends also the timers in a mailbox that nobody looks into", "[M46][M48]") {
  const auto context = std::make_shared<LoopContext>(std::weak_ptr<Group>(), 0);
  const auto held = std::make_shared<int>();
  const auto timer = context->timers.Start(
      context, [held] {}, kPast, kOnce);
  context->timers.Close();
  CHECK(held.use_count() == 1);
  CHECK_FALSE(timer->armed());
  CHECK(context->timers.Start(
            context, [] {}, kPast, kOnce) == nullptr);
}

TEST_CASE("a task of a timer is destroyed inside a callback, and may start no other one",
          "[M26][M27]") {
  Timers t;
  bool inside = false;
  bool refused = false;
  auto at_end = [&] {
    inside = InsideCallback();
    refused = t.Start([] {}) == nullptr;
  };
  auto last = std::make_unique<AtScopeEnd<decltype(at_end)>>(at_end);
  const auto timer = t.Start([last = std::move(last)] {}, InAnHour());
  t.Run();
  t.list().Stop();
  CHECK(inside);
  CHECK(refused);
}

// Calls `function` on a thread with a stack of 256 KiB.
void CallOnSmallStack(std::function<void()> function) {
  pthread_attr_t small;
  ::pthread_attr_init(&small);
  ::pthread_attr_setstacksize(&small, 256 << 10);
  pthread_t thread{};
  const auto call = [](void* argument) -> void* {
    (*static_cast<std::function<void()>*>(argument))();
    return nullptr;
  };
  REQUIRE(::pthread_create(&thread, &small, call, &function) == 0);
  ::pthread_join(thread, nullptr);
  ::pthread_attr_destroy(&small);
}

TEST_CASE("a list of any length ends with little stack", "[X5]") {
  constexpr int kTimers = 50'000;
  const auto context = std::make_shared<LoopContext>(std::weak_ptr<Group>(), 0);
  const auto held = std::make_shared<int>();
  bool good = true;
  for (int i = 0; i < kTimers; ++i) {
    good = context->timers.Start(
               context, [held] {}, kPast, kOnce) != nullptr &&
           good;
  }
  REQUIRE(good);
  REQUIRE(held.use_count() == kTimers + 1);
  CallOnSmallStack([&] { context->timers.Close(); });
  CHECK(held.use_count() == 1);
}

TEST_CASE("a timer without memory is none, and what it had captured goes", "[M48][F4]") {
  Timers t;
  const auto held = std::make_shared<int>();
  std::shared_ptr<TimerNode> timer;
  {
    const test::NoMemory none;
    timer = t.Start([held] {});
  }
  CHECK(timer == nullptr);
  CHECK(held.use_count() == 1);
  t.Run(2);
  CHECK(t.list().run() == 0);
}

TEST_CASE("a timer that cannot be armed for want of memory has ended, and later ones run",
          "[M48][F4]") {
  Timers t;
  const auto held = std::make_shared<int>();
  const auto timer = t.Start([held] {});
  {
    bool quits = false;
    const test::NoMemory none;
    static_cast<void>(t.core.RunOnce(Time{0}, &quits));
  }
  CHECK_FALSE(timer->armed());
  CHECK(held.use_count() == 1);
  const auto later = t.Start([] {});
  t.Run(4);
  CHECK(t.list().run() == 1);
}

}  // namespace
}  // namespace xtcp::internal
