#include "base/gate.h"

#include "base/check.h"

namespace xtcp::internal {

bool Gate::Enter() noexcept {
  // It compares and exchanges instead of adding and taking back: threads that are refused must not
  // raise the count, or enough of them could keep the closing thread waiting for ever.
  std::uint64_t state = state_.load(std::memory_order_acquire);
  while ((state & kClosed) == 0) {
    if (state_.compare_exchange_weak(state, state + kOne, std::memory_order_acquire)) return true;
  }
  return false;
}

void Gate::Leave() noexcept {
  // Release publishes what this thread did inside. Acquire collects what the threads that left
  // earlier did, so that the last one publishes everything.
  const std::uint64_t before = state_.fetch_sub(kOne, std::memory_order_acq_rel);
  XTCP_DCHECK((before & ~kClosed) != 0, "Gate::Leave without Enter");
  if (before == (kClosed | kOne)) Drain();
}

void Gate::CloseAndWait() noexcept {
  if (state_.fetch_or(kClosed, std::memory_order_acq_rel) == 0) Drain();
  MutexLock lock(mu_);
  while (!drained_) drained_changed_.Wait(mu_);
}

// `CloseAndWait` waits for a flag under the lock, and not for the count: the count may reach 0
// before the thread that took it there has stopped touching this object, which is then destroyed.
void Gate::Drain() noexcept {
  MutexLock lock(mu_);
  drained_ = true;
  drained_changed_.NotifyAll();
}

}  // namespace xtcp::internal
