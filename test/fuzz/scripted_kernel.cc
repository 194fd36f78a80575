// The library's seam (lib/sys/syscalls.h) without a kernel: see scripted_kernel.h. Descriptors are
// numbers.

#include "fuzz/scripted_kernel.h"

#include <netinet/in.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <utility>

#include "sys/syscalls.h"

namespace xtcp::test {
ScriptedKernel scripted_kernel;
}  // namespace xtcp::test

namespace xtcp::sys {
namespace {

using test::scripted_kernel;

enum : int { kEpollFd = 1000, kEventFd, kListenerFd, kClientFd };

// What is watched.
struct Watched {
  void* mark = nullptr;
  std::uint32_t events = 0;
};
Watched listener, client, wake_up;
bool client_came = false;
bool woken = false;
std::size_t reads = 0;
std::size_t writes = 0;

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

// How many of `most` bytes the next call takes, by its script.
std::size_t Next(const std::vector<std::uint8_t>& script, std::size_t& calls, std::size_t most) {
  if (script.empty()) return most;
  return std::min<std::size_t>(most, script[calls++ % script.size()]);
}

ssize_t Take(const void* bytes, std::size_t size) {
  const std::size_t n = Next(scripted_kernel.writes, writes, size);
  if (n == 0) return Fail(EAGAIN);
  scripted_kernel.sent.append(static_cast<const char*>(bytes), n);
  return static_cast<ssize_t>(n);
}

}  // namespace

int Socket(int, int, int) {
  listener = client = wake_up = {};
  client_came = woken = false;
  reads = writes = 0;
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
  std::span<const std::byte>& stream = scripted_kernel.stream;
  if (stream.empty()) return scripted_kernel.resets ? Fail(ECONNRESET) : 0;
  const std::size_t n = Next(scripted_kernel.reads, reads, std::min(size, stream.size()));
  if (n == 0) return Fail(EAGAIN);
  std::memcpy(buffer, stream.data(), n);
  stream = stream.subspan(n);
  return static_cast<ssize_t>(n);
}
ssize_t Send(int, const void* buffer, std::size_t size, int) { return Take(buffer, size); }
ssize_t SendMsg(int, const msghdr* message, int) {
  // The first part alone: a short count like any other.
  return Take(message->msg_iov[0].iov_base, message->msg_iov[0].iov_len);
}
int IoctlOutq(int, int* bytes) {
  *bytes = 0;
  return 0;
}
int FcntlGet(int, int) { return 0; }
int FcntlSet(int, int, int) { return 0; }

int EpollCreate() { return kEpollFd; }
int EpollCtl(int, int operation, int fd, epoll_event* event) {
  Watched& watched = fd == kListenerFd ? listener : fd == kClientFd ? client : wake_up;
  watched = operation == EPOLL_CTL_DEL ? Watched{} : Watched{event->data.ptr, event->events};
  return 0;
}
int EpollWait(int, epoll_event* events, int, int timeout_ms) {
  int count = 0;
  if (listener.mark != nullptr && !client_came) {
    events[count].events = EPOLLIN;
    events[count++].data.ptr = listener.mark;
  }
  if (client.mark != nullptr && (client.events & (EPOLLIN | EPOLLOUT)) != 0) {
    events[count].events = client.events & (EPOLLIN | EPOLLOUT);
    events[count++].data.ptr = client.mark;
  }
  if (count > 0 || std::exchange(woken, false) || timeout_ms >= 0) return count;
  scripted_kernel.stuck = true;
  return Fail(EBADF);  // so that it ends
}
int EventFd() { return kEventFd; }
ssize_t Write(int, const void*, std::size_t size) {
  woken = true;
  return static_cast<ssize_t>(size);
}

int Lstat(const char*, struct stat*) { return Fail(ENOENT); }
int Fstat(int, struct stat*) { return Fail(ENOENT); }
int Unlink(const char*) { return 0; }
int OpenFile(const char*, int, mode_t) { return Fail(ENOENT); }
int Flock(int, int) { return 0; }
int GetRlimit(int, rlimit* limit) {
  limit->rlim_cur = limit->rlim_max = 1024;
  return 0;
}
int AvailableProcessors() { return 1; }

// A name that begins with a digit is a number or none; any other one stands for 127.0.0.1.
int GetAddrInfo(const char* node, const char* service, const addrinfo* hints, addrinfo** result) {
  if (node != nullptr && (hints->ai_flags & AI_NUMERICHOST) == 0) {
    addrinfo numeric = *hints;
    numeric.ai_flags |= AI_NUMERICHOST;
    const int error = ::getaddrinfo(node, service, &numeric, result);
    if (error != EAI_NONAME || (*node >= '0' && *node <= '9')) return error;
    return ::getaddrinfo("127.0.0.1", service, &numeric, result);
  }
  return ::getaddrinfo(node, service, hints, result);
}
void FreeAddrInfo(addrinfo* list) { ::freeaddrinfo(list); }

std::chrono::nanoseconds Now() { return std::chrono::hours(1); }
void WaitWhile(const Atomic<std::uint32_t>&, std::uint32_t) {}  // there is one thread
void NotifyOne(Atomic<std::uint32_t>&) {}
void NotifyAll(Atomic<std::uint32_t>&) {}
void Yield() {}
std::error_code StartThread(std::string, std::function<void()>, std::thread*) {
  return std::make_error_code(std::errc::resource_unavailable_try_again);
}

}  // namespace xtcp::sys
