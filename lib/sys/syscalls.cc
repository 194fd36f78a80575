#include "sys/syscalls.h"

#include <fcntl.h>
#include <linux/sockios.h>
#include <sched.h>
#include <sys/eventfd.h>
#include <sys/file.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <unistd.h>

#include <cerrno>
#include <csignal>
#include <new>
#include <utility>

namespace xtcp::sys {

int Socket(int domain, int type, int protocol) { return ::socket(domain, type, protocol); }
int Bind(int fd, const sockaddr* address, socklen_t size) { return ::bind(fd, address, size); }
int Listen(int fd, int backlog) { return ::listen(fd, backlog); }
int Connect(int fd, const sockaddr* address, socklen_t size) {
  return ::connect(fd, address, size);
}
int Accept4(int fd, sockaddr* address, socklen_t* size, int flags) {
  return ::accept4(fd, address, size, flags);
}
int GetSockName(int fd, sockaddr* address, socklen_t* size) {
  return ::getsockname(fd, address, size);
}
int GetPeerName(int fd, sockaddr* address, socklen_t* size) {
  return ::getpeername(fd, address, size);
}
int SetSockOpt(int fd, int level, int name, const void* value, socklen_t size) {
  return ::setsockopt(fd, level, name, value, size);
}
int GetSockOpt(int fd, int level, int name, void* value, socklen_t* size) {
  return ::getsockopt(fd, level, name, value, size);
}
int Shutdown(int fd, int how) { return ::shutdown(fd, how); }
int Close(int fd) { return ::close(fd); }

ssize_t Recv(int fd, void* buffer, std::size_t size, int flags) {
  return ::recv(fd, buffer, size, flags);
}
ssize_t Send(int fd, const void* buffer, std::size_t size, int flags) {
  return ::send(fd, buffer, size, flags);
}
ssize_t SendMsg(int fd, const msghdr* message, int flags) { return ::sendmsg(fd, message, flags); }
int IoctlOutq(int fd, int* bytes) { return ::ioctl(fd, SIOCOUTQ, bytes); }
int FcntlGet(int fd, int command) { return ::fcntl(fd, command); }
int FcntlSet(int fd, int command, int flags) { return ::fcntl(fd, command, flags); }

int EpollCreate() { return ::epoll_create1(EPOLL_CLOEXEC); }
int EpollCtl(int epoll_fd, int operation, int fd, epoll_event* event) {
  return ::epoll_ctl(epoll_fd, operation, fd, event);
}
int EpollWait(int epoll_fd, epoll_event* events, int max_events, int timeout_ms) {
  return ::epoll_wait(epoll_fd, events, max_events, timeout_ms);
}
int EventFd() { return ::eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC); }
ssize_t Write(int fd, const void* buffer, std::size_t size) { return ::write(fd, buffer, size); }

ssize_t WriteInHandler(int fd, const void* buffer, std::size_t size) {
  return ::write(fd, buffer, size);
}
int SigAction(int signal, const struct sigaction* action, struct sigaction* before) {
  return ::sigaction(signal, action, before);
}
pid_t GetPid() { return ::getpid(); }
int Kill(pid_t process, int signal) { return ::kill(process, signal); }
int SigMask(int how, const sigset_t* set, sigset_t* before) {
  return ::pthread_sigmask(how, set, before);
}

int Lstat(const char* path, struct stat* status) { return ::lstat(path, status); }
int Fstat(int fd, struct stat* status) { return ::fstat(fd, status); }
int Unlink(const char* path) { return ::unlink(path); }
int OpenFile(const char* path, int flags, mode_t mode) { return ::open(path, flags, mode); }
int Flock(int fd, int operation) { return ::flock(fd, operation); }
// The type of the first parameter is the C library's: glibc has an enumeration, musl an int.
int GetRlimit(int resource, rlimit* limit) {
  return ::getrlimit(static_cast<decltype(RLIMIT_NOFILE)>(resource), limit);
}
int AvailableProcessors() {
  cpu_set_t set;
  if (::sched_getaffinity(0, sizeof set, &set) != 0) return 1;
  const int count = CPU_COUNT(&set);
  return count > 0 ? count : 1;
}

int GetAddrInfo(const char* node, const char* service, const addrinfo* hints, addrinfo** result) {
  return ::getaddrinfo(node, service, hints, result);
}
void FreeAddrInfo(addrinfo* list) { ::freeaddrinfo(list); }

std::chrono::nanoseconds Now() {
  timespec now{};
  ::clock_gettime(CLOCK_MONOTONIC, &now);
  return std::chrono::seconds(now.tv_sec) + std::chrono::nanoseconds(now.tv_nsec);
}

void WaitWhile(const sys::Atomic<std::uint32_t>& value, std::uint32_t old) {
  value.wait(old, std::memory_order_acquire);
}
void NotifyOne(sys::Atomic<std::uint32_t>& value) { value.notify_one(); }
void NotifyAll(sys::Atomic<std::uint32_t>& value) { value.notify_all(); }

void Yield() { ::sched_yield(); }

std::error_code StartThread(std::string name, std::function<void()> body, std::thread* thread) {
  // The new thread inherits the mask, so that no signal can reach it before it has blocked them
  // itself.
  sigset_t blocked, old;
  ::sigfillset(&blocked);
  for (int signal : {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGTRAP, SIGSYS, SIGABRT, SIGPROF}) {
    ::sigdelset(&blocked, signal);
  }
  ::pthread_sigmask(SIG_BLOCK, &blocked, &old);
  std::error_code error;
  try {
    *thread = std::thread([name = std::move(name), body = std::move(body)] {
      ::prctl(PR_SET_NAME, name.c_str());
      body();
    });
  } catch (const std::system_error& failure) {
    error = {failure.code().value(), std::system_category()};
  } catch (const std::bad_alloc&) {
    error = {ENOMEM, std::system_category()};
  }
  ::pthread_sigmask(SIG_SETMASK, &old, nullptr);
  return error;
}

}  // namespace xtcp::sys
