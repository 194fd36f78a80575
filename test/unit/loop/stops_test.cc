#include "loop/stops.h"

#include <array>
#include <catch2/catch.hpp>

namespace xtcp::internal {
namespace {

constexpr std::array kAll = {Stops::kNone, Stops::kGraceful, Stops::kNow, Stops::kGracefulThenNow};
constexpr std::array kModes = {StopMode::kImmediately, StopMode::kGracefullyButNotWait,
                               StopMode::kGracefullyAndWait};

TEST_CASE("a stop is noted as its mode says, and a graceful one not after an immediate one",
          "[M20][M22][S5]") {
  struct Row {
    Stops before;
    Stops after_now;
    Stops after_graceful;
  };
  const std::array rows = {
      Row{Stops::kNone, Stops::kNow, Stops::kGraceful},
      Row{Stops::kGraceful, Stops::kGracefulThenNow, Stops::kGraceful},
      Row{Stops::kNow, Stops::kNow, Stops::kNow},
      Row{Stops::kGracefulThenNow, Stops::kGracefulThenNow, Stops::kGracefulThenNow},
  };
  for (const Row& row : rows) {
    CAPTURE(static_cast<int>(row.before));
    CHECK(Add(row.before, StopMode::kImmediately) == row.after_now);
    CHECK(Add(row.before, StopMode::kGracefullyButNotWait) == row.after_graceful);
    CHECK(Add(row.before, StopMode::kGracefullyAndWait) == row.after_graceful);
  }
}

TEST_CASE("no stop takes an earlier one back", "[M22][S5]") {
  for (const Stops before : kAll) {
    for (const StopMode mode : kModes) {
      CHECK((Add(before, mode) | before) == Add(before, mode));
      CHECK(Add(before, mode) != Stops::kNone);
      CHECK(Add(Add(before, mode), mode) == Add(before, mode));
    }
  }
}

TEST_CASE("the stops of a service and of its group join, in either order", "[M42][S5]") {
  for (const Stops a : kAll) {
    for (const Stops b : kAll) {
      CHECK((a | b) == (b | a));
      CHECK(Has(a | b, Stops::kNow) == (Has(a, Stops::kNow) || Has(b, Stops::kNow)));
      CHECK(Has(a | b, Stops::kGraceful) == (Has(a, Stops::kGraceful) || Has(b, Stops::kGraceful)));
    }
  }
}

}  // namespace
}  // namespace xtcp::internal
