#include "base/gate.h"

#include "base/check.h"

namespace xtcp::internal {

bool Gate::Enter() noexcept {
  // Compare and exchange rather than add and take back: callers who are refused must not keep the
  // count up, or enough of them would keep the closer waiting.
  std::uint64_t state = state_.load(std::memory_order_acquire);
  while ((state & kClosed) == 0) {
    if (state_.compare_exchange_weak(state, state + kOne, std::memory_order_acquire)) return true;
  }
  return false;
}

void Gate::Leave() noexcept {
  // Release hands on what was done inside; acquire collects it from those who left earlier, so that
  // the last one hands on everything.
  const std::uint64_t before = state_.fetch_sub(kOne, std::memory_order_acq_rel);
  XTCP_DCHECK((before & ~kClosed) != 0, "Gate::Leave without Enter");
  if (before == (kClosed | kOne)) Drain();
}

void Gate::CloseAndWait() noexcept {
  if (state_.fetch_or(kClosed, std::memory_order_acq_rel) == 0) Drain();
  MutexLock lock(mu_);
  while (!drained_) drained_changed_.Wait(mu_);
}

// The closer waits for a flag under the lock, not for the count: the count may reach 0 before the
// one who took it there has stopped touching this object, which the closer may destroy.
void Gate::Drain() noexcept {
  MutexLock lock(mu_);
  drained_ = true;
  drained_changed_.NotifyAll();
}

}  // namespace xtcp::internal
