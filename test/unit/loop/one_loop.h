#pragma once

#include <catch2/catch.hpp>
#include <chrono>
#include <cstddef>
#include <memory>

#include "loop/loop_core.h"

namespace xtcp::internal {

// A loop of no group, which runs on the test's own thread when the test says so.
struct OneLoop {
  OneLoop() { REQUIRE_FALSE(core.Open()); }

  // Runs iterations that do not wait.
  void Run(int iterations = 1) {
    for (int i = 0; i < iterations; ++i) {
      bool quits = false;
      REQUIRE_FALSE(core.RunOnce(std::chrono::nanoseconds(0), &quits));
      REQUIRE_FALSE(quits);
    }
  }

  std::shared_ptr<LoopContext> context =
      std::make_shared<LoopContext>(std::weak_ptr<Group>(), std::size_t{0});
  LoopCore core{context};
};

}  // namespace xtcp::internal
