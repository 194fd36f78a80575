#include "buffer/scratch.h"

#include <catch2/catch.hpp>
#include <cstddef>
#include <cstdint>
#include <cstring>

#include "support/alloc_hook.h"

namespace xtcp::internal {
namespace {

constexpr std::size_t kSmall = 2048;

TEST_CASE("a small scratch is a part of the object, and needs no memory", "[R6][F4]") {
  BlockPool pool;
  for (const std::size_t size : {std::size_t{0}, std::size_t{1}, kSmall}) {
    Scratch scratch(pool);
    std::byte* bytes = nullptr;
    {
      const test::NoMemory none;
      bytes = scratch.Take(size);
    }
    REQUIRE(bytes != nullptr);
    const auto* const object = reinterpret_cast<const std::byte*>(&scratch);
    CHECK(bytes >= object);
    CHECK(bytes + size <= object + sizeof scratch);
  }
}

TEST_CASE("a large scratch is a block of the pool, which gets it back", "[R6]") {
  BlockPool pool;
  std::byte* first = nullptr;
  {
    Scratch scratch(pool);
    first = scratch.Take(kSmall + 1);
    REQUIRE(first != nullptr);
    std::memset(first, 1, kSmall + 1);
  }
  const std::uint64_t before = test::Allocations();
  Scratch again(pool);
  std::byte* const second = again.Take(kSmall + 1);
  const std::uint64_t allocated = test::Allocations() - before;
  CHECK(second == first);
  CHECK(allocated == 0);
}

TEST_CASE("a scratch that cannot be had is null, and gives nothing back", "[F4][X4]") {
  BlockPool pool;
  for (const std::size_t size : {std::size_t{1} << 16, ~std::size_t{0}}) {
    Scratch scratch(pool);
    std::byte* bytes = nullptr;
    {
      const test::NoMemory none;
      bytes = scratch.Take(size);
    }
    CHECK(bytes == nullptr);
  }
  // The pool would hand out what was given back to it.
  void* const block = pool.Take(std::size_t{1} << 16);
  CHECK(block != nullptr);
  pool.Give(block, std::size_t{1} << 16);
}

}  // namespace
}  // namespace xtcp::internal
