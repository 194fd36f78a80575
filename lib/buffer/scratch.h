#pragma once

#include <array>
#include <cstddef>
#include <span>

#include "base/check.h"
#include "buffer/block_pool.h"

namespace xtcp::internal {

// Memory for the time of one call: a part of the object if that is large enough, otherwise a block
// of the pool. It keeps nothing in thread-local storage, so it works at any time of a thread's
// life, even in the destructors of thread-local and static objects.
class Scratch {
 public:
  explicit Scratch(BlockPool& pool) : pool_(pool) {}
  ~Scratch() {
    if (block_ != nullptr) pool_.Give(block_, size_);
  }
  Scratch(const Scratch&) = delete;
  Scratch& operator=(const Scratch&) = delete;

  // Returns `size` bytes that are not initialised, or null when the allocation fails. Call it once.
  std::byte* Take(std::size_t size) noexcept {
    XTCP_DCHECK(block_ == nullptr, "a scratch is taken twice");
    if (size <= small_.size()) return small_.data();
    size_ = size;
    block_ = static_cast<std::byte*>(pool_.Take(size));
    return block_;
  }

 private:
  BlockPool& pool_;
  std::byte* block_ = nullptr;
  std::size_t size_ = 0;
  std::array<std::byte, 2048> small_;
};

}  // namespace xtcp::internal
