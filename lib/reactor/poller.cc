#include "reactor/poller.h"

#include <cerrno>

#include "sys/syscalls.h"

namespace xtcp::internal {

std::error_code Poller::Open() {
  fd_ = UniqueFd(sys::EpollCreate());
  if (!fd_.valid()) return {errno, std::system_category()};
  return {};
}

std::error_code Poller::Add(int fd, std::uint32_t events, void* mark) {
  return Control(EPOLL_CTL_ADD, fd, events, mark);
}

std::error_code Poller::Modify(int fd, std::uint32_t events, void* mark) {
  return Control(EPOLL_CTL_MOD, fd, events, mark);
}

void Poller::Remove(int fd) { Control(EPOLL_CTL_DEL, fd, 0, nullptr); }

int Poller::Wait(std::span<epoll_event> events, int timeout_ms, std::error_code* error) {
  const int n =
      sys::EpollWait(fd_.get(), events.data(), static_cast<int>(events.size()), timeout_ms);
  if (n >= 0) return n;
  if (errno == EINTR) return 0;
  *error = {errno, std::system_category()};
  return -1;
}

std::error_code Poller::Control(int operation, int fd, std::uint32_t events, void* mark) {
  epoll_event event{};
  event.events = events;
  event.data.ptr = mark;
  if (sys::EpollCtl(fd_.get(), operation, fd, &event) == 0) return {};
  return {errno, std::system_category()};
}

}  // namespace xtcp::internal
