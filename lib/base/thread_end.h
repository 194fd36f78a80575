#pragma once

#include <pthread.h>

#include <cstddef>  // __GLIBCXX__
#ifdef __GLIBCXX__
#include <cxxabi.h>
#endif

// Support for threads that end inside the library, by pthread_exit(3) or pthread_cancel(3).
namespace xtcp::internal {

// glibc unwinds the stack of such a thread with an exception that must not be swallowed. So each
// `catch (...)` has a handler for this one before it, which rethrows it.
#ifdef __GLIBCXX__
using ForcedUnwind = abi::__forced_unwind;
#else
struct ForcedUnwind {};  // never thrown
#endif

// Defers pthread_cancel(3) on this thread for as long as the object lives. It surrounds system
// calls in the middle of something that has to be finished.
class CancellationOff {
 public:
  CancellationOff() noexcept { ::pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, &before_); }
  ~CancellationOff() { ::pthread_setcancelstate(before_, nullptr); }
  CancellationOff(const CancellationOff&) = delete;
  CancellationOff& operator=(const CancellationOff&) = delete;

  // Allows it again for as long as this object lives, if it was allowed before.
  class Pause {
   public:
    explicit Pause(const CancellationOff& off) noexcept {
      ::pthread_setcancelstate(off.before_, nullptr);
    }
    ~Pause() { ::pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, nullptr); }
    Pause(const Pause&) = delete;
    Pause& operator=(const Pause&) = delete;
  };

 private:
  int before_ = PTHREAD_CANCEL_ENABLE;
};

}  // namespace xtcp::internal
