#pragma once

#include <array>
#include <bit>
#include <cstddef>

#include "base/mutex.h"
#include "base/thread_annotations.h"

namespace xtcp::internal {

// Memory for the buffers of one loop's connections: blocks of a power of two bytes. Freed blocks
// are kept for the next connection, up to `kKeptPerSize` bytes of each size, so that an idle
// connection can hold no buffer at all and yet nothing is allocated once the loop is warm. Any
// thread: senders take blocks too.
//
// When more was in use than is kept, and then all of it has come back, the kept ones are let go
// too: they lie scattered among what the burst took, and would keep the allocator from returning it
// to the system.
class BlockPool {
 public:
  static constexpr std::size_t kSmallest = 256;           // smaller requests get this
  static constexpr std::size_t kLargestKept = 256 << 10;  // larger blocks go straight back
  static constexpr std::size_t kKeptPerSize = 512 << 10;  // so 5.5 MiB in all

  BlockPool() = default;
  ~BlockPool();
  BlockPool(const BlockPool&) = delete;
  BlockPool& operator=(const BlockPool&) = delete;

  // What `Take(size)` really gives: the next power of two.
  static constexpr std::size_t BlockSize(std::size_t size) {
    return std::bit_ceil(size < kSmallest ? kSmallest : size);
  }

  // A block of `BlockSize(size)` bytes, or null when the allocation fails.
  void* Take(std::size_t size) noexcept XTCP_EXCLUDES(mu_);

  // Gives back a block; `size` as it was for `Take`.
  void Give(void* block, std::size_t size) noexcept XTCP_EXCLUDES(mu_);

 private:
  struct Free {
    Free* next;
  };
  // All blocks of one size.
  struct Class {
    Free* first = nullptr;
    std::size_t kept_bytes = 0;
    std::size_t used_bytes = 0;
    bool overflowed = false;  // some did not fit, since all were back
  };
  static constexpr std::size_t kClasses =
      static_cast<std::size_t>(std::countr_zero(kLargestKept) - std::countr_zero(kSmallest)) + 1;
  Class& ClassOf(std::size_t block_size) XTCP_REQUIRES(mu_) {
    const int index = std::countr_zero(block_size) - std::countr_zero(kSmallest);
    return classes_[static_cast<std::size_t>(index)];
  }
  static void Delete(Free* first);

  Mutex mu_;
  std::array<Class, kClasses> classes_ XTCP_GUARDED_BY(mu_);
};

}  // namespace xtcp::internal
