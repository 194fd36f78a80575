#include "base/gate.h"

#include <array>
#include <atomic>
#include <catch2/catch.hpp>
#include <memory>
#include <thread>
#include <vector>

namespace xtcp::internal {
namespace {

// Spins until the gate is closed; the caller is inside, so it cannot be drained meanwhile.
void AwaitClosed(Gate& gate) {
  while (gate.Enter()) {
    gate.Leave();
    std::this_thread::yield();
  }
}

TEST_CASE("an open gate lets everybody in, a closed one nobody") {
  Gate gate;
  CHECK(gate.Enter());
  CHECK(gate.Enter());
  gate.Leave();
  gate.Leave();
  CHECK(gate.Enter());
  gate.Leave();

  gate.CloseAndWait();
  CHECK_FALSE(gate.Enter());
  CHECK_FALSE(gate.Enter());
}

TEST_CASE("a gate closes at once when nobody is inside, and any number of times", "[M20]") {
  Gate gate;
  gate.CloseAndWait();
  gate.CloseAndWait();
  CHECK_FALSE(gate.Enter());
}

TEST_CASE("every closer waits for the last one inside", "[M20]") {
  constexpr std::size_t kClosers = 3;
  Gate gate;
  REQUIRE(gate.Enter());
  gate.Leave();  // the last one out of an open gate drains nothing
  REQUIRE(gate.Enter());
  REQUIRE(gate.Enter());

  std::atomic<int> inside{2};
  std::array<int, kClosers> seen{};
  std::vector<std::thread> closers;
  for (int& slot : seen) {
    slot = -1;
    closers.emplace_back([&gate, &inside, &slot] {
      gate.CloseAndWait();
      slot = inside.load();
    });
  }
  AwaitClosed(gate);
  inside = 1;
  gate.Leave();
  // Time for a closer that does not wait to be seen. (test/schedules goes through all orders.)
  for (int i = 0; i < 10; ++i) std::this_thread::yield();
  inside = 0;
  gate.Leave();
  for (std::thread& closer : closers) closer.join();
  for (const int at_return : seen) CHECK(at_return == 0);
}

TEST_CASE("what was done inside a gate happened before its closing ends", "[M20]") {
  // The slots are plain, so that the thread sanitizer judges the order.
  for (int round = 0; round < 200; ++round) {
    Gate gate;
    std::array<int, 3> slots{};
    std::atomic<int> refused{0};
    std::vector<std::thread> threads;
    for (int& slot : slots) {
      threads.emplace_back([&gate, &slot, &refused] {
        while (gate.Enter()) {
          ++slot;
          gate.Leave();
        }
        ++refused;
      });
    }
    gate.CloseAndWait();
    const std::array<int, 3> at_close = slots;
    for (std::thread& thread : threads) thread.join();
    REQUIRE(slots == at_close);
    REQUIRE(refused == 3);
  }
}

TEST_CASE("a gate may be destroyed as soon as its closing ends", "[M20]") {
  // The address and thread sanitizers see a leaver who touches it too late.
  for (int round = 0; round < 500; ++round) {
    auto gate = std::make_unique<Gate>();
    REQUIRE(gate->Enter());
    REQUIRE(gate->Enter());
    std::vector<std::thread> leavers;
    for (int i = 0; i < 2; ++i) leavers.emplace_back([inside = gate.get()] { inside->Leave(); });
    gate->CloseAndWait();
    gate.reset();
    for (std::thread& leaver : leavers) leaver.join();
  }
}

}  // namespace
}  // namespace xtcp::internal
