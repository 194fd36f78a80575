#include "base/mutex.h"

namespace xtcp::internal {

void SmallMutex::LockSlowly() {
  // The holder is nearly always about to leave.
  constexpr int kLooks = 100;
  for (int i = 0; i < kLooks; ++i) {
    std::uint32_t state = kFree;
    if (state_.load(std::memory_order_relaxed) == kFree &&
        state_.compare_exchange_weak(state, kLocked, std::memory_order_acquire)) {
      return;
    }
    sys::Relax();
  }
  // Locked as one that is waited for: whether others still wait is not known.
  while (state_.exchange(kWaitedFor, std::memory_order_acquire) != kFree) {
    sys::WaitWhile(state_, kWaitedFor);
  }
}

}  // namespace xtcp::internal
