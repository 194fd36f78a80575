#include "conn/send_budget.h"

#include <catch2/catch.hpp>
#include <cstddef>

namespace xtcp::internal {
namespace {

constexpr std::size_t kLimit = 100;

TEST_CASE("a budget is charged up to its limit, and no further", "[M11]") {
  SendBudget budget;
  CHECK(budget.TryCharge(60, kLimit));
  CHECK(budget.TryCharge(40, kLimit));
  CHECK(budget.charged() == kLimit);
  CHECK_FALSE(budget.TryCharge(1, kLimit));
  CHECK(budget.charged() == kLimit);
}

TEST_CASE("a charge that is only tried leaves no note", "[M14]") {
  SendBudget budget;
  CHECK(budget.ChargeIfFree(60, kLimit));
  CHECK_FALSE(budget.ChargeIfFree(41, kLimit));
  CHECK_FALSE(budget.has_refused());
  CHECK(budget.ChargeIfFree(40, kLimit));
  CHECK(budget.charged() == kLimit);
  CHECK_FALSE(budget.ChargeIfFree(~std::size_t{0}, kLimit));
}

TEST_CASE("a charge of more than any limit overflows nothing", "[X4]") {
  SendBudget budget;
  CHECK_FALSE(budget.TryCharge(~std::size_t{0}, kLimit));
  CHECK(budget.TryCharge(1, kLimit));
  CHECK_FALSE(budget.TryCharge(~std::size_t{0}, kLimit));
  CHECK(budget.TryCharge(~std::size_t{0} - 1, ~std::size_t{0}));
  CHECK(budget.charged() == ~std::size_t{0});
}

TEST_CASE("credit is given while half of the limit stays free") {
  SendBudget budget;
  CHECK(budget.TryChargeAhead(50, kLimit));
  CHECK_FALSE(budget.TryChargeAhead(1, kLimit));
  CHECK(budget.TryCharge(50, kLimit));  // sends may have the other half
  CHECK_FALSE(budget.TryChargeAhead(0, kLimit));
}

TEST_CASE("nobody who was not refused is told of room", "[M14]") {
  SendBudget budget;
  CHECK_FALSE(budget.has_refused());
  CHECK_FALSE(budget.TakeReady(kLimit));
  REQUIRE(budget.TryCharge(kLimit, kLimit));
  budget.Release(kLimit);
  CHECK_FALSE(budget.TakeReady(kLimit));
}

TEST_CASE("there is room again when half of the limit is free", "[M14]") {
  SendBudget budget;
  REQUIRE(budget.TryCharge(kLimit, kLimit));
  REQUIRE_FALSE(budget.TryCharge(1, kLimit));
  CHECK(budget.has_refused());
  budget.Release(49);
  CHECK_FALSE(budget.TakeReady(kLimit));
  budget.Release(1);
  CHECK(budget.TakeReady(kLimit));
  CHECK_FALSE(budget.has_refused());
  CHECK_FALSE(budget.TakeReady(kLimit));  // once
}

TEST_CASE("there is room again when the largest refused call fits", "[M14]") {
  SendBudget budget;
  REQUIRE(budget.TryCharge(kLimit, kLimit));
  REQUIRE_FALSE(budget.TryCharge(80, kLimit));
  REQUIRE_FALSE(budget.TryCharge(10, kLimit));
  budget.Release(79);
  CHECK_FALSE(budget.TakeReady(kLimit));
  budget.Release(1);
  CHECK(budget.TakeReady(kLimit));
  CHECK(budget.TryCharge(80, kLimit));
}

TEST_CASE("half of an odd limit is the larger half", "[M14]") {
  SendBudget budget;
  REQUIRE(budget.TryCharge(3, 3));
  REQUIRE_FALSE(budget.TryCharge(1, 3));
  budget.Release(1);
  CHECK_FALSE(budget.TakeReady(3));
  budget.Release(1);
  CHECK(budget.TakeReady(3));
}

TEST_CASE("with a limit of one byte there is room when it is free", "[M14][X4]") {
  SendBudget budget;
  REQUIRE(budget.TryCharge(1, 1));
  REQUIRE_FALSE(budget.TryCharge(1, 1));
  CHECK_FALSE(budget.TakeReady(1));
  budget.Release(1);
  CHECK(budget.TakeReady(1));
}

}  // namespace
}  // namespace xtcp::internal
