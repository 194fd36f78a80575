#pragma once

#include <functional>

namespace xtcp::test {

// A thread that a test holds ahead of each operation on what threads share: the atomics and locks of
// sync.h, and the system calls of fault_syscalls.cc. The operation happens when these return.
//
// Thread safety: called on the thread itself.
class HeldThread {
 public:
  // `operation` is for the reader of a failure.
  virtual void Step(const char* operation) = 0;

  // The same for one that must wait until `possible` holds, which changes nothing and takes no step.
  // When the test lets its threads go it returns although `possible` does not hold.
  virtual void StepWhen(const char* operation, const std::function<bool()>& possible) = 0;

  // Sleeps until somebody wakes those that sleep at `address`; false when the test has let its threads
  // go, so that nobody will.
  virtual bool SleepAt(const void* address) = 0;
  virtual void WakeAt(const void* address, bool all) = 0;

  // Lets others go first.
  virtual void Yield() = 0;

  // Null for a thread that nobody holds.
  static HeldThread* Current() { return current_; }

 protected:
  ~HeldThread() = default;
  static inline constinit thread_local HeldThread* current_ = nullptr;
};

}  // namespace xtcp::test
