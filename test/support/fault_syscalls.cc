#include <fcntl.h>
#include <linux/sockios.h>
#include <poll.h>
#include <sched.h>
#include <sys/eventfd.h>
#include <sys/file.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/uio.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cerrno>
#include <climits>
#include <csignal>
#include <cstring>
#include <functional>
#include <new>
#include <string>
#include <utility>
#include <vector>

#include "support/fake_names.h"
#include "support/fault_plan.h"
#include "support/held_thread.h"
#include "support/violations.h"
#include "sys/syscalls.h"

namespace xtcp::test {
namespace {

// --- Books of descriptors ------------------------------------------------------------------------

// Which descriptors came from here and are open.
std::array<std::atomic<bool>, kDescriptors> owned;

int Own(int fd) {
  if (fd >= 0 && static_cast<std::size_t>(fd) < kDescriptors) {
    owned[static_cast<std::size_t>(fd)].store(true, std::memory_order_relaxed);
  }
  return fd;
}

bool IsOwn(int fd) {
  const auto i = static_cast<std::size_t>(fd);
  return i >= kDescriptors ? fd >= 0 : owned[i].load(std::memory_order_relaxed);
}

// A listener may have been adopted.
bool IsListener(int fd) {
  int listening = 0;
  socklen_t size = sizeof listening;
  return ::getsockopt(fd, SOL_SOCKET, SO_ACCEPTCONN, &listening, &size) == 0 && listening != 0;
}

void CheckOwn(const char* call, int fd) {
  if (!IsOwn(fd)) AddViolation(std::string(call) + " on a descriptor that is not the library's");
}

void CheckSend(int fd, std::size_t size, int flags) {
  CheckOwn("send", fd);
  if ((flags & MSG_NOSIGNAL) == 0) AddViolation("send without MSG_NOSIGNAL");
  if (size > INT_MAX) AddViolation("send of more than INT_MAX bytes");
}

void CheckFlags(const char* call, int flags) {
  if ((flags & SOCK_CLOEXEC) == 0) AddViolation(std::string(call) + " without SOCK_CLOEXEC");
  if ((flags & SOCK_NONBLOCK) == 0) AddViolation(std::string(call) + " without SOCK_NONBLOCK");
}

// --- Threads that are held -----------------------------------------------------------------------

// Ahead of a call that another thread of this process may notice.
void Ask(const char* call) {
  if (HeldThread* held = HeldThread::Current()) held->Step(call);
}

// Whether epoll_wait(2) would find something. It leaves it there.
bool IsReady(int epoll_fd) {
  pollfd waiting{epoll_fd, POLLIN, 0};
  return ::poll(&waiting, 1, 0) > 0;
}

}  // namespace
}  // namespace xtcp::test

// --- The seam ------------------------------------------------------------------------------------

namespace xtcp::sys {

using test::CheckFlags;
using test::CheckOwn;
using test::CheckSend;
using test::Judge;
using test::Make;
using test::Own;
using test::Site;
using test::Verdict;

int Socket(int domain, int type, int protocol) {
  CheckFlags("socket", type);
  return Make(Judge(Site::kSocket), [&] { return Own(::socket(domain, type, protocol)); });
}

int Bind(int fd, const sockaddr* address, socklen_t size) {
  CheckOwn("bind", fd);
  return Make(Judge(Site::kBind, fd), [&] { return ::bind(fd, address, size); });
}

int Listen(int fd, int backlog) {
  return Make(Judge(Site::kListen, fd), [&] { return ::listen(fd, backlog); });
}

int Connect(int fd, const sockaddr* address, socklen_t size) {
  CheckOwn("connect", fd);
  const Verdict verdict = Judge(Site::kConnect, fd);
  if (!verdict.after_call) return Make(verdict, [&] { return ::connect(fd, address, size); });
  // Only a connect that has begun can be interrupted.
  const int result = ::connect(fd, address, size);
  if (result == 0 || errno == EINPROGRESS) errno = verdict.error;
  return -1;
}

int Accept4(int fd, sockaddr* address, socklen_t* size, int flags) {
  CheckFlags("accept4", flags);
  return Make(Judge(Site::kAccept4, fd), [&] { return Own(::accept4(fd, address, size, flags)); });
}

int GetSockName(int fd, sockaddr* address, socklen_t* size) {
  return Make(Judge(Site::kGetSockName, fd), [&] { return ::getsockname(fd, address, size); });
}

int GetPeerName(int fd, sockaddr* address, socklen_t* size) {
  return Make(Judge(Site::kGetPeerName, fd), [&] { return ::getpeername(fd, address, size); });
}

int SetSockOpt(int fd, int level, int name, const void* value, socklen_t size) {
  return Make(Judge(Site::kSetSockOpt, fd, name),
              [&] { return ::setsockopt(fd, level, name, value, size); });
}

int GetSockOpt(int fd, int level, int name, void* value, socklen_t* size) {
  const Verdict verdict = Judge(Site::kGetSockOpt, fd, name);
  if (verdict.fake) {
    std::memcpy(value, &verdict.error, sizeof verdict.error);
    return 0;
  }
  return Make(verdict, [&] { return ::getsockopt(fd, level, name, value, size); });
}

int Shutdown(int fd, int how) {
  CheckOwn("shutdown", fd);
  return Make(Judge(Site::kShutdown, fd), [&] { return ::shutdown(fd, how); });
}

int Close(int fd) {
  test::Ask("close");
  const Verdict verdict = Judge(Site::kClose, fd);
  if (!test::IsOwn(fd) && !test::IsListener(fd)) {
    test::AddViolation("close of a descriptor that is not open, or not the library's");
  }
  // Given up before the call: afterwards the number may be another thread's.
  const auto i = static_cast<std::size_t>(fd);
  if (i < test::kDescriptors) test::owned[i].store(false, std::memory_order_relaxed);
  test::ForgetShortage(fd);
  test::NoteLoopGone(fd);
  const int result = ::close(fd);
  if (result != 0 && errno == EBADF) test::AddViolation("close reports EBADF");
  if (verdict.error == 0) return result;
  // Whatever close(2) says, the descriptor is gone.
  errno = verdict.error;
  return -1;
}

ssize_t Recv(int fd, void* buffer, std::size_t size, int flags) {
  CheckOwn("recv", fd);
  const Verdict verdict = Judge(Site::kRecv, fd, -1, size);
  if (verdict.fake) {
    std::memset(buffer, 0, size);
    return static_cast<ssize_t>(size);
  }
  const std::size_t most = verdict.max_bytes > 0 ? std::min(size, verdict.max_bytes) : size;
  return Make(verdict, [&] { return ::recv(fd, buffer, most, flags); });
}

ssize_t Send(int fd, const void* buffer, std::size_t size, int flags) {
  CheckSend(fd, size, flags);
  const Verdict verdict = Judge(Site::kSend, fd, -1, size);
  if (verdict.fake) return static_cast<ssize_t>(size);
  const std::size_t most = verdict.max_bytes > 0 ? std::min(size, verdict.max_bytes) : size;
  return Make(verdict, [&] { return ::send(fd, buffer, most, flags); });
}

ssize_t SendMsg(int fd, const msghdr* message, int flags) {
  std::size_t size = 0;
  for (std::size_t i = 0; i < message->msg_iovlen; ++i) size += message->msg_iov[i].iov_len;
  CheckSend(fd, size, flags);
  const Verdict verdict = Judge(Site::kSendMsg, fd, -1, size);
  if (verdict.fake) return static_cast<ssize_t>(size);
  if (verdict.max_bytes == 0 || verdict.max_bytes >= size) {
    return Make(verdict, [&] { return ::sendmsg(fd, message, flags); });
  }
  std::vector<iovec> pieces;
  std::size_t room = verdict.max_bytes;
  for (std::size_t i = 0; i < message->msg_iovlen && room > 0; ++i) {
    iovec piece = message->msg_iov[i];
    piece.iov_len = std::min(piece.iov_len, room);
    room -= piece.iov_len;
    pieces.push_back(piece);
  }
  msghdr less = *message;
  less.msg_iov = pieces.data();
  less.msg_iovlen = pieces.size();
  return Make(verdict, [&] { return ::sendmsg(fd, &less, flags); });
}

int IoctlOutq(int fd, int* bytes) {
  CheckOwn("ioctl", fd);
  return Make(Judge(Site::kIoctlOutq, fd), [&] { return ::ioctl(fd, SIOCOUTQ, bytes); });
}

int FcntlGet(int fd, int command) {
  return Make(Judge(Site::kFcntlGet, fd), [&] { return ::fcntl(fd, command); });
}

int FcntlSet(int fd, int command, int flags) {
  return Make(Judge(Site::kFcntlSet, fd), [&] { return ::fcntl(fd, command, flags); });
}

int EpollCreate() {
  return Make(Judge(Site::kEpollCreate), [] {
    const int fd = Own(::epoll_create1(EPOLL_CLOEXEC));
    test::NoteLoop(fd);
    return fd;
  });
}

int EpollCtl(int epoll_fd, int operation, int fd, epoll_event* event) {
  return Make(Judge(Site::kEpollCtl, fd, operation), [&] {
    const int result = ::epoll_ctl(epoll_fd, operation, fd, event);
    if (result != 0 && (errno == EBADF || errno == ENOENT || errno == EEXIST)) {
      const int error = errno;
      test::AddViolation(std::string("epoll_ctl reports ") + std::strerror(error));
      errno = error;
    }
    return result;
  });
}

int EpollWait(int epoll_fd, epoll_event* events, int max_events, int timeout_ms) {
  if (test::HeldThread* held = test::HeldThread::Current()) {
    held->StepWhen("epoll_wait", [=] { return timeout_ms == 0 || test::IsReady(epoll_fd); });
  }
  return Make(Judge(Site::kEpollWait, epoll_fd), [&] {
    return test::ClockIsVirtual() ? test::VirtualWait(epoll_fd, events, max_events, timeout_ms)
                                  : ::epoll_wait(epoll_fd, events, max_events, timeout_ms);
  });
}

int EventFd() {
  return Make(Judge(Site::kEventFd), [] { return Own(::eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC)); });
}

ssize_t Write(int fd, const void* buffer, std::size_t size) {
  test::Ask("write");
  CheckOwn("write", fd);
  return Make(Judge(Site::kWrite, fd), [&] { return ::write(fd, buffer, size); });
}

// In a handler neither the plan nor the dice may be asked: both take locks, or allocate.
ssize_t WriteInHandler(int fd, const void* buffer, std::size_t size) {
  return ::write(fd, buffer, size);
}

pid_t GetPid() { return ::getpid(); }

int Kill(pid_t process, int signal) { return ::kill(process, signal); }

// Where a plan counts descriptors it is the signal's number. A handler calls it too, in a child; a
// test that forks has no plan.
int SigAction(int signal, const struct sigaction* action, struct sigaction* before) {
  return Make(Judge(Site::kSigAction, signal), [&] { return ::sigaction(signal, action, before); });
}

int SigMask(int how, const sigset_t* set, sigset_t* before) {
  const Verdict verdict = Judge(Site::kSigMask);
  return verdict.error != 0 ? verdict.error : ::pthread_sigmask(how, set, before);
}

int Lstat(const char* path, struct stat* status) {
  return Make(Judge(Site::kLstat), [&] { return ::lstat(path, status); });
}

int Fstat(int fd, struct stat* status) {
  return Make(Judge(Site::kFstat, fd), [&] { return ::fstat(fd, status); });
}

int OpenFile(const char* path, int flags, mode_t mode) {
  if ((flags & O_CLOEXEC) == 0) test::AddViolation("open without O_CLOEXEC");
  return Own(Make(Judge(Site::kOpenFile), [&] { return ::open(path, flags, mode); }));
}

int Flock(int fd, int operation) {
  return Make(Judge(Site::kFlock, fd), [&] { return ::flock(fd, operation); });
}

int Unlink(const char* path) {
  return Make(Judge(Site::kUnlink), [&] { return ::unlink(path); });
}

int GetRlimit(int resource, rlimit* limit) {
  return Make(Judge(Site::kGetRlimit),
              [&] { return ::getrlimit(static_cast<__rlimit_resource_t>(resource), limit); });
}

int AvailableProcessors() {
  Judge(Site::kAvailableProcessors);
  cpu_set_t set;
  if (::sched_getaffinity(0, sizeof set, &set) != 0) return 1;
  return std::max(1, CPU_COUNT(&set));
}

int GetAddrInfo(const char* node, const char* service, const addrinfo* hints, addrinfo** result) {
  const Verdict verdict = Judge(Site::kGetAddrInfo);
  if (verdict.error != 0) return verdict.error;
  if (test::FakeNames::Answer(*hints, result)) return 0;
  return ::getaddrinfo(node, service, hints, result);
}

void FreeAddrInfo(addrinfo* list) { ::freeaddrinfo(list); }

std::chrono::nanoseconds Now() {
  Judge(Site::kNow);
  return test::TimeNow();
}

void WaitWhile(const Atomic<std::uint32_t>& value, std::uint32_t old) {
  value.wait(old, std::memory_order_acquire);
}
void NotifyOne(Atomic<std::uint32_t>& value) { value.notify_one(); }
void NotifyAll(Atomic<std::uint32_t>& value) { value.notify_all(); }

void Yield() {
  if (test::HeldThread* held = test::HeldThread::Current()) {
    held->Yield();
  } else {
    ::sched_yield();
  }
}

std::error_code StartThread(std::string name, std::function<void()> body, std::thread* thread) {
  if (const Verdict verdict = Judge(Site::kStartThread); verdict.error != 0) {
    return {verdict.error, std::system_category()};
  }
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
    error = failure.code();
  } catch (const std::bad_alloc&) {
    error = std::make_error_code(std::errc::not_enough_memory);
  }
  ::pthread_sigmask(SIG_SETMASK, &old, nullptr);
  return error;
}

}  // namespace xtcp::sys
