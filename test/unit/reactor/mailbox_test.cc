#include "reactor/mailbox.h"

#include <poll.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <catch2/catch.hpp>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <latch>
#include <thread>
#include <vector>

#include "support/alloc_hook.h"
#include "support/deadline.h"
#include "unit/reactor/test_channel.h"

namespace xtcp::internal {
namespace {

void Post(Mailbox& mailbox, TestChannel& channel) {
  if (channel.ClaimPost()) mailbox.Push(&channel);
}

std::vector<Channel*> TakeAll(Mailbox& mailbox) {
  std::vector<Channel*> taken;
  for (Channel* channel = mailbox.TakeAll(); channel != nullptr;) {
    taken.push_back(channel);
    channel = Mailbox::Next(channel);
  }
  return taken;
}

// How often the eventfd was written since the last time.
std::uint64_t Writes(const Mailbox& mailbox) {
  std::uint64_t count = 0;
  return ::read(mailbox.fd(), &count, sizeof count) == sizeof count ? count : 0;
}

// Sleeps as a loop does, if it may, until the mailbox wakes it. False when nothing did.
bool Sleep(Mailbox& mailbox) {
  if (!mailbox.AboutToSleep()) return true;
  pollfd entry{.fd = mailbox.fd(), .events = POLLIN, .revents = 0};
  const bool woken =
      ::poll(&entry, 1, static_cast<int>(std::chrono::milliseconds(test::kDeadline).count())) == 1;
  Writes(mailbox);
  mailbox.Awake();
  return woken;
}

TEST_CASE("posts come out oldest first, each channel once") {
  Mailbox mailbox;
  TestChannel a, b, c;
  Post(mailbox, a);
  Post(mailbox, b);
  Post(mailbox, a);
  Post(mailbox, c);
  CHECK(a.posted());
  CHECK(TakeAll(mailbox) == std::vector<Channel*>{&a, &b, &c});
  CHECK(TakeAll(mailbox).empty());
  CHECK_FALSE(a.posted());
  Post(mailbox, a);
  CHECK(TakeAll(mailbox) == std::vector<Channel*>{&a});
}

TEST_CASE("a channel can be posted again as soon as it is its turn, and not before", "[B6]") {
  Mailbox mailbox;
  TestChannel a, b;
  Post(mailbox, a);
  Post(mailbox, b);
  Channel* const first = mailbox.TakeAll();
  REQUIRE(first == &a);
  CHECK_FALSE(a.ClaimPost());  // it will still be looked after
  Channel* const second = Mailbox::Next(first);
  REQUIRE(second == &b);
  // What is posted now waits for the next time, and does not get between those of this time.
  Post(mailbox, a);
  CHECK(Mailbox::Next(second) == nullptr);
  CHECK(TakeAll(mailbox) == std::vector<Channel*>{&a});
}

TEST_CASE("a post allocates nothing", "[S8]") {
  Mailbox mailbox;
  std::deque<TestChannel> channels(100);
  const std::uint64_t before = test::Allocations();
  for (TestChannel& channel : channels) Post(mailbox, channel);
  CHECK(test::Allocations() == before);
  CHECK(TakeAll(mailbox).size() == channels.size());
}

TEST_CASE("only a sleeping loop is woken, and once", "[B6][M13]") {
  constexpr int kRounds = 100;
  Mailbox mailbox;
  REQUIRE_FALSE(mailbox.Open());
  std::deque<TestChannel> channels(8);
  // Each sets out when all are there, and posts once a round.
  bool good = true;
  for (int round = 0; round < kRounds && good; ++round) {
    const bool asleep = round % 2 == 0;
    if (asleep) good = mailbox.AboutToSleep();
    std::latch all(static_cast<std::ptrdiff_t>(channels.size()));
    std::vector<std::thread> threads;
    for (TestChannel& channel : channels) {
      threads.emplace_back([&] {
        all.arrive_and_wait();
        Post(mailbox, channel);
      });
    }
    for (std::thread& thread : threads) thread.join();
    good = good && Writes(mailbox) == (asleep ? 1 : 0);
    if (asleep) {
      mailbox.Awake();
    } else {
      good = good && !mailbox.AboutToSleep();  // it must look first
    }
    good = good && TakeAll(mailbox).size() == channels.size();
  }
  CHECK(good);
  mailbox.Close();
}

TEST_CASE("no post is lost between looking and sleeping", "[B6]") {
  // All orders of the steps are in test/schedules; here it is the processor that may order them.
  constexpr int kOver = 1 << 30;
  Mailbox mailbox;
  REQUIRE_FALSE(mailbox.Open());
  TestChannel channel;
  std::atomic<int> wanted{0};
  std::atomic<int> done{0};
  std::thread poster([&] {
    test::Rounds rounds(100'000);
    for (int i = 1; i != kOver;) {
      i = rounds.Next();
      if (i == 0) i = kOver;
      wanted.store(i, std::memory_order_relaxed);
      Post(mailbox, channel);
      test::SpinUntil([&] { return done.load() >= i; });
    }
  });
  bool lost = false;
  while (done.load() != kOver && !lost) {
    lost = !Sleep(mailbox);
    // The post brings what was written before it, also without an order of `wanted` itself.
    if (!TakeAll(mailbox).empty()) done = wanted.load(std::memory_order_relaxed);
  }
  if (lost) done = kOver;
  poster.join();
  TakeAll(mailbox);
  mailbox.Close();
  CHECK_FALSE(lost);
}

TEST_CASE("no post is lost among posters that share a channel", "[B6][M25]") {
  // Whoever is told that the channel is posted already relies on the other's post.
  constexpr int kPosters = 3;
  constexpr int kRounds = 1'000;
  Mailbox mailbox;
  REQUIRE_FALSE(mailbox.Open());
  TestChannel channel;
  std::array<std::atomic<int>, kPosters> wanted{};
  std::array<std::atomic<int>, kPosters> done{};
  std::vector<std::thread> posters;
  for (std::size_t p = 0; p < kPosters; ++p) {
    posters.emplace_back([&, p] {
      for (int i = 1; i <= kRounds; ++i) {
        wanted[p].store(i, std::memory_order_relaxed);
        Post(mailbox, channel);
        test::SpinUntil([&] { return done[p].load() >= i; });
      }
    });
  }
  const auto finished = [&] {
    for (const std::atomic<int>& each : done) {
      if (each.load() < kRounds) return false;
    }
    return true;
  };
  bool lost = false;
  while (!finished() && !lost) {
    lost = !Sleep(mailbox);
    for (Channel* next = mailbox.TakeAll(); next != nullptr;) {
      next = Mailbox::Next(next);
      for (std::size_t p = 0; p < kPosters; ++p) {
        done[p] = wanted[p].load(std::memory_order_relaxed);
      }
    }
  }
  if (lost) {
    for (std::atomic<int>& each : done) each = kRounds;
  }
  for (std::thread& poster : posters) poster.join();
  TakeAll(mailbox);
  mailbox.Close();
  CHECK_FALSE(lost);
}

TEST_CASE("a closed mailbox is posted to without touching its descriptor") {
  Mailbox mailbox;
  REQUIRE_FALSE(mailbox.Open());
  REQUIRE(mailbox.AboutToSleep());
  mailbox.Close();
  CHECK(mailbox.fd() == -1);
  mailbox.Close();
  TestChannel channel;
  Post(mailbox, channel);
  CHECK(TakeAll(mailbox).size() == 1);
}

TEST_CASE("posts while a mailbox closes neither hang nor use its descriptor", "[M25][B7]") {
  // test/fault/reactor_test.cc looks whether the closer waits; the thread sanitizer looks here.
  for (int round = 0; round < 200; ++round) {
    Mailbox mailbox;
    REQUIRE_FALSE(mailbox.Open());
    std::deque<TestChannel> channels(3);
    std::latch all(static_cast<std::ptrdiff_t>(channels.size()) + 1);
    std::vector<std::thread> posters;
    for (TestChannel& channel : channels) {
      posters.emplace_back([&] {
        all.arrive_and_wait();
        Post(mailbox, channel);
      });
    }
    REQUIRE(mailbox.AboutToSleep());
    all.arrive_and_wait();
    test::WithinDeadline("Mailbox::Close", [&] { mailbox.Close(); });
    for (std::thread& poster : posters) poster.join();
    REQUIRE(TakeAll(mailbox).size() == channels.size());
  }
}

}  // namespace
}  // namespace xtcp::internal
