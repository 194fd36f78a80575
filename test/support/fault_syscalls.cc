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
#include <mutex>
#include <new>
#include <string>
#include <utility>
#include <vector>

#include "support/deadline.h"
#include "support/fake_names.h"
#include "support/fault_control.h"
#include "support/random.h"
#include "support/violations.h"
#include "sys/syscalls.h"

namespace xtcp::test {
namespace {

constexpr std::size_t kSites = static_cast<std::size_t>(Site::kCount);

// --- The plan ------------------------------------------------------------------------------------

// What to do with one call.
struct Verdict {
  int error = 0;
  bool after_call = false;
  std::size_t max_bytes = 0;

  bool fails_before() const { return error != 0 && !after_call; }
};

struct PlannedFault {
  Fault fault;
  std::size_t matches = 0;
};

// The counters are relaxed: they must not order anything, or they would hide races of the library.
std::array<std::atomic<std::uint64_t>, kSites> calls;
std::atomic<bool> planned{false};
std::atomic<std::size_t> injected_count{0};

std::mutex plan_mutex;
std::vector<PlannedFault> plan;  // guarded by plan_mutex

bool Matches(const Fault& fault, Site site, int fd, int operation) {
  return fault.site == site && (fault.fd == Fault::kAny || fault.fd == fd) &&
         (fault.operation == Fault::kAny || fault.operation == operation);
}

Verdict AskPlan(Site site, int fd, int operation, std::function<void(int)>* act) {
  std::lock_guard lock(plan_mutex);
  for (PlannedFault& entry : plan) {
    const Fault& fault = entry.fault;
    if (!Matches(fault, site, fd, operation)) continue;
    const std::size_t n = ++entry.matches;
    if (n < fault.first || n - fault.first >= fault.times) continue;
    injected_count.fetch_add(1, std::memory_order_relaxed);
    *act = fault.act;
    return {fault.error, fault.after_call, fault.max_bytes};
  }
  return {};
}

// --- Seeded faults -------------------------------------------------------------------------------

// What a seed decides for one call; each question uses its own bits.
class Dice {
 public:
  Dice() : bits_(Mix(Seed() ^ Mix(counter_.fetch_add(1, std::memory_order_relaxed)))) {}

  bool OneIn(std::size_t n) { return Below(n) == 0; }
  std::size_t Below(std::size_t n) {
    bits_ = Mix(bits_);
    return static_cast<std::size_t>(bits_ % n);
  }

 private:
  static inline std::atomic<std::uint64_t> counter_{0};
  std::uint64_t bits_;
};

constexpr std::size_t kDescriptors = 1 << 16;

// Whether the last call on a descriptor was told that memory is short: twice in a row may mean that
// it is over, so the seeded faults do not say it twice.
std::array<std::atomic<bool>, kDescriptors> was_short;

bool MayBeShort(int fd) {
  const auto i = static_cast<std::size_t>(fd);
  return i < kDescriptors && !was_short[i].exchange(true, std::memory_order_relaxed);
}

void NotShort(int fd) {
  const auto i = static_cast<std::size_t>(fd);
  if (i < kDescriptors) was_short[i].store(false, std::memory_order_relaxed);
}

Verdict DrawTransfer(int fd, std::size_t size) {
  Dice dice;
  if (dice.OneIn(24)) return {EINTR};
  if (dice.OneIn(24)) return {EAGAIN};
  if (dice.OneIn(3000) && MayBeShort(fd)) return {dice.OneIn(2) ? ENOBUFS : ENOMEM};
  NotShort(fd);
  if (size > 1 && dice.OneIn(12)) {
    // Mostly a few bytes: those are the cuts that hurt.
    const std::size_t most = dice.OneIn(2) ? std::min<std::size_t>(size, 16) : size;
    return {0, false, 1 + dice.Below(most)};
  }
  return {};
}

Verdict DrawAccept() {
  Dice dice;
  if (dice.OneIn(16)) return {EAGAIN};
  if (dice.OneIn(16)) return {EINTR};
  if (dice.OneIn(32)) return {ECONNABORTED};
  if (dice.OneIn(32)) return {EPROTO};
  if (dice.OneIn(32)) return {ECONNRESET};
  if (dice.OneIn(500)) return {EMFILE};
  return {};
}

Verdict Draw(Site site, int fd, std::size_t size) {
  switch (site) {
    case Site::kRecv:
    case Site::kSend:
    case Site::kSendMsg:
      return DrawTransfer(fd, size);
    case Site::kAccept4:
      return DrawAccept();
    case Site::kEpollWait:
      return Dice().OneIn(16) ? Verdict{EINTR} : Verdict{};
    case Site::kConnect: {
      // The kernel goes on connecting. Whoever connects again gets EALREADY.
      Dice dice;
      if (dice.OneIn(2)) return {dice.OneIn(2) ? EINTR : EINPROGRESS, true};
      return {};
    }
    case Site::kWrite: {
      // EAGAIN says that the eventfd's count is at its limit, so it wakes the loop.
      Dice dice;
      if (dice.OneIn(16)) return {EINTR};
      if (dice.OneIn(16)) return {EAGAIN, true};
      return {};
    }
    case Site::kClose: {
      Dice dice;
      if (dice.OneIn(16)) return {dice.OneIn(2) ? EINTR : EIO, true};
      return {};
    }
    default:
      return {};
  }
}

// Counts the call and says what to do with it.
Verdict Judge(Site site, int fd = Fault::kAny, int operation = Fault::kAny, std::size_t size = 0) {
  calls[static_cast<std::size_t>(site)].fetch_add(1, std::memory_order_relaxed);
  if (!planned.load(std::memory_order_acquire)) return Draw(site, fd, size);
  std::function<void(int)> act;
  const Verdict verdict = AskPlan(site, fd, operation, &act);
  if (act) act(fd);  // with no lock held: it may come back here
  return verdict;
}

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

// --- The clock -----------------------------------------------------------------------------------

constexpr std::int64_t kReal = -1;
std::atomic<std::int64_t> virtual_now{kReal};

std::chrono::nanoseconds RealNow() {
  timespec now{};
  ::clock_gettime(CLOCK_MONOTONIC, &now);
  return std::chrono::seconds(now.tv_sec) + std::chrono::nanoseconds(now.tv_nsec);
}

// For `Settle`: by the number of its epoll descriptor, the round in which a loop last found nothing
// to do; kBusy while it works, 0 where there is no loop.
constexpr std::uint64_t kBusy = 1;
std::array<std::atomic<std::uint64_t>, 1024> sleeps;
std::atomic<std::uint64_t> settle_round{kBusy};

void NoteSleep(int epoll_fd, std::uint64_t round) {
  const auto i = static_cast<std::size_t>(epoll_fd);
  if (i < sleeps.size()) sleeps[i].store(round);
}

bool AllSleepSince(std::uint64_t round) {
  return std::all_of(sleeps.begin(), sleeps.end(), [&](const std::atomic<std::uint64_t>& loop) {
    const std::uint64_t seen = loop.load();
    return seen == 0 || seen >= round;
  });
}

// Waits for events, or until the virtual clock passes the timeout. `Advance` cannot wake the poll,
// so it is short.
int VirtualWait(int epoll_fd, epoll_event* events, int max_events, int timeout_ms) {
  NoteSleep(epoll_fd, kBusy);
  const std::int64_t end = virtual_now.load() + std::int64_t{timeout_ms} * 1'000'000;
  for (;;) {
    const std::uint64_t round = settle_round.load();
    const int ready = ::epoll_wait(epoll_fd, events, max_events, 0);
    const std::int64_t now = virtual_now.load();
    const bool over = now == kReal || (timeout_ms >= 0 && now >= end);
    if (ready != 0 || over) {
      NoteSleep(epoll_fd, kBusy);
      return ready;
    }
    NoteSleep(epoll_fd, round);
    pollfd waiting{epoll_fd, POLLIN, 0};
    ::poll(&waiting, 1, 1);
  }
}

}  // namespace

FaultPlan::FaultPlan() {
  Clear();
  injected_count = 0;
  planned.store(true, std::memory_order_release);
}

FaultPlan::~FaultPlan() {
  planned.store(false, std::memory_order_release);
  Clear();
}

void FaultPlan::Add(const Fault& fault) {
  std::lock_guard lock(plan_mutex);
  plan.push_back({fault, 0});
}

void FaultPlan::Clear() {
  std::lock_guard lock(plan_mutex);
  plan.clear();
}

std::size_t FaultPlan::injected() const { return injected_count.load(); }

std::uint64_t CallsOf(Site site) {
  return calls[static_cast<std::size_t>(site)].load(std::memory_order_relaxed);
}

VirtualClock::VirtualClock() {
  for (std::atomic<std::uint64_t>& loop : sleeps) loop = 0;
  virtual_now.store(RealNow().count());
}
VirtualClock::~VirtualClock() { virtual_now.store(kReal); }
void VirtualClock::Advance(std::chrono::nanoseconds time) { virtual_now.fetch_add(time.count()); }
std::chrono::nanoseconds VirtualClock::now() const {
  return std::chrono::nanoseconds(virtual_now.load());
}

// A loop that was woken since a round began has called EpollWait again, or is busy. When there is
// none, nobody was left who could have woken another one.
bool VirtualClock::Settle() {
  std::uint64_t round = 0;
  std::uint64_t waits = 0;
  return WaitUntil([&] {
    if (round != 0 && !AllSleepSince(round)) return false;
    if (round != 0 && CallsOf(Site::kEpollWait) == waits) return true;
    waits = CallsOf(Site::kEpollWait);
    round = ++settle_round;
    return false;
  });
}

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
  return Make(Judge(Site::kGetSockOpt, fd, name),
              [&] { return ::getsockopt(fd, level, name, value, size); });
}

int Shutdown(int fd, int how) {
  CheckOwn("shutdown", fd);
  return Make(Judge(Site::kShutdown, fd), [&] { return ::shutdown(fd, how); });
}

int Close(int fd) {
  const Verdict verdict = Judge(Site::kClose, fd);
  if (!test::IsOwn(fd) && !test::IsListener(fd)) {
    test::AddViolation("close of a descriptor that is not open, or not the library's");
  }
  // Given up before the call: afterwards the number may be another thread's.
  const auto i = static_cast<std::size_t>(fd);
  if (i < test::kDescriptors) test::owned[i].store(false, std::memory_order_relaxed);
  test::NotShort(fd);
  test::NoteSleep(fd, 0);
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
  const std::size_t most = verdict.max_bytes > 0 ? std::min(size, verdict.max_bytes) : size;
  return Make(verdict, [&] { return ::recv(fd, buffer, most, flags); });
}

ssize_t Send(int fd, const void* buffer, std::size_t size, int flags) {
  CheckSend(fd, size, flags);
  const Verdict verdict = Judge(Site::kSend, fd, -1, size);
  const std::size_t most = verdict.max_bytes > 0 ? std::min(size, verdict.max_bytes) : size;
  return Make(verdict, [&] { return ::send(fd, buffer, most, flags); });
}

ssize_t SendMsg(int fd, const msghdr* message, int flags) {
  std::size_t size = 0;
  for (std::size_t i = 0; i < message->msg_iovlen; ++i) size += message->msg_iov[i].iov_len;
  CheckSend(fd, size, flags);
  const Verdict verdict = Judge(Site::kSendMsg, fd, -1, size);
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
    test::NoteSleep(fd, test::kBusy);  // its loop is about to run
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
  return Make(Judge(Site::kEpollWait, epoll_fd), [&] {
    const bool real = test::virtual_now.load(std::memory_order_relaxed) == test::kReal;
    return real ? ::epoll_wait(epoll_fd, events, max_events, timeout_ms)
                : test::VirtualWait(epoll_fd, events, max_events, timeout_ms);
  });
}

int EventFd() {
  return Make(Judge(Site::kEventFd), [] { return Own(::eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC)); });
}

ssize_t Write(int fd, const void* buffer, std::size_t size) {
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
  const std::int64_t now = test::virtual_now.load(std::memory_order_relaxed);
  return now == test::kReal ? test::RealNow() : std::chrono::nanoseconds(now);
}

void WaitWhile(const std::atomic<std::uint32_t>& value, std::uint32_t old) {
  value.wait(old, std::memory_order_acquire);
}
void NotifyOne(std::atomic<std::uint32_t>& value) { value.notify_one(); }
void NotifyAll(std::atomic<std::uint32_t>& value) { value.notify_all(); }

void Yield() { ::sched_yield(); }

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
