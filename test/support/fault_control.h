#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <limits>

// Control over fault_syscalls.cc, which stands in for lib/sys/syscalls.cc in the programs that
// link it. Every call is a real one, but some report an error, or take fewer bytes than they could.
//
// By default XTCP_SEED decides which: faults that a correct library hides from its user, so that
// every test passes unchanged. A `FaultPlan` turns those off and injects what a test asks for.
//
// It also looks for what no test would see, and adds a violation when the library
//  - closes a descriptor that is not open or not its own, or uses one that is not its own;
//  - gets EBADF, ENOENT or EEXIST from a real epoll_ctl(2);
//  - sends without MSG_NOSIGNAL, or more than INT_MAX bytes in one call;
//  - makes a socket without SOCK_CLOEXEC and SOCK_NONBLOCK.
//
// Thread safety: any thread.
namespace xtcp::test {

enum class Site : std::uint8_t {
  kSocket,
  kBind,
  kListen,
  kConnect,
  kAccept4,
  kGetSockName,
  kGetPeerName,
  kSetSockOpt,
  kGetSockOpt,
  kShutdown,
  kClose,
  kRecv,
  kSend,
  kSendMsg,
  kIoctlOutq,
  kFcntlGet,
  kFcntlSet,
  kEpollCreate,
  kEpollCtl,
  kEpollWait,
  kEventFd,
  kWrite,
  kSigAction,
  kSigMask,
  kLstat,
  kFstat,
  kUnlink,
  kOpenFile,
  kFlock,
  kGetRlimit,
  kAvailableProcessors,
  kGetAddrInfo,
  kNow,
  kStartThread,
  kCount,
};

struct Fault {
  static constexpr std::size_t kAlways = std::numeric_limits<std::size_t>::max();
  static constexpr int kAny = -1;

  Site site = Site::kCount;

  // What the call reports: an errno, for GetAddrInfo an EAI_ code. 0: no error, see `max_bytes`.
  int error = 0;

  // Of the calls that match, the `first` one (from 1) and those behind it fail, `times` of them.
  std::size_t first = 1;
  std::size_t times = 1;

  int fd = kAny;         // only calls on this descriptor; for EpollCtl the one to watch
  int operation = kAny;  // EpollCtl: EPOLL_CTL_ADD, _MOD or _DEL; SetSockOpt, GetSockOpt: the name

  // Make the real call, then report `error` all the same: EINTR from close(2) and connect(2).
  bool after_call = false;

  // Recv, Send and SendMsg take at most this many bytes. 0: as many as they can.
  std::size_t max_bytes = 0;

  // Recv gives zeros, as many as fit; Send and SendMsg take all, and send nothing; GetSockOpt gives
  // `error` as the option's value. No real call: so a peer can be faster than any real one, and a
  // socket have an error that nothing on this machine gives it.
  bool fake = false;

  // Runs ahead of the call, on its thread, with its descriptor: so a test can act at exactly this
  // moment. It may call what may be called on any thread.
  std::function<void(int fd)> act{};
};

// While one lives the seeded faults are off, and those that were added happen. One at a time.
class FaultPlan {
 public:
  FaultPlan();
  ~FaultPlan();
  FaultPlan(const FaultPlan&) = delete;
  FaultPlan& operator=(const FaultPlan&) = delete;

  void Add(const Fault& fault);
  void Clear();

  // How many faults were injected since the plan was made.
  std::size_t injected() const;
};

// Calls of this site since the program began.
std::uint64_t CallsOf(Site site);

// While one lives sys::Now() stands still but for `Advance`, and EpollWait times out when this
// clock says so. Make it before anything that it should govern starts, destroy it after that has
// ended. One at a time.
class VirtualClock {
 public:
  VirtualClock();
  ~VirtualClock();
  VirtualClock(const VirtualClock&) = delete;
  VirtualClock& operator=(const VirtualClock&) = delete;

  void Advance(std::chrono::nanoseconds time);
  std::chrono::nanoseconds now() const;

  // Waits until every loop sleeps: it has looked at the clock and at its descriptors since this
  // call began, and there is nothing to do. False when the deadline passed first.
  bool Settle();
};

}  // namespace xtcp::test
