#pragma once

#include <sys/epoll.h>

#include <span>
#include <system_error>

#include "socket/unique_fd.h"

namespace xtcp::internal {

// epoll(7), level-triggered unless asked otherwise, with a pointer as each descriptor's mark.
// Errors are values; EINTR is not an error.
//
// Loop thread only.
class Poller {
 public:
  // Makes the epoll instance.
  std::error_code Open();
  void Close() { fd_.Reset(); }
  int fd() const { return fd_.get(); }

  // Watches a descriptor, and changes what is watched (epoll_ctl(2)).
  std::error_code Add(int fd, std::uint32_t events, void* mark);
  std::error_code Modify(int fd, std::uint32_t events, void* mark);

  // Forgets a descriptor. An error (ENOENT, EBADF) would mean that it is gone already.
  void Remove(int fd);

  // Waits for `timeout_ms` at most, -1 for ever. Returns how many of `events` it has filled in,
  // which is 0 when a signal interrupts it, or -1 with `*error` set when epoll itself is broken.
  int Wait(std::span<epoll_event> events, int timeout_ms, std::error_code* error);

 private:
  // Calls epoll_ctl(2).
  std::error_code Control(int operation, int fd, std::uint32_t events, void* mark);
  UniqueFd fd_;
};

}  // namespace xtcp::internal
