#include "base/mutex.h"

namespace xtcp::internal {

void SmallMutex::LockSlowly() {
  for (int i = 0; i < sys::kLooksAtLock; ++i) {
    std::uint32_t state = kFree;
    if (state_.load(std::memory_order_relaxed) == kFree &&
        state_.compare_exchange_weak(state, kLocked, std::memory_order_acquire)) {
      return;
    }
    sys::Relax();
  }
  // It is taken as one that others wait for, since this thread cannot know whether any still do.
  while (state_.exchange(kWaitedFor, std::memory_order_acquire) != kFree) {
    sys::WaitWhile(state_, kWaitedFor);
  }
}

}  // namespace xtcp::internal
