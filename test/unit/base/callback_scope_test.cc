#include "base/callback_scope.h"

#include <catch2/catch.hpp>
#include <thread>

namespace xtcp::internal {
namespace {

TEST_CASE("callback scopes nest, and count for their own thread only", "[M26]") {
  CHECK_FALSE(InsideCallback());
  {
    const CallbackScope outer;
    CHECK(InsideCallback());
    {
      const CallbackScope inner;
      CHECK(InsideCallback());
    }
    CHECK(InsideCallback());

    bool elsewhere = true;
    std::thread([&] { elsewhere = InsideCallback(); }).join();
    CHECK_FALSE(elsewhere);
  }
  CHECK_FALSE(InsideCallback());
}

TEST_CASE("an exception ends a callback scope", "[M26][M38]") {
  try {
    const CallbackScope scope;
    throw 1;
  } catch (int) {
    CHECK_FALSE(InsideCallback());
  }
}

}  // namespace
}  // namespace xtcp::internal
