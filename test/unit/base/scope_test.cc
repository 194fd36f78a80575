#include "base/scope.h"

#include <catch2/catch.hpp>
#include <stdexcept>
#include <string>

namespace xtcp::internal {
namespace {

TEST_CASE("what is to be done at the end of a scope is done once, however it is left", "[F5]") {
  int done = 0;
  const auto leave_by = [&done](const std::string& way) {
    const AtScopeEnd end([&done] { ++done; });
    if (way == "return") return;
    if (way == "throw") throw std::runtime_error(way);
  };
  leave_by("its end");
  CHECK(done == 1);
  leave_by("return");
  CHECK(done == 2);
  CHECK_THROWS_AS(leave_by("throw"), std::runtime_error);
  CHECK(done == 3);
}

TEST_CASE("what is to be done at the end of nested scopes is done from the inside out") {
  std::string order;
  {
    const AtScopeEnd outer([&order] { order += 'a'; });
    const AtScopeEnd inner([&order] { order += 'b'; });
    CHECK(order.empty());
  }
  CHECK(order == "ba");
}

}  // namespace
}  // namespace xtcp::internal
