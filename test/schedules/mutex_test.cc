// Every schedule of threads that share a lock of four bytes.

#include "base/mutex.h"

#include <algorithm>
#include <array>
#include <catch2/catch.hpp>
#include <cstddef>
#include <string>

#include "support/explorer.h"

namespace xtcp::test {
namespace {

using internal::MutexLock;
using internal::SmallMutex;

// `threads` threads take the lock `times` times. One that is not woken waits for ever, which ends the
// program.
Exploration ExploreLock(std::size_t preemptions, std::size_t threads, int times) {
  return Explore({.preemptions = preemptions}, [=](Schedule& schedule) -> std::string {
    SmallMutex mu;
    int inside = 0;
    int most = 0;
    constexpr std::array<const char*, 3> kNames = {"one", "two", "three"};
    for (std::size_t i = 0; i < threads; ++i) {
      schedule.Add(kNames.at(i), [&] {
        for (int n = 0; n < times; ++n) {
          const MutexLock lock(mu);
          most = std::max(most, ++inside);
          schedule.Pause();
          --inside;
        }
      });
    }
    schedule.RunToEnd();
    return most == 1 ? "" : "two threads hold the lock";
  });
}

TEST_CASE("schedules: two threads take a small lock in turn", "[B4][M25]") {
  const Exploration result = ExploreLock(4, 2, 2);
  CAPTURE(result.schedules);
  CHECK(result.problem == "");
  CHECK(result.schedules > 200);
}

TEST_CASE("schedules: of three threads that want a small lock each gets it", "[B4][M25]") {
  const Exploration result = ExploreLock(3, 3, 1);
  CAPTURE(result.schedules);
  CHECK(result.problem == "");
  CHECK(result.schedules > 200);
}

}  // namespace
}  // namespace xtcp::test
