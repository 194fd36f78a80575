#pragma once

#include <pthread.h>

#include <cstddef>  // __GLIBCXX__
#ifdef __GLIBCXX__
#include <cxxabi.h>
#endif

// What becomes of a thread that ends inside the library, by pthread_exit(3) or pthread_cancel(3).
namespace xtcp::internal {

// glibc unwinds the stack of such a thread with an exception that nobody may swallow: a handler for
// everything has one for this before it, which throws on.
#ifdef __GLIBCXX__
using ForcedUnwind = abi::__forced_unwind;
#else
struct ForcedUnwind {};  // never thrown
#endif

// Puts off pthread_cancel(3) on this thread for as long as it lives: around system calls in the
// middle of something that has to be finished.
class CancellationOff {
 public:
  CancellationOff() noexcept { ::pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, &before_); }
  ~CancellationOff() { ::pthread_setcancelstate(before_, nullptr); }
  CancellationOff(const CancellationOff&) = delete;
  CancellationOff& operator=(const CancellationOff&) = delete;

  // Lets it happen for as long as this lives, if it could before.
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
