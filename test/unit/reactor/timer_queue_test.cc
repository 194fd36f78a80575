#include "reactor/timer_queue.h"

#include <algorithm>
#include <array>
#include <catch2/catch.hpp>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <map>
#include <new>
#include <numeric>
#include <utility>
#include <vector>

#include "support/alloc_hook.h"
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
  CHECK(timers.TakeDue(Time::max()) == nullptr);
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

TEST_CASE("one of six, disarmed or armed anew, leaves the others in order", "[R8]") {
  // Every shape that a heap of six can get: all orders of arming them, and each channel.
  constexpr std::size_t kChannels = 6;
  std::array<TestChannel, kChannels> channels;
  std::array<int, kChannels> order;
  std::iota(order.begin(), order.end(), 0);
  bool good = true;
  do {
    for (std::size_t which = 0; which < kChannels; ++which) {
      // Disarmed; then set to before all others, after them, and to between each two.
      for (int again = -1; again <= static_cast<int>(kChannels); ++again) {
        TimerQueue timers;
        timers.Reserve(kChannels);
        std::vector<std::pair<Time, Channel*>> expected;
        for (std::size_t i = 0; i < kChannels; ++i) {
          const Time due{10 * order[i]};
          timers.Arm(&channels[i], due);
          if (i != which) expected.emplace_back(due, &channels[i]);
        }
        if (again < 0) {
          timers.Disarm(&channels[which]);
        } else {
          const Time due{10 * again - 5};
          timers.Arm(&channels[which], due);
          expected.emplace_back(due, &channels[which]);
        }
        std::sort(expected.begin(), expected.end());
        for (const auto& [due, channel] : expected) {
          good = good && timers.DueOf(channel) == due && timers.first() == due;
          good = good && timers.TakeDue(due) == channel;
        }
        good = good && timers.empty();
      }
    }
  } while (good && std::next_permutation(order.begin(), order.end()));
  CHECK(good);
}

TEST_CASE("arming needs no memory where room was made", "[S8][F4]") {
  TimerQueue timers;
  std::deque<TestChannel> channels(100);
  timers.Reserve(10);
  bool refused = false;
  {
    const test::FailAllocations fail(1);
    try {
      timers.Reserve(100);
    } catch (const std::bad_alloc&) {
      refused = true;
    }
  }
  CHECK(refused);
  timers.Reserve(100);
  const std::uint64_t before = test::Allocations();
  for (std::size_t i = 0; i < channels.size(); ++i) {
    timers.Arm(&channels[i], Time{static_cast<Time::rep>(i * 37 % 100)});
  }
  for (TestChannel& channel : channels) timers.Disarm(&channel);
  CHECK(test::Allocations() == before);
  CHECK(timers.empty());
}

TEST_CASE("room for one more each time is made by doubling", "[X5]") {
  TimerQueue timers;
  const std::uint64_t before = test::Allocations();
  for (std::size_t n = 1; n <= 10'000; ++n) timers.Reserve(n);
  CHECK(test::Allocations() - before <= 15);
}

TEST_CASE("random arming, re-arming and disarming agree with a multimap", "[R8]") {
  constexpr std::size_t kChannels = 50;
  test::Random random(7);
  TimerQueue timers;
  timers.Reserve(kChannels);
  std::deque<TestChannel> channels(kChannels);
  std::multimap<Time, const Channel*> model;
  std::map<const Channel*, std::multimap<Time, const Channel*>::iterator> places;
  const auto erase = [&](const Channel* channel) {
    const auto place = places.find(channel);
    if (place == places.end()) return;
    model.erase(place->second);
    places.erase(place);
  };
  bool good = true;
  int i = 0;
  for (; i < 200'000 && good; ++i) {
    TestChannel& channel = channels[random.Between(0, kChannels - 1)];
    const Time time{static_cast<Time::rep>(random.Between(0, 1000))};
    if (random.OneIn(4)) {
      timers.Disarm(&channel);
      erase(&channel);
    } else if (random.OneIn(3)) {
      // Among those of the same time any may come first.
      const Channel* due = timers.TakeDue(time);
      const bool is_due = !model.empty() && model.begin()->first <= time;
      good = (due != nullptr) == is_due;
      if (good && is_due) good = places.at(due)->first == model.begin()->first;
      erase(due);
    } else {
      timers.Arm(&channel, time);
      erase(&channel);
      places[&channel] = model.emplace(time, &channel);
    }
    const auto place = places.find(&channel);
    good = good &&
           timers.DueOf(&channel) == (place == places.end() ? Time::max() : place->second->first);
    good = good && timers.empty() == model.empty();
    good = good && (model.empty() || timers.first() == model.begin()->first);
  }
  CAPTURE(i);
  REQUIRE(good);
}

}  // namespace
}  // namespace xtcp::internal
