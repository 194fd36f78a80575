#pragma once

#include <array>
#include <bit>
#include <cstddef>

#include "base/mutex.h"
#include "base/thread_annotations.h"

namespace xtcp::internal {

// Memory for the buffers of one loop's connections, in blocks of a power of two bytes. Freed blocks
// are kept for the next connection, so that an idle connection can hold no buffer at all and yet
// nothing is allocated once the loop is warm.
//
// How many blocks of a size are kept follows how many are used. If more were in use than are kept,
// and then all of them come back, the kept ones are freed as well: they lie scattered among those
// that the burst took, and would stop the allocator from returning that memory to the system. Twice
// as many may be kept after the next burst, so that one that comes again and again soon costs no
// allocation, and a few less after each burst that did not need half of them.
//
// Thread safety: any thread, since senders take blocks too.
class BlockPool {
 public:
  static constexpr std::size_t kSmallest = 256;           // smaller requests get this much
  static constexpr std::size_t kLargestKept = 256 << 10;  // larger blocks are freed at once

  // Bytes that are kept: of each size, if so much was used; and at most, of one size and, beyond
  // the former, of all together.
  static constexpr std::size_t kLeastKept = 512 << 10;
  static constexpr std::size_t kMostKept = 4 << 20;

  BlockPool() = default;
  ~BlockPool();
  BlockPool(const BlockPool&) = delete;
  BlockPool& operator=(const BlockPool&) = delete;

  // The size of the block that `Take(size)` returns: the next power of two.
  static constexpr std::size_t BlockSize(std::size_t size) {
    return std::bit_ceil(size < kSmallest ? kSmallest : size);
  }

  // Returns a block of `BlockSize(size)` bytes, or null when the allocation fails.
  void* Take(std::size_t size) noexcept XTCP_EXCLUDES(mu_);

  // Gives back a block. `size` is what it was for `Take`.
  void Give(void* block, std::size_t size) noexcept XTCP_EXCLUDES(mu_);

  // Frees all blocks that are kept.
  void Trim() noexcept XTCP_EXCLUDES(mu_);

 private:
  struct Free {
    Free* next;
  };
  // The blocks of one size.
  struct Class {
    Free* first = nullptr;
    std::size_t kept_bytes = 0;
    std::size_t used_bytes = 0;
    std::size_t peak_bytes = 0;      // of used_bytes, since the last time that all were back
    std::size_t limit = kLeastKept;  // of kept_bytes
  };
  static constexpr std::size_t kClasses =
      static_cast<std::size_t>(std::countr_zero(kLargestKept) - std::countr_zero(kSmallest)) + 1;

  // Returns the class of blocks of this size, a power of two from kSmallest to kLargestKept.
  Class& ClassOf(std::size_t block_size) XTCP_REQUIRES(mu_) {
    const int index = std::countr_zero(block_size) - std::countr_zero(kSmallest);
    return classes_[static_cast<std::size_t>(index)];
  }

  // Learns from a burst whose blocks have all come back, and returns those that are to be freed.
  Free* EndBurst(Class& blocks) XTCP_REQUIRES(mu_);

  // Frees a list of blocks. It takes long, so no lock is held.
  static void Delete(Free* first);

  SmallMutex mu_;
  std::array<Class, kClasses> classes_ XTCP_GUARDED_BY(mu_);
  std::size_t kept_bytes_ XTCP_GUARDED_BY(mu_) = 0;  // of all sizes
};

}  // namespace xtcp::internal
