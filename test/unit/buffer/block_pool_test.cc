#include "buffer/block_pool.h"

#include <catch2/catch.hpp>
#include <cstdint>
#include <cstring>
#include <set>
#include <vector>

#include "support/alloc_hook.h"

namespace xtcp::internal {
namespace {

TEST_CASE("a block has at least the size asked for, up to the next power of two") {
  CHECK(BlockPool::BlockSize(0) == BlockPool::kSmallest);
  CHECK(BlockPool::BlockSize(BlockPool::kSmallest) == BlockPool::kSmallest);
  CHECK(BlockPool::BlockSize(BlockPool::kSmallest + 1) == 2 * BlockPool::kSmallest);
  CHECK(BlockPool::BlockSize(4096) == 4096);
  CHECK(BlockPool::BlockSize(4097) == 8192);
}

TEST_CASE("a block that was given back is used again, for its own size only") {
  BlockPool pool;
  void* const small = pool.Take(4096);
  pool.Give(small, 4096);
  void* const other = pool.Take(8192);
  CHECK(other != small);
  CHECK(pool.Take(4000) == small);
  pool.Give(small, 4096);
  pool.Give(other, 8192);
}

TEST_CASE("blocks in use are distinct, and theirs to write") {
  BlockPool pool;
  std::vector<void*> blocks;
  for (int i = 0; i < 100; ++i) {
    blocks.push_back(pool.Take(1024));
    std::memset(blocks.back(), i, 1024);
  }
  CHECK(std::set<void*>(blocks.begin(), blocks.end()).size() == blocks.size());
  for (int i = 0; i < 100; ++i) {
    CHECK(static_cast<std::uint8_t*>(blocks[static_cast<std::size_t>(i)])[1023] == i);
  }
  for (void* block : blocks) pool.Give(block, 1024);
}

TEST_CASE("a size that no block can have is refused", "[X4]") {
  BlockPool pool;
  CHECK(pool.Take(~std::size_t{0}) == nullptr);
  CHECK(pool.Take((~std::size_t{0} >> 1) + 1) == nullptr);
  CHECK(pool.Take(std::size_t{1} << 62) == nullptr);
}

TEST_CASE("many blocks of one size do not keep others out of the pool", "[R6]") {
  BlockPool pool;
  std::vector<void*> blocks;
  for (int i = 0; i < 500; ++i) blocks.push_back(pool.Take(16 << 10));
  for (void* block : blocks) pool.Give(block, 16 << 10);
  pool.Give(pool.Take(4096), 4096);
  const std::uint64_t before = test::Allocations();
  for (int i = 0; i < 1000; ++i) pool.Give(pool.Take(4096), 4096);
  const std::uint64_t allocations = test::Allocations() - before;
  CHECK(allocations == 0);
}

TEST_CASE("large blocks go straight back") {
  BlockPool pool;
  void* const large = pool.Take(BlockPool::kLargestKept + 1);
  REQUIRE(large != nullptr);
  pool.Give(large, BlockPool::kLargestKept + 1);
}

}  // namespace
}  // namespace xtcp::internal
