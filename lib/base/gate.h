#pragma once

#include <atomic>
#include <cstdint>

#include "base/mutex.h"

namespace xtcp::internal {

// Counts who is inside, until it is closed: then nobody new gets in, and the closer waits for those
// who are. Enter and Leave are one atomic operation each; only the last one out of a closed gate
// takes the lock. It allocates nothing.
//
// Thread safety: any thread. Lifetime: it may be destroyed as soon as `CloseAndWait` has returned;
// who calls `Enter` keeps it alive by other means.
class Gate {
 public:
  Gate() = default;
  Gate(const Gate&) = delete;
  Gate& operator=(const Gate&) = delete;

  // False once the gate is closed; nothing has changed then. Each true is paid with one `Leave`.
  [[nodiscard]] bool Enter() noexcept;
  void Leave() noexcept;

  // Closes, and returns when the last one has left: what they did inside happened before. Any
  // number of times, from any number of threads, none of which is inside.
  void CloseAndWait() noexcept XTCP_EXCLUDES(mu_);

 private:
  void Drain() noexcept XTCP_EXCLUDES(mu_);

  static constexpr std::uint64_t kClosed = std::uint64_t{1} << 63;
  static constexpr std::uint64_t kOne = 1;

  std::atomic<std::uint64_t> state_{0};  // kClosed and how many are inside
  Mutex mu_;
  CondVar drained_changed_;
  bool drained_ XTCP_GUARDED_BY(mu_) = false;
};

}  // namespace xtcp::internal
