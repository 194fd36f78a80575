#include "buffer/block_pool.h"

#include <array>
#include <atomic>
#include <catch2/catch.hpp>
#include <cstdint>
#include <cstring>
#include <set>
#include <thread>
#include <vector>

#include "support/alloc_hook.h"
#include "support/random.h"

namespace xtcp::internal {
namespace {

using test::Allocations;
using test::FailAllocations;

// Takes blocks of this size until `count` are there, and says how many had to be allocated.
std::uint64_t TakeMany(BlockPool& pool, std::size_t size, std::size_t count,
                       std::vector<void*>* blocks) {
  blocks->reserve(blocks->size() + count);
  const std::uint64_t before = Allocations();
  for (std::size_t i = 0; i < count; ++i) blocks->push_back(pool.Take(size));
  return Allocations() - before;
}

void GiveAll(BlockPool& pool, std::size_t size, std::vector<void*>* blocks) {
  for (void* block : *blocks) pool.Give(block, size);
  blocks->clear();
}

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

TEST_CASE("blocks in use are distinct, and theirs to write", "[B7]") {
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
  GiveAll(pool, 1024, &blocks);
}

TEST_CASE("a size that no block can have is refused", "[X4]") {
  BlockPool pool;
  CHECK(pool.Take(~std::size_t{0}) == nullptr);
  CHECK(pool.Take((~std::size_t{0} >> 1) + 1) == nullptr);
  CHECK(pool.Take(~std::size_t{0} >> 1) == nullptr);
}

TEST_CASE("large blocks go straight back, the largest of the others is kept") {
  BlockPool pool;
  std::vector<void*> blocks;
  CHECK(TakeMany(pool, BlockPool::kLargestKept, 1, &blocks) == 1);
  GiveAll(pool, BlockPool::kLargestKept, &blocks);
  CHECK(TakeMany(pool, BlockPool::kLargestKept, 1, &blocks) == 0);
  GiveAll(pool, BlockPool::kLargestKept, &blocks);

  CHECK(TakeMany(pool, BlockPool::kLargestKept + 1, 1, &blocks) == 1);
  GiveAll(pool, BlockPool::kLargestKept + 1, &blocks);
  CHECK(TakeMany(pool, BlockPool::kLargestKept + 1, 1, &blocks) == 1);
  GiveAll(pool, BlockPool::kLargestKept + 1, &blocks);
}

TEST_CASE("a pool keeps no more of a size than its limit, and that for each size", "[R1][R6]") {
  BlockPool pool;
  std::vector<void*> blocks;
  for (std::size_t size = BlockPool::kSmallest; size <= BlockPool::kLargestKept; size *= 4) {
    CAPTURE(size);
    const std::size_t most = BlockPool::kLeastKept / size;
    void* const in_use = pool.Take(size);
    // Twice: what is taken out of the pool must make room again.
    for (int round = 0; round < 2; ++round) {
      TakeMany(pool, size, most + 10, &blocks);
      GiveAll(pool, size, &blocks);
      CHECK(TakeMany(pool, size, most + 10, &blocks) == 10);
      GiveAll(pool, size, &blocks);
    }
    pool.Give(in_use, size);
  }
}

TEST_CASE("after more than a pool keeps, once all is back, it keeps nothing", "[R1][R6]") {
  BlockPool pool;
  std::vector<void*> blocks;
  for (std::size_t size = BlockPool::kSmallest; size <= BlockPool::kLargestKept; size *= 4) {
    CAPTURE(size);
    const std::size_t most = BlockPool::kLeastKept / size;
    // As many as it keeps: those are kept, as often as they come back.
    TakeMany(pool, size, most, &blocks);
    GiveAll(pool, size, &blocks);
    CHECK(TakeMany(pool, size, most, &blocks) == 0);
    GiveAll(pool, size, &blocks);
    // One more, once: nothing is kept; after that it begins anew.
    TakeMany(pool, size, most + 1, &blocks);
    GiveAll(pool, size, &blocks);
    CHECK(TakeMany(pool, size, most, &blocks) == most);
    GiveAll(pool, size, &blocks);
    CHECK(TakeMany(pool, size, most, &blocks) == 0);
    GiveAll(pool, size, &blocks);
  }
}

TEST_CASE("a burst that comes again and again soon costs no allocation", "[R6][seen-22]") {
  BlockPool pool;
  std::vector<void*> blocks;
  constexpr std::size_t kSize = 16 << 10;
  const auto burst = [&](std::size_t bytes) {
    const std::size_t allocations = TakeMany(pool, kSize, bytes / kSize, &blocks);
    GiveAll(pool, kSize, &blocks);
    return allocations;
  };
  for (int i = 0; i < 4; ++i) burst(4 << 20);
  CHECK(burst(4 << 20) == 0);
  // Small ones do not make it forget at once, but in time.
  for (int i = 0; i < 10; ++i) burst(kSize);
  CHECK(burst(3 << 20) == 0);
  for (int i = 0; i < 1000; ++i) burst(kSize);
  burst(4 << 20);
  CHECK(burst(4 << 20) > 0);
  // There is a limit, too.
  for (int i = 0; i < 8; ++i) burst(64 << 20);
  CHECK(burst(64 << 20) > 0);
}

TEST_CASE("a pool lets go of all when told to", "[R1][seen-25]") {
  BlockPool pool;
  for (std::size_t size = BlockPool::kSmallest; size <= BlockPool::kLargestKept; size *= 2) {
    pool.Give(pool.Take(size), size);
  }
  pool.Trim();
  std::vector<void*> blocks;
  for (std::size_t size = BlockPool::kSmallest; size <= BlockPool::kLargestKept; size *= 2) {
    CHECK(TakeMany(pool, size, 1, &blocks) == 1);
    GiveAll(pool, size, &blocks);
  }
}

TEST_CASE("what could not be allocated is not waited for", "[F4][R1]") {
  BlockPool pool;
  constexpr std::size_t kSize = 16 << 10;
  constexpr std::size_t kMost = BlockPool::kLeastKept / kSize;
  void* block = nullptr;
  {
    const test::NoMemory none;
    block = pool.Take(kSize);
  }
  CHECK(block == nullptr);
  std::vector<void*> blocks;
  TakeMany(pool, kSize, kMost + 1, &blocks);
  GiveAll(pool, kSize, &blocks);
  CHECK(TakeMany(pool, kSize, 1, &blocks) == 1);
  GiveAll(pool, kSize, &blocks);
}

TEST_CASE("many blocks of one size do not keep others out of the pool", "[R6]") {
  BlockPool pool;
  std::vector<void*> blocks;
  TakeMany(pool, 16 << 10, 500, &blocks);  // a peer that read late
  GiveAll(pool, 16 << 10, &blocks);
  pool.Give(pool.Take(4096), 4096);
  const std::uint64_t before = Allocations();
  for (int i = 0; i < 1000; ++i) pool.Give(pool.Take(4096), 4096);  // packets that come in pieces
  const std::uint64_t allocations = Allocations() - before;
  CHECK(allocations == 0);
}

TEST_CASE("a failed allocation is null, and costs only itself", "[F4]") {
  BlockPool pool;
  void* const kept = pool.Take(4096);
  pool.Give(kept, 4096);
  void* other = nullptr;
  void* same = nullptr;
  {
    const FailAllocations none(1, FailAllocations::kAlways);
    other = pool.Take(8192);
    same = pool.Take(4096);
  }
  CHECK(other == nullptr);
  CHECK(same == kept);
  other = pool.Take(8192);
  CHECK(other != nullptr);
  pool.Give(same, 4096);
  pool.Give(other, 8192);
}

TEST_CASE("no two threads get the same block", "[B7]") {
  constexpr int kRounds = 5'000;
  BlockPool pool;
  std::atomic<int> torn{0};
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([&pool, &torn, t] {
      test::Random random(static_cast<std::uint64_t>(t));
      for (int i = 0; i < kRounds; ++i) {
        const std::size_t size = std::size_t{256} << random.Between(0, 3);
        std::array<unsigned char*, 4> mine;
        for (unsigned char*& block : mine) {
          block = static_cast<unsigned char*>(pool.Take(size));
          std::memset(block, t, size);
        }
        for (unsigned char* block : mine) {
          if (block[0] != t || block[size / 2] != t || block[size - 1] != t) ++torn;
          pool.Give(block, size);
        }
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  CHECK(torn == 0);
}

}  // namespace
}  // namespace xtcp::internal
