// The library's seam (lib/sys/syscalls.h) without a kernel behind it, so that what is measured is
// the library. It plays one server with one client; see no_kernel.h. Descriptors are numbers.

#include "micro/no_kernel.h"

#include <netinet/in.h>
#include <sched.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <ctime>
#include <string>

#include "sys/syscalls.h"

namespace bench {
NoKernel no_kernel;
}  // namespace bench

namespace xtcp::sys {
namespace {

enum : int { kEpollFd = 1000, kEventFd, kListenerFd, kClientFd };

void* listener_mark = nullptr;
void* client_mark = nullptr;
bool client_came = false;

int Fail(int error) {
  errno = error;
  return -1;
}

int GiveAddress(sockaddr* address, socklen_t* size) {
  sockaddr_in loopback{};
  loopback.sin_family = AF_INET;
  loopback.sin_port = 1;
  loopback.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  std::memcpy(address, &loopback, std::min<std::size_t>(*size, sizeof loopback));
  *size = sizeof loopback;
  return 0;
}

}  // namespace

int Socket(int, int, int) {
  client_came = false;
  return kListenerFd;
}
int Bind(int, const sockaddr*, socklen_t) { return 0; }
int Listen(int, int) { return 0; }
int Connect(int, const sockaddr*, socklen_t) { return Fail(ECONNREFUSED); }
int Accept4(int, sockaddr* address, socklen_t* size, int) {
  if (client_came) return Fail(EAGAIN);
  client_came = true;
  GiveAddress(address, size);
  return kClientFd;
}
int GetSockName(int, sockaddr* address, socklen_t* size) { return GiveAddress(address, size); }
int GetPeerName(int, sockaddr* address, socklen_t* size) { return GiveAddress(address, size); }
int SetSockOpt(int, int, int, const void*, socklen_t) { return 0; }
int GetSockOpt(int, int, int, void* value, socklen_t* size) {
  std::memset(value, 0, *size);
  return 0;
}
int Shutdown(int, int) { return 0; }
int Close(int) { return 0; }

ssize_t Recv(int, void* buffer, std::size_t size, int) {
  if (bench::no_kernel.times == 0) return 0;
  --bench::no_kernel.times;
  const std::size_t n = std::min(size, bench::no_kernel.input.size());
  std::memcpy(buffer, bench::no_kernel.input.data(), n);
  return static_cast<ssize_t>(n);
}
ssize_t Send(int, const void*, std::size_t size, int) {
  bench::no_kernel.sent_bytes += size;
  return static_cast<ssize_t>(size);
}
ssize_t SendMsg(int, const msghdr* message, int) {
  std::size_t size = 0;
  for (std::size_t i = 0; i < message->msg_iovlen; ++i) size += message->msg_iov[i].iov_len;
  bench::no_kernel.sent_bytes += size;
  return static_cast<ssize_t>(size);
}
int IoctlOutq(int, int* bytes) {
  *bytes = 0;
  return 0;
}
int FcntlGet(int, int) { return 0; }
int FcntlSet(int, int, int) { return 0; }

int EpollCreate() { return kEpollFd; }
int EpollCtl(int, int operation, int fd, epoll_event* event) {
  void* const mark = operation == EPOLL_CTL_DEL ? nullptr : event->data.ptr;
  if (fd == kListenerFd) listener_mark = mark;
  if (fd == kClientFd) client_mark = mark;
  return 0;
}
int EpollWait(int, epoll_event* events, int, int) {
  void* const mark = client_mark != nullptr ? client_mark : listener_mark;
  if (mark == nullptr) return 0;
  events[0].events = EPOLLIN;
  events[0].data.ptr = mark;
  return 1;
}
int EventFd() { return kEventFd; }
ssize_t Write(int, const void*, std::size_t size) {
  ++bench::no_kernel.wakes;
  return static_cast<ssize_t>(size);
}

ssize_t WriteInHandler(int, const void*, std::size_t size) { return static_cast<ssize_t>(size); }
int SigAction(int, const struct sigaction*, struct sigaction*) { return 0; }
pid_t GetPid() { return 1; }
int Kill(pid_t, int) { return 0; }
int SigMask(int, const sigset_t*, sigset_t*) { return 0; }

int Lstat(const char*, struct stat*) { return Fail(ENOENT); }
void WaitWhile(const std::atomic<std::uint32_t>&, std::uint32_t) {}
void NotifyOne(std::atomic<std::uint32_t>&) {}
void NotifyAll(std::atomic<std::uint32_t>&) {}
int Unlink(const char*) { return 0; }
int Fstat(int, struct stat*) { return -1; }
int OpenFile(const char*, int, mode_t) { return -1; }
int Flock(int, int) { return 0; }
int GetRlimit(int, rlimit* limit) {
  limit->rlim_cur = limit->rlim_max = 1024;
  return 0;
}
int AvailableProcessors() { return 1; }
int GetAddrInfo(const char*, const char*, const addrinfo*, addrinfo**) { return EAI_FAIL; }
void FreeAddrInfo(addrinfo*) {}

std::chrono::nanoseconds Now() {
  timespec now{};
  clock_gettime(CLOCK_MONOTONIC, &now);
  return std::chrono::seconds(now.tv_sec) + std::chrono::nanoseconds(now.tv_nsec);
}
void Yield() { sched_yield(); }
std::error_code StartThread(std::string, std::function<void()>, std::thread*) {
  return std::make_error_code(std::errc::resource_unavailable_try_again);
}

}  // namespace xtcp::sys
