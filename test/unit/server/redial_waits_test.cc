#include "server/redial_waits.h"

#include <algorithm>
#include <catch2/catch.hpp>
#include <chrono>
#include <cstdint>
#include <limits>
#include <set>
#include <vector>

namespace xtcp::internal {
namespace {

using namespace std::chrono_literals;

using Times = std::vector<RedialWaits::Time>;

Times Next(RedialWaits& waits, int count) {
  Times times;
  for (int i = 0; i < count; ++i) times.push_back(waits.Next());
  return times;
}

Times Of(const Backoff& backoff, int count) {
  RedialWaits waits(backoff, 7);
  return Next(waits, count);
}

TEST_CASE("waits grow from the first by the factor, and stay at the most", "[M55]") {
  CHECK(Of({.first = 10ms, .most = 75ms, .factor = 2, .jitter = 0}, 6) ==
        Times{10ms, 20ms, 40ms, 75ms, 75ms, 75ms});
  CHECK(Of({.first = 10ms, .most = 75ms, .factor = 1, .jitter = 0}, 3) == Times{10ms, 10ms, 10ms});
  CHECK(Of({.first = 10ms, .most = 10ms, .factor = 9, .jitter = 0}, 3) == Times{10ms, 10ms, 10ms});
  CHECK(Of({.first = 1ms, .most = 75ms, .factor = 1.5, .jitter = 0}, 3) ==
        Times{1ms, 1500us, 2250us});
}

TEST_CASE("no factor and no length overflows a wait", "[M55][X4]") {
  constexpr std::chrono::milliseconds kCentury = std::chrono::years(100);
  for (const double factor :
       {1e3, 1e300, std::numeric_limits<double>::max(), std::numeric_limits<double>::infinity()}) {
    CAPTURE(factor);
    const Times times = Of({.first = 1ms, .most = kCentury, .factor = factor, .jitter = 0}, 60);
    CHECK(times.front() == 1ms);
    CHECK(times.back() == kCentury);
    CHECK(std::is_sorted(times.begin(), times.end()));
  }
}

TEST_CASE("chance cuts a wait by up to its part, and never lengthens it", "[M55]") {
  for (const double jitter : {0.1, 0.5, 1.0}) {
    CAPTURE(jitter);
    const Times times = Of({.first = 1s, .most = 1s, .factor = 1, .jitter = jitter}, 2000);
    const auto [least, most] = std::minmax_element(times.begin(), times.end());
    // The ends are met, more or less; the numbers are the same at each run.
    const double part = static_cast<double>(least->count()) / 1e9;
    CHECK(*most <= 1s);
    CHECK(*most > 990ms);
    CHECK(part >= 1 - jitter);
    CHECK(part < 1 - jitter + 0.01);
    CHECK(*least >= 0s);
  }
}

TEST_CASE("what chance cuts off is not missing from the next wait", "[M55]") {
  const Times times = Of({.first = 100ms, .most = 1h, .factor = 2, .jitter = 0.5}, 10);
  RedialWaits::Time whole = 100ms;
  for (const RedialWaits::Time time : times) {
    CHECK(time <= whole);
    CHECK(time >= whole / 2);
    whole *= 2;
  }
}

TEST_CASE("waits begin anew after a packet or a long life, and not otherwise", "[M55]") {
  struct Row {
    std::uint64_t packets;
    std::chrono::milliseconds age;
    bool anew;
  };
  for (const Row& row :
       {Row{0, 0ms, false}, Row{0, 74ms, false}, Row{0, 75ms, true}, Row{1, 0ms, true}}) {
    CAPTURE(row.packets, row.age.count());
    RedialWaits waits({.first = 10ms, .most = 75ms, .factor = 2, .jitter = 0}, 7);
    Next(waits, 2);
    waits.NoteEnd(row.packets, row.age);
    CHECK(waits.Next() == (row.anew ? 10ms : 40ms));
    CHECK(waits.Next() == (row.anew ? 20ms : 75ms));
  }
}

TEST_CASE("clients with different seeds do not come back at the same moment", "[M55]") {
  std::set<RedialWaits::Time> first;
  for (std::uint64_t seed = 0; seed < 2000; seed += 2) {  // 1 and 0 are the same
    RedialWaits waits({.first = 1s, .most = 1s, .factor = 1, .jitter = 0.5}, seed);
    Next(waits, 3);
    first.insert(waits.Next());
  }
  CHECK(first.size() > 990);
}

}  // namespace
}  // namespace xtcp::internal
