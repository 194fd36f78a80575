#pragma once

#include <cstdint>

#include "base/mutex.h"
#include "sys/sync.h"

namespace xtcp::internal {

// Counts the threads that are inside. Once it is closed no other gets in, and the thread that
// closes it waits for those inside. Enter and Leave are one atomic operation each; only the last
// thread to leave a closed gate takes the lock. It allocates nothing.
//
// Thread safety: any thread.
// Lifetime: it may be destroyed as soon as `CloseAndWait` has returned. A thread that calls `Enter`
// keeps it alive by other means.
class Gate {
 public:
  Gate() = default;
  Gate(const Gate&) = delete;
  Gate& operator=(const Gate&) = delete;

  // Returns false once the gate is closed; then nothing has changed. Each `Enter` that returned
  // true is followed by one `Leave`.
  [[nodiscard]] bool Enter() noexcept;
  void Leave() noexcept;

  // Closes the gate, and returns when the last thread has left. What those threads did inside
  // happens before the return. It may be called any number of times, and by any number of threads,
  // none of which may be inside.
  void CloseAndWait() noexcept XTCP_EXCLUDES(mu_);

 private:
  // Tells the threads that wait in `CloseAndWait` that nobody is inside any more.
  void Drain() noexcept XTCP_EXCLUDES(mu_);

  static constexpr std::uint64_t kClosed = std::uint64_t{1} << 63;
  static constexpr std::uint64_t kOne = 1;

  sys::Atomic<std::uint64_t> state_{0};  // kClosed, and how many threads are inside
  Mutex mu_;
  CondVar drained_changed_;
  bool drained_ XTCP_GUARDED_BY(mu_) = false;
};

}  // namespace xtcp::internal
