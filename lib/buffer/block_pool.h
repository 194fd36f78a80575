#pragma once

#include <array>
#include <bit>
#include <cstddef>

#include "base/mutex.h"
#include "base/thread_annotations.h"

namespace xtcp::internal {

// Memory for the buffers of one loop's connections: blocks of a power of two bytes. Freed blocks
// are kept for the next connection, so that an idle connection can hold no buffer at all and yet
// nothing is allocated once the loop is warm. Any thread: senders take blocks too.
//
// How much is kept of a size follows what is used. When more was in use than is kept, and then all of
// it has come back, the kept ones are let go too: they lie scattered among what the burst took, and
// would keep the allocator from returning it to the system. But more may be kept after the next burst,
// so that one that comes again and again soon costs no allocation; and a little less after each that
// did not need half of it.
class BlockPool {
 public:
  static constexpr std::size_t kSmallest = 256;           // smaller requests get this
  static constexpr std::size_t kLargestKept = 256 << 10;  // larger blocks go straight back
  static constexpr std::size_t kLeastKept = 512 << 10;    // of each size, if so much was used
  static constexpr std::size_t kMostKept = 4 << 20;  // of one size; of all, but for those above

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

  // Lets go of all that is kept.
  void Trim() noexcept XTCP_EXCLUDES(mu_);

 private:
  struct Free {
    Free* next;
  };
  // All blocks of one size.
  struct Class {
    Free* first = nullptr;
    std::size_t kept_bytes = 0;
    std::size_t used_bytes = 0;
    std::size_t peak_bytes = 0;      // of used_bytes, since all were back the last time
    std::size_t limit = kLeastKept;  // of kept_bytes
  };
  static constexpr std::size_t kClasses =
      static_cast<std::size_t>(std::countr_zero(kLargestKept) - std::countr_zero(kSmallest)) + 1;
  Class& ClassOf(std::size_t block_size) XTCP_REQUIRES(mu_) {
    const int index = std::countr_zero(block_size) - std::countr_zero(kSmallest);
    return classes_[static_cast<std::size_t>(index)];
  }
  Free* EndBurst(Class& blocks) XTCP_REQUIRES(mu_);
  static void Delete(Free* first);

  Mutex mu_;
  std::array<Class, kClasses> classes_ XTCP_GUARDED_BY(mu_);
  std::size_t kept_bytes_ XTCP_GUARDED_BY(mu_) = 0;  // of all sizes
};

}  // namespace xtcp::internal
