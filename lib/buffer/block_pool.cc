#include "buffer/block_pool.h"

#include <algorithm>
#include <new>
#include <span>
#include <utility>

#include "base/check.h"
#include "base/poison.h"

namespace xtcp::internal {

namespace {

// The part of a free block that must not be read: everything but the link to the next one.
std::span<std::byte> BodyOf(void* block, std::size_t block_size) {
  return std::span(static_cast<std::byte*>(block), block_size).subspan(sizeof(void*));
}

}  // namespace

BlockPool::~BlockPool() {
  MutexLock lock(mu_);
  for (const Class& blocks : classes_) {
    XTCP_DCHECK(blocks.used_bytes == 0, "a pool is destroyed while its blocks are in use");
    Delete(blocks.first);
  }
}

void BlockPool::Delete(Free* first) {
  while (first != nullptr) ::operator delete(std::exchange(first, first->next));
}

void* BlockPool::Take(std::size_t size) noexcept {
  if (size > (~std::size_t{0} >> 1)) return nullptr;  // there is no power of two above it
  const std::size_t block_size = BlockSize(size);
  if (block_size > kLargestKept) return ::operator new(block_size, std::nothrow);
  {
    MutexLock lock(mu_);
    Class& blocks = ClassOf(block_size);
    blocks.used_bytes += block_size;
    blocks.peak_bytes = std::max(blocks.peak_bytes, blocks.used_bytes);
    if (blocks.first != nullptr) {
      blocks.kept_bytes -= block_size;
      kept_bytes_ -= block_size;
      Free* const block = std::exchange(blocks.first, blocks.first->next);
      Unpoison(BodyOf(block, block_size));
      return block;
    }
  }
  void* const block = ::operator new(block_size, std::nothrow);
  if (block == nullptr) {
    MutexLock lock(mu_);
    ClassOf(block_size).used_bytes -= block_size;
  }
  return block;
}

void BlockPool::Give(void* block, std::size_t size) noexcept {
  const std::size_t block_size = BlockSize(size);
  if (block_size > kLargestKept) {
    ::operator delete(block);
    return;
  }
  Free* unwanted = ::new (block) Free{nullptr};
  Poison(BodyOf(block, block_size), 0);
  {
    MutexLock lock(mu_);
    Class& blocks = ClassOf(block_size);
    XTCP_DCHECK(block_size <= blocks.used_bytes, "a block is given back that was not taken");
    blocks.used_bytes -= block_size;
    const std::size_t kept = blocks.kept_bytes + block_size;
    if (kept <= kLeastKept || (kept <= blocks.limit && kept_bytes_ + block_size <= kMostKept)) {
      unwanted->next = std::exchange(blocks.first, unwanted);
      unwanted = nullptr;
      blocks.kept_bytes += block_size;
      kept_bytes_ += block_size;
    }
    if (blocks.used_bytes == 0) {
      Free* const all = EndBurst(blocks);
      if (unwanted == nullptr) {
        unwanted = all;
      } else {
        unwanted->next = all;
      }
    }
  }
  Delete(unwanted);
}

BlockPool::Free* BlockPool::EndBurst(Class& blocks) {
  const std::size_t peak = std::exchange(blocks.peak_bytes, 0);
  if (peak <= blocks.limit) {
    if (peak < blocks.limit / 2) {
      blocks.limit = std::max(kLeastKept, blocks.limit - blocks.limit / 64);
    }
    return nullptr;
  }
  blocks.limit = std::min(kMostKept, 2 * blocks.limit);
  kept_bytes_ -= std::exchange(blocks.kept_bytes, 0);
  return std::exchange(blocks.first, nullptr);
}

void BlockPool::Trim() noexcept {
  for (std::size_t i = 0; i < kClasses; ++i) {
    Free* unwanted = nullptr;
    {
      MutexLock lock(mu_);
      kept_bytes_ -= std::exchange(classes_[i].kept_bytes, 0);
      unwanted = std::exchange(classes_[i].first, nullptr);
    }
    Delete(unwanted);
  }
}

}  // namespace xtcp::internal
