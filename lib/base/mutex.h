#pragma once

#include <condition_variable>
#include <mutex>

#include "base/thread_annotations.h"
#include "base/thread_end.h"
#include "sys/mutex.h"

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

// Holds a mutex for as long as it lives.
class XTCP_SCOPED_CAPABILITY MutexLock {
 public:
  explicit MutexLock(Mutex& mu) XTCP_ACQUIRE(mu) : mu_(mu) { mu_.Lock(); }
  ~MutexLock() XTCP_RELEASE() { mu_.Unlock(); }
  MutexLock(const MutexLock&) = delete;
  MutexLock& operator=(const MutexLock&) = delete;

 private:
  Mutex& mu_;
};

// A condition that threads wait for. It allocates nothing.
class CondVar {
 public:
  CondVar() = default;
  CondVar(const CondVar&) = delete;
  CondVar& operator=(const CondVar&) = delete;

  // Gives `mu` up, waits, takes it again. It may wake for no reason: call it in a loop. It is no
  // cancellation point (pthreads(7)).
  void Wait(Mutex& mu) XTCP_REQUIRES(mu) {
    const CancellationOff off;
    std::unique_lock<sys::Mutex> lock(mu.mu_, std::adopt_lock);
    condition_.wait(lock);
    lock.release();  // the caller's MutexLock unlocks it
  }

  void NotifyAll() { condition_.notify_all(); }

 private:
  std::condition_variable condition_;
};

}  // namespace xtcp::internal
