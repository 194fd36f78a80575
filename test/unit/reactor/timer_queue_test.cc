#include "reactor/timer_queue.h"

#include <catch2/catch.hpp>
#include <chrono>
#include <deque>
#include <map>
#include <vector>

#include "support/random.h"
#include "unit/reactor/test_channel.h"

namespace xtcp::internal {
namespace {

using Time = TimerQueue::Time;

TEST_CASE("timers come in the order of their times, and not before") {
  TimerQueue timers;
  TestChannel a, b, c;
  timers.Reserve(3);
  CHECK(timers.empty());
  timers.Arm(&a, Time{30});
  timers.Arm(&b, Time{10});
  timers.Arm(&c, Time{20});
  CHECK(timers.first() == Time{10});
  CHECK(timers.TakeDue(Time{9}) == nullptr);
  CHECK(timers.TakeDue(Time{25}) == &b);
  CHECK(timers.TakeDue(Time{25}) == &c);
  CHECK(timers.TakeDue(Time{25}) == nullptr);
  CHECK(timers.DueOf(&a) == Time{30});
  CHECK(timers.DueOf(&b) == Time::max());
  CHECK(timers.TakeDue(Time{30}) == &a);
  CHECK(timers.empty());
}

TEST_CASE("a channel has one timer; the last setting counts") {
  TimerQueue timers;
  TestChannel a, b;
  timers.Reserve(2);
  timers.Arm(&a, Time{10});
  timers.Arm(&b, Time{20});
  timers.Arm(&a, Time{30});
  CHECK(timers.first() == Time{20});
  timers.Arm(&a, Time{5});
  CHECK(timers.first() == Time{5});
  timers.Disarm(&a);
  timers.Disarm(&a);
  CHECK(timers.TakeDue(Time{100}) == &b);
  CHECK(timers.empty());
}

TEST_CASE("random arming, re-arming and disarming agree with a sorted map", "[R8]") {
  constexpr std::size_t kChannels = 50;
  test::Random random(7);
  TimerQueue timers;
  timers.Reserve(kChannels);
  std::deque<TestChannel> channels(kChannels);
  std::map<const Channel*, Time> model;
  bool good = true;
  for (int i = 0; i < 200'000 && good; ++i) {
    TestChannel& channel = channels[random.Between(0, kChannels - 1)];
    const Time time{static_cast<Time::rep>(random.Between(0, 1000))};
    if (random.OneIn(3)) {
      timers.Disarm(&channel);
      model.erase(&channel);
    } else if (random.OneIn(3)) {
      Time first = Time::max();
      for (const auto& [unused, due] : model) first = std::min(first, due);
      const Channel* due = timers.TakeDue(time);
      good = (due != nullptr) == (first <= time) && (due == nullptr || model.at(due) == first);
      model.erase(due);
    } else {
      timers.Arm(&channel, time);
      model[&channel] = time;
    }
    for (const auto& [armed, due] : model) good = good && timers.DueOf(armed) == due;
    good = good && timers.empty() == model.empty();
  }
  REQUIRE(good);
}

}  // namespace
}  // namespace xtcp::internal
