#pragma once

#include <cstdint>
#include <mutex>

#include "base/check.h"
#include "base/thread_annotations.h"
#include "base/thread_end.h"
#include "sys/sync.h"
#include "sys/syscalls.h"

namespace xtcp::internal {

// The standard mutex with the attributes that libstdc++ leaves out, for clang's analysis.
class XTCP_CAPABILITY("mutex") Mutex {
 public:
  Mutex() = default;
  Mutex(const Mutex&) = delete;
  Mutex& operator=(const Mutex&) = delete;

  void Lock() XTCP_ACQUIRE() { mu_.lock(); }
  void Unlock() XTCP_RELEASE() { mu_.unlock(); }

 private:
  friend class CondVar;
  sys::Mutex mu_;
};

// A mutex of 4 bytes instead of 40, for objects of which there are thousands. It does not work with
// a CondVar, and must be held for a short time only.
//
// The states and their order are those of Ulrich Drepper, "Futexes Are Tricky", section 5: a thread
// that has to wait says so, and only then does an unlock cost a system call.
class XTCP_CAPABILITY("mutex") SmallMutex {
 public:
  SmallMutex() = default;
  SmallMutex(const SmallMutex&) = delete;
  SmallMutex& operator=(const SmallMutex&) = delete;

  void Lock() XTCP_ACQUIRE() {
    std::uint32_t state = kFree;
    if (!state_.compare_exchange_strong(state, kLocked, std::memory_order_acquire)) LockSlowly();
  }
  void Unlock() XTCP_RELEASE() {
    const std::uint32_t before = state_.exchange(kFree, std::memory_order_release);
    XTCP_DCHECK(before != kFree, "a mutex is unlocked that nobody has locked");
    if (before == kWaitedFor) sys::NotifyOne(state_);
  }

 private:
  enum : std::uint32_t { kFree, kLocked, kWaitedFor };

  // Spins for a while, then sleeps until the mutex is free.
  void LockSlowly();

  sys::Atomic<std::uint32_t> state_{kFree};
};

// Holds a mutex for as long as it lives.
template <typename AnyMutex>
class XTCP_SCOPED_CAPABILITY MutexLock {
 public:
  explicit MutexLock(AnyMutex& mu) XTCP_ACQUIRE(mu) : mu_(mu) { mu_.Lock(); }
  ~MutexLock() XTCP_RELEASE() { mu_.Unlock(); }
  MutexLock(const MutexLock&) = delete;
  MutexLock& operator=(const MutexLock&) = delete;

 private:
  AnyMutex& mu_;
};

// A condition variable. It allocates nothing.
class CondVar {
 public:
  CondVar() = default;
  CondVar(const CondVar&) = delete;
  CondVar& operator=(const CondVar&) = delete;

  // Releases `mu`, waits, and takes it again. It may return for no reason, so call it in a loop. It
  // is not a cancellation point (pthreads(7)).
  void Wait(Mutex& mu) XTCP_REQUIRES(mu) {
    const CancellationOff off;
    std::unique_lock<sys::Mutex> lock(mu.mu_, std::adopt_lock);
    condition_.wait(lock);
    lock.release();  // the caller's MutexLock unlocks it
  }

  void NotifyAll() { condition_.notify_all(); }

 private:
  sys::ConditionVariable condition_;
};

}  // namespace xtcp::internal
