#include "buffer/block_pool.h"

#include <new>

namespace xtcp::internal {

BlockPool::~BlockPool() {
  MutexLock lock(mu_);
  for (Free*& list : free_) {
    while (list != nullptr) {
      Free* block = list;
      list = block->next;
      ::operator delete(block);
    }
  }
}

void* BlockPool::Take(std::size_t size) noexcept {
  if (size > (~std::size_t{0} >> 1)) return nullptr;  // has no power of two above it
  const std::size_t block_size = BlockSize(size);
  if (block_size <= kLargestKept) {
    MutexLock lock(mu_);
    Free*& list = free_[ClassOf(block_size)];
    if (list != nullptr) {
      Free* block = list;
      list = block->next;
      kept_bytes_[ClassOf(block_size)] -= block_size;
      return block;
    }
  }
  return ::operator new(block_size, std::nothrow);
}

void BlockPool::Give(void* block, std::size_t size) noexcept {
  const std::size_t block_size = BlockSize(size);
  if (block_size <= kLargestKept) {
    MutexLock lock(mu_);
    std::size_t& kept_bytes = kept_bytes_[ClassOf(block_size)];
    if (kept_bytes + block_size <= kKeptPerSize) {
      Free*& list = free_[ClassOf(block_size)];
      list = ::new (block) Free{list};
      kept_bytes += block_size;
      return;
    }
  }
  ::operator delete(block);
}

}  // namespace xtcp::internal
