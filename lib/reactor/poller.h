#pragma once

#include <sys/epoll.h>

#include <span>
#include <system_error>

#include "socket/unique_fd.h"

namespace xtcp::internal {

// epoll(7), level-triggered, with a pointer as each descriptor's mark. Errors are values; EINTR is
// none.
class Poller {
 public:
  std::error_code Open();
  void Close() { fd_.Reset(); }
  int fd() const { return fd_.get(); }

  std::error_code Add(int fd, std::uint32_t events, void* mark);
  std::error_code Modify(int fd, std::uint32_t events, void* mark);
  void Remove(int fd);  // ENOENT, EBADF: it is gone already

  // Waits for `timeout_ms` at most, -1 for ever. How many of `events` are filled in, 0 also for a
  // signal; -1 with `error` set when epoll itself is broken.
  int Wait(std::span<epoll_event> events, int timeout_ms, std::error_code* error);

 private:
  std::error_code Control(int operation, int fd, std::uint32_t events, void* mark);
  UniqueFd fd_;
};

}  // namespace xtcp::internal
