#include <poll.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <chrono>
#include <ctime>

#include "support/deadline.h"
#include "support/fault_plan.h"

namespace xtcp::test {
namespace {

constexpr std::int64_t kReal = -1;
std::atomic<std::int64_t> virtual_now{kReal};

// When this thread last looked at the virtual clock. How long it then waits runs from there: a clock
// that moved on in between and then stands would be waited for in vain.
thread_local std::int64_t last_look = 0;

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

}  // namespace

bool ClockIsVirtual() { return virtual_now.load(std::memory_order_relaxed) != kReal; }

std::chrono::nanoseconds TimeNow() {
  const std::int64_t now = virtual_now.load(std::memory_order_relaxed);
  if (now == kReal) return RealNow();
  last_look = now;
  return std::chrono::nanoseconds(now);
}

void NoteLoop(int epoll_fd) { NoteSleep(epoll_fd, kBusy); }
void NoteLoopGone(int epoll_fd) { NoteSleep(epoll_fd, 0); }

// `Advance` cannot wake the poll, so it is short.
int VirtualWait(int epoll_fd, epoll_event* events, int max_events, int timeout_ms) {
  NoteSleep(epoll_fd, kBusy);
  const std::int64_t end = last_look + std::int64_t{timeout_ms} * 1'000'000;
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
