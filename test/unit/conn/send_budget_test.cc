#include "conn/send_budget.h"

#include <atomic>
#include <catch2/catch.hpp>
#include <thread>
#include <vector>

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

TEST_CASE("a budget is exact under four threads", "[M9]") {
  constexpr std::size_t kLimit = 1000;
  SendBudget budget;
  std::atomic<std::size_t> held{0};
  std::atomic<bool> over{false};
  std::vector<std::thread> threads;
  for (std::size_t t = 1; t <= 4; ++t) {
    threads.emplace_back([&, size = 100 * t] {
      for (int i = 0; i < 20'000; ++i) {
        if (!budget.TryCharge(size, kLimit)) continue;
        if (held.fetch_add(size) + size > kLimit) over = true;
        held.fetch_sub(size);
        budget.Release(size);
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  CHECK_FALSE(over);
  CHECK(budget.charged() == 0);
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

}  // namespace
}  // namespace xtcp::internal
