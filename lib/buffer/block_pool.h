#pragma once

#include <array>
#include <bit>
#include <cstddef>

#include "base/mutex.h"
#include "base/thread_annotations.h"

namespace xtcp::internal {

// Memory for the buffers of one loop's connections: blocks of a power of two bytes. Freed blocks
// are kept for the next connection, up to `kKeptPerSize` bytes of each size, so that an idle connection can hold no
// buffer at all and yet nothing is allocated once the loop is warm. Any thread: senders take blocks
// too.
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
  static constexpr std::size_t kClasses =
      static_cast<std::size_t>(std::countr_zero(kLargestKept) - std::countr_zero(kSmallest)) + 1;
  static std::size_t ClassOf(std::size_t block_size) {
    return static_cast<std::size_t>(std::countr_zero(block_size) - std::countr_zero(kSmallest));
  }

  Mutex mu_;
  std::array<Free*, kClasses> free_ XTCP_GUARDED_BY(mu_){};
  std::array<std::size_t, kClasses> kept_bytes_ XTCP_GUARDED_BY(mu_){};
};

}  // namespace xtcp::internal
