#pragma once

#include <netdb.h>
#include <signal.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>

#include <chrono>
#include <cstdint>
#include <functional>
#include <string>
#include <system_error>
#include <thread>

#include "sys/sync.h"

// The seam: every system call that the library makes, the clock, and the starting of threads. These
// functions are in one object of the archive and do nothing but make the call. Whatever is decided
// about errors, EINTR included, is decided above them, where a test can reach it: a test program
// that defines these functions itself links the very archive that ships, less this object.
//
// Unless a comment says otherwise, each does what the manual page of the same name says (section
// 2), and returns -1 and sets `errno` on failure.
namespace xtcp::sys {

int Socket(int domain, int type, int protocol);
int Bind(int fd, const sockaddr* address, socklen_t size);
int Listen(int fd, int backlog);
int Connect(int fd, const sockaddr* address, socklen_t size);
int Accept4(int fd, sockaddr* address, socklen_t* size, int flags);
int GetSockName(int fd, sockaddr* address, socklen_t* size);
int GetPeerName(int fd, sockaddr* address, socklen_t* size);
int SetSockOpt(int fd, int level, int name, const void* value, socklen_t size);
int GetSockOpt(int fd, int level, int name, void* value, socklen_t* size);
int Shutdown(int fd, int how);
int Close(int fd);

ssize_t Recv(int fd, void* buffer, std::size_t size, int flags);
ssize_t Send(int fd, const void* buffer, std::size_t size, int flags);
ssize_t SendMsg(int fd, const msghdr* message, int flags);
int IoctlOutq(int fd, int* bytes);  // ioctl(fd, SIOCOUTQ, bytes)
int FcntlGet(int fd, int command);  // fcntl(fd, command), for F_GETFL and F_GETFD
int FcntlSet(int fd, int command, int flags);

int EpollCreate();  // epoll_create1(EPOLL_CLOEXEC)
int EpollCtl(int epoll_fd, int operation, int fd, epoll_event* event);
int EpollWait(int epoll_fd, epoll_event* events, int max_events, int timeout_ms);
int EventFd();                                                // non-blocking, close-on-exec
ssize_t Write(int fd, const void* buffer, std::size_t size);  // to an eventfd

// Those that are called in signal handlers: here and in whatever stands in for it, they are
// async-signal-safe (signal-safety(7)).
ssize_t WriteInHandler(int fd, const void* buffer, std::size_t size);  // write, to an eventfd
int SigAction(int signal, const struct sigaction* action, struct sigaction* before);
pid_t GetPid();
int Kill(pid_t process, int signal);

int SigMask(int how, const sigset_t* set, sigset_t* before);  // pthread_sigmask(3): returns errno

int Lstat(const char* path, struct stat* status);
int Fstat(int fd, struct stat* status);
int Unlink(const char* path);
int OpenFile(const char* path, int flags, mode_t mode);  // open(path, flags, mode)
int Flock(int fd, int operation);
int GetRlimit(int resource, rlimit* limit);
int AvailableProcessors();  // by sched_getaffinity(2); at least 1

// These do what getaddrinfo(3) says: the first returns 0 or an EAI_ code.
int GetAddrInfo(const char* node, const char* service, const addrinfo* hints, addrinfo** result);
void FreeAddrInfo(addrinfo* list);

// The time of CLOCK_MONOTONIC.
std::chrono::nanoseconds Now();

// These are std::atomic's wait, notify_one and notify_all, which call futex(2).
void WaitWhile(const sys::Atomic<std::uint32_t>& value, std::uint32_t old);
void NotifyOne(sys::Atomic<std::uint32_t>& value);
void NotifyAll(sys::Atomic<std::uint32_t>& value);

// Tells the processor that this thread spins.
inline void Relax() {
#if defined(__x86_64__) || defined(__i386__)
  __builtin_ia32_pause();
#elif defined(__aarch64__) || defined(__arm__)
  asm volatile("yield");
#endif
}

void Yield();  // sched_yield(2)

// Starts a thread in which every signal is blocked but the synchronous ones and SIGPROF. ps(1),
// top(1) and gdb(1) show its name, of at most 15 bytes (prctl(2), PR_SET_NAME). Returns an error
// when the system refuses.
std::error_code StartThread(std::string name, std::function<void()> body, std::thread* thread);

}  // namespace xtcp::sys
