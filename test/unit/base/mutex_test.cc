#include "base/mutex.h"

#include <catch2/catch.hpp>
#include <thread>
#include <vector>

namespace xtcp::internal {
namespace {

TEST_CASE("a mutex lets one thread in at a time") {
  Mutex mu;
  int count = 0;
  std::vector<std::thread> threads;
  for (int i = 0; i < 4; ++i) {
    threads.emplace_back([&] {
      for (int n = 0; n < 5000; ++n) {
        MutexLock lock(mu);
        count = count + 1;
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  CHECK(count == 20000);
}

TEST_CASE("a condition variable gives the mutex up while it waits, and wakes everybody") {
  Mutex mu;
  CondVar changed;
  int waiting = 0;
  int woken = 0;
  bool go = false;

  std::vector<std::thread> threads;
  for (int i = 0; i < 3; ++i) {
    threads.emplace_back([&] {
      MutexLock lock(mu);
      ++waiting;
      changed.NotifyAll();
      while (!go) changed.Wait(mu);
      ++woken;
    });
  }
  {
    MutexLock lock(mu);
    while (waiting < 3) changed.Wait(mu);
    CHECK(woken == 0);
    go = true;
    changed.NotifyAll();
  }
  for (std::thread& thread : threads) thread.join();
  CHECK(woken == 3);
}

}  // namespace
}  // namespace xtcp::internal
