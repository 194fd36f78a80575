#include "conn/send_budget.h"

#include <atomic>
#include <catch2/catch.hpp>
#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <latch>
#include <mutex>
#include <thread>
#include <vector>

#include "support/deadline.h"
#include "support/random.h"

namespace xtcp::internal {
namespace {

TEST_CASE("a budget gives out its limit, and not a byte more", "[X4]") {
  SendBudget budget;
  CHECK(budget.TryCharge(100, 100));
  CHECK_FALSE(budget.TryCharge(1, 100));
  budget.Release(40);
  CHECK_FALSE(budget.TryCharge(41, 100));
  CHECK(budget.TryCharge(40, 100));
  CHECK(budget.charged() == 100);
  CHECK_FALSE(budget.TryCharge(~std::size_t{0}, 100));
  budget.Release(100);
  CHECK_FALSE(budget.TryCharge(~std::size_t{0}, ~std::size_t{0} - 1));
  CHECK(budget.TryCharge(~std::size_t{0}, ~std::size_t{0}));
}

TEST_CASE("a budget is exact under four threads", "[M9][R1]") {
  constexpr std::size_t kLimit = 1000;
  constexpr std::size_t kThreads = 4;
  SendBudget budget;
  // Counted before they are given back and after they were had: never more than there is.
  std::atomic<std::size_t> held{0};
  std::atomic<bool> over{false};
  std::atomic<int> refused{0};
  std::vector<std::size_t> keeps(kThreads);
  std::latch all(kThreads);
  std::vector<std::thread> threads;
  for (std::size_t t = 0; t < kThreads; ++t) {
    threads.emplace_back([&, t] {
      test::Random random(t);
      std::size_t mine = 0;
      all.arrive_and_wait();
      for (int i = 0; i < 50'000; ++i) {
        const std::size_t size = random.Between(1, 400);
        std::size_t back = random.Between(0, mine);
        if (budget.TryCharge(size, kLimit)) {
          if (held.fetch_add(size) + size > kLimit) over = true;
          mine += size;
        } else {
          ++refused;
          back = mine;
        }
        held.fetch_sub(back);
        budget.Release(back);
        mine -= back;
      }
      keeps[t] = mine;
    });
  }
  for (std::thread& thread : threads) thread.join();
  CHECK_FALSE(over);
  CHECK(refused > 0);
  std::size_t kept = 0;
  for (const std::size_t each : keeps) kept += each;
  CHECK(budget.charged() == kept);
  budget.Release(kept);
  CHECK(budget.TryCharge(kLimit, kLimit));
}

TEST_CASE("a refused sender that leaves its note first is not forgotten", "[M14]") {
  // As ConnImpl does it: the sender notes and tries again, the loop releases and then looks.
  constexpr int kRounds = 50'000;
  SendBudget budget;
  std::atomic<bool> noted{false};
  std::atomic<int> round{0};
  std::atomic<bool> released{false};
  std::atomic<bool> seen{false};
  std::thread loop([&] {
    for (int i = 1; i <= kRounds; ++i) {
      while (round.load() != i) std::this_thread::yield();
      budget.Release(1);
      seen = noted.load();
      released = true;
    }
  });
  bool forgotten = false;
  for (int i = 1; i <= kRounds; ++i) {
    REQUIRE(budget.TryCharge(1, 1));
    noted = false;
    released = false;
    round = i;
    noted = true;
    const bool charged = budget.TryCharge(1, 1);
    while (!released.load()) std::this_thread::yield();
    if (!charged && !seen) forgotten = true;
    if (charged) budget.Release(1);
  }
  loop.join();
  CHECK_FALSE(forgotten);
}

TEST_CASE("senders that wait to be told are all told", "[M14]") {
  // Three senders share the room of two, as ConnImpl's do: a refused one leaves its note, under a
  // lock that all senders share, tries again, and waits. The loop takes what was sent, gives it
  // back, and looks for the note.
  constexpr std::size_t kLimit = 2;
  constexpr std::size_t kSenders = 3;
  constexpr std::size_t kSends = 5'000;
  SendBudget budget;
  std::atomic<bool> noted{false};
  std::atomic<std::size_t> sent{0};
  std::mutex senders_mutex;
  std::mutex mutex;
  std::condition_variable ready;
  std::uint64_t told = 0;  // guarded by mutex
  std::atomic<bool> lost{false};
  const auto charge_or_note = [&] {
    if (budget.TryCharge(1, kLimit)) return true;
    std::lock_guard lock(senders_mutex);
    const bool was = noted.exchange(true);
    if (!budget.TryCharge(1, kLimit)) return false;
    noted = was;
    return true;
  };
  std::vector<std::thread> senders;
  for (std::size_t s = 0; s < kSenders; ++s) {
    senders.emplace_back([&] {
      for (std::size_t i = 0; i < kSends && !lost; ++i) {
        for (;;) {
          std::unique_lock lock(mutex);
          const std::uint64_t before = told;
          lock.unlock();
          if (charge_or_note()) break;
          lock.lock();
          if (!test::WaitUntil(lock, ready, [&] { return told != before || lost; })) lost = true;
          if (lost) return;
        }
        ++sent;
      }
    });
  }
  std::size_t taken = 0;
  while (taken < kSenders * kSends && !lost) {
    const std::size_t there = sent;
    if (there == taken) {
      std::this_thread::yield();
      continue;
    }
    budget.Release(there - taken);
    taken = there;
    if (!noted) continue;
    std::lock_guard lock(senders_mutex);
    if (!noted.exchange(false)) continue;
    std::lock_guard tell(mutex);
    ++told;
    ready.notify_all();
  }
  for (std::thread& sender : senders) sender.join();
  CHECK_FALSE(lost);
  CHECK(taken == kSenders * kSends);
  CHECK(budget.charged() == 0);
}

}  // namespace
}  // namespace xtcp::internal
