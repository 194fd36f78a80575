#include "buffer/block_pool.h"

#include <new>
#include <utility>

namespace xtcp::internal {

BlockPool::~BlockPool() {
  MutexLock lock(mu_);
  for (const Class& blocks : classes_) Delete(blocks.first);
}

void BlockPool::Delete(Free* first) {
  while (first != nullptr) ::operator delete(std::exchange(first, first->next));
}

void* BlockPool::Take(std::size_t size) noexcept {
  if (size > (~std::size_t{0} >> 1)) return nullptr;  // has no power of two above it
  const std::size_t block_size = BlockSize(size);
  if (block_size > kLargestKept) return ::operator new(block_size, std::nothrow);
  {
    MutexLock lock(mu_);
    Class& blocks = ClassOf(block_size);
    blocks.used_bytes += block_size;
    if (blocks.first != nullptr) {
      blocks.kept_bytes -= block_size;
      return std::exchange(blocks.first, blocks.first->next);
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
  {
    MutexLock lock(mu_);
    Class& blocks = ClassOf(block_size);
    blocks.used_bytes -= block_size;
    if (blocks.kept_bytes + block_size > kKeptPerSize) blocks.overflowed = true;
    if (blocks.overflowed && blocks.used_bytes == 0) {
      unwanted->next = blocks.first;
      blocks = Class{};
    } else if (blocks.kept_bytes + block_size <= kKeptPerSize) {
      unwanted->next = std::exchange(blocks.first, unwanted);
      blocks.kept_bytes += block_size;
      unwanted = nullptr;
    }
  }
  Delete(unwanted);
}

}  // namespace xtcp::internal
