#pragma once

#include <sys/epoll.h>

#include <cerrno>
#include <cstddef>
#include <cstdint>

#include "support/fault_control.h"

// What fault_syscalls.cc asks, call by call, of the plan and the clock that fault_control.h lets tests
// set.
namespace xtcp::test {

// What to do with one call.
struct Verdict {
  int error = 0;
  bool after_call = false;
  std::size_t max_bytes = 0;
  bool fake = false;

  bool fails_before() const { return error != 0 && !after_call; }
};

// Counts the call and says what to do with it.
Verdict Judge(Site site, int fd = Fault::kAny, int operation = Fault::kAny, std::size_t size = 0);

// Carries the verdict out around a call that gives -1 and errno.
template <typename Call>
auto Make(const Verdict& verdict, Call call) -> decltype(call()) {
  if (verdict.fails_before()) {
    errno = verdict.error;
    return -1;
  }
  const auto result = call();
  if (verdict.error == 0) return result;
  errno = verdict.error;
  return -1;
}

// Descriptors below this are kept books of.
inline constexpr std::size_t kDescriptors = 1 << 16;

// The descriptor is closed: what the seeded faults know of it is over.
void ForgetShortage(int fd);

// Whether a VirtualClock lives; then the time, else the system's.
bool ClockIsVirtual();
std::chrono::nanoseconds TimeNow();

// Waits for events, or until the virtual clock passes the timeout.
int VirtualWait(int epoll_fd, epoll_event* events, int max_events, int timeout_ms);

// For `VirtualClock::Settle`: a loop begins, and ends.
void NoteLoop(int epoll_fd);
void NoteLoopGone(int epoll_fd);

}  // namespace xtcp::test
