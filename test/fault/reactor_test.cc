// What the reactor asks of the kernel: how often it writes and waits, counted at the seam, and what
// it does when the kernel refuses.

#include <sys/epoll.h>

#include <atomic>
#include <catch2/catch.hpp>
#include <cerrno>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <latch>
#include <system_error>
#include <thread>
#include <vector>

#include "reactor/event_loop.h"
#include "reactor/mailbox.h"
#include "support/deadline.h"
#include "support/fault_control.h"
#include "support/leak_guard.h"
#include "sys/syscalls.h"
#include "unit/reactor/test_channel.h"

namespace xtcp::test {
namespace {

using internal::EventLoop;
using internal::LoopTimes;
using internal::Mailbox;
using internal::TestChannel;
using internal::UniqueFd;
using std::chrono::microseconds;
using std::chrono::milliseconds;

void Post(Mailbox& mailbox, TestChannel& channel) {
  if (channel.ClaimPost()) mailbox.Push(&channel);
}

// A loop, for this thread or one of its own; `stop`, posted or armed, ends it. No seeded faults.
struct Loop {
  Loop() : loop(mailbox, times) {
    REQUIRE_FALSE(loop.Open());
    for (int i = 0; i < 10; ++i) loop.AddTimer();
    stop.on_posted = [this] { loop.Quit(); };
    stop.on_timer = [this] { loop.Quit(); };
  }
  ~Loop() {
    if (thread.joinable()) Join();
    loop.Close();
  }

  // Starts it on its thread, and returns when it sleeps.
  void Start() {
    const std::uint64_t waits = CallsOf(Site::kEpollWait);
    thread = std::thread([this] { error = loop.Run(); });
    REQUIRE(WaitUntil([&] { return CallsOf(Site::kEpollWait) > waits; }));
  }
  void Join() {
    Post(mailbox, stop);
    WithinDeadline("EventLoop::Run", [this] { thread.join(); });
  }

  FaultPlan plan;
  Mailbox mailbox;
  LoopTimes times;
  EventLoop loop;
  TestChannel stop;
  std::thread thread;
  std::error_code error;
};

TEST_CASE("a burst of posts to a loop that sleeps costs one write", "[B6]") {
  constexpr std::size_t kPosters = 8;
  Loop l;
  std::deque<TestChannel> channels(kPosters);
  Tally served;
  for (TestChannel& channel : channels) channel.on_posted = [&] { served.Add(); };
  l.Start();
  // The write does nothing, so that the loop sleeps on while all of them post.
  l.plan.Add({.site = Site::kWrite, .error = EAGAIN, .times = Fault::kAlways});
  const std::uint64_t writes = CallsOf(Site::kWrite);
  std::latch all(kPosters);
  std::vector<std::thread> posters;
  for (TestChannel& channel : channels) {
    posters.emplace_back([&] {
      all.arrive_and_wait();
      Post(l.mailbox, channel);
    });
  }
  for (std::thread& poster : posters) poster.join();
  CHECK(CallsOf(Site::kWrite) - writes == 1);
  CHECK(served.count() == 0);
  l.plan.Clear();
  const std::uint64_t one = 1;
  REQUIRE(sys::Write(l.mailbox.fd(), &one, sizeof one) == sizeof one);
  CHECK(served.WaitFor(kPosters));
}

TEST_CASE("posts cost at most one write a turn", "[B6][M13]") {
  constexpr std::size_t kPosters = 8;
  constexpr std::size_t kPosts = 2'000;
  Loop l;
  std::deque<TestChannel> channels(kPosters);
  l.Start();
  const std::uint64_t writes = CallsOf(Site::kWrite);
  const std::uint64_t waits = CallsOf(Site::kEpollWait);
  std::vector<std::thread> posters;
  for (TestChannel& channel : channels) {
    posters.emplace_back([&] {
      for (std::size_t i = 0; i < kPosts; ++i) Post(l.mailbox, channel);
    });
  }
  for (std::thread& poster : posters) poster.join();
  l.Join();
  // The first write belongs to the wait that had begun before.
  CHECK(CallsOf(Site::kWrite) - writes <= CallsOf(Site::kEpollWait) - waits + 1);
  CHECK_FALSE(l.error);
}

TEST_CASE("a post's write that is interrupted is repeated", "[F1][B6]") {
  Loop l;
  Tally served;
  TestChannel channel;
  channel.on_posted = [&] { served.Add(); };
  l.Start();
  l.plan.Add({.site = Site::kWrite, .error = EINTR, .times = 5});
  const std::uint64_t writes = CallsOf(Site::kWrite);
  Post(l.mailbox, channel);
  CHECK(served.WaitFor(1));
  CHECK(CallsOf(Site::kWrite) - writes == 6);
}

TEST_CASE("closing a mailbox waits for whoever is writing to it", "[M25][B7]") {
  FaultPlan plan;
  Mailbox mailbox;
  REQUIRE_FALSE(mailbox.Open());
  REQUIRE(mailbox.AboutToSleep());
  TestChannel channel, later;
  // A write that is interrupted again and again keeps its poster where it is.
  plan.Add({.site = Site::kWrite, .error = EINTR, .times = Fault::kAlways});
  const std::uint64_t before = CallsOf(Site::kWrite);
  std::atomic<bool> posted{false};
  std::atomic<bool> closed{false};
  Signal closing;
  std::thread poster([&] {
    Post(mailbox, channel);
    posted = true;
  });
  REQUIRE(WaitUntil([&] { return CallsOf(Site::kWrite) > before; }));
  std::thread closer([&] {
    closing.Set();
    mailbox.Close();
    closed = true;
  });
  CHECK(closing.Wait());
  const std::uint64_t then = CallsOf(Site::kWrite);
  CHECK(WaitUntil([&] { return CallsOf(Site::kWrite) > then + 20'000; }));
  const bool too_early = closed;
  CHECK_FALSE(posted);
  plan.Clear();
  WithinDeadline("Mailbox::Close", [&] { closer.join(); });
  WithinDeadline("Mailbox::Push", [&] { poster.join(); });
  CHECK_FALSE(too_early);
  CHECK(posted);
  // From here on nobody writes.
  const std::uint64_t after = CallsOf(Site::kWrite);
  static_cast<void>(mailbox.AboutToSleep());
  Post(mailbox, later);
  CHECK(CallsOf(Site::kWrite) == after);
}

TEST_CASE("a timer costs one wait: the loop does not wake before it is due", "[R7][R8]") {
  constexpr std::uint64_t kTimers = 20;
  Loop l;
  std::uint64_t fired = 0;
  bool early = false;
  EventLoop::Time due{0};
  TestChannel timer;
  // Half a millisecond is what epoll_wait(2) cannot count.
  const auto arm = [&] {
    due = sys::Now() + microseconds(1500);
    l.loop.Arm(&timer, due);
  };
  timer.on_timer = [&] {
    early = early || sys::Now() < due;
    if (++fired == kTimers) {
      l.loop.Quit();
    } else {
      arm();
    }
  };
  arm();
  const std::uint64_t before = CallsOf(Site::kEpollWait);
  REQUIRE_FALSE(l.loop.Run());
  CHECK(fired == kTimers);
  CHECK_FALSE(early);
  CHECK(CallsOf(Site::kEpollWait) - before == kTimers);
}

TEST_CASE("a timer of a virtual hour fires when the clock says so", "[R8][F9]") {
  VirtualClock clock;
  Loop l;
  Tally fired;
  TestChannel timer;
  timer.on_timer = [&] { fired.Add(); };
  l.loop.Arm(&timer, clock.now() + std::chrono::hours(1));
  l.Start();
  clock.Advance(std::chrono::hours(1) - milliseconds(1));
  const std::uint64_t waits = CallsOf(Site::kEpollWait);
  TestChannel ping;
  Tally pinged;
  ping.on_posted = [&] { pinged.Add(); };
  Post(l.mailbox, ping);
  REQUIRE(pinged.WaitFor(1));
  REQUIRE(WaitUntil([&] { return CallsOf(Site::kEpollWait) > waits; }));
  CHECK(fired.count() == 0);
  clock.Advance(milliseconds(1));
  CHECK(fired.WaitFor(1));
  l.Join();
}

TEST_CASE("after a post the loop sleeps again", "[R7]") {
  // The eventfd is never read: were it told of again and again, the loop would spin.
  Loop l;
  int served = 0;
  TestChannel channel;
  channel.on_posted = [&] { ++served; };
  l.loop.Arm(&l.stop, sys::Now() + milliseconds(50));
  const std::uint64_t before = CallsOf(Site::kEpollWait);
  std::thread poster([&] {
    if (WaitUntil([&] { return CallsOf(Site::kEpollWait) > before; })) Post(l.mailbox, channel);
  });
  const std::error_code error = l.loop.Run();
  poster.join();
  CHECK_FALSE(error);
  CHECK(served == 1);
  CHECK(CallsOf(Site::kEpollWait) - before == 2);
}

TEST_CASE("watching what is watched already costs no system call") {
  Loop l;
  TestChannel channel;
  channel.Take(UniqueFd(sys::EventFd()));
  const auto calls = [before = CallsOf(Site::kEpollCtl)] {
    return CallsOf(Site::kEpollCtl) - before;
  };
  CHECK_FALSE(l.loop.Rewatch(&channel, EPOLLIN));
  CHECK(calls() == 1);
  CHECK_FALSE(l.loop.Rewatch(&channel, EPOLLIN));
  CHECK(calls() == 1);
  // What the kernel refused was not changed, and is tried again.
  l.plan.Add({.site = Site::kEpollCtl, .error = ENOMEM, .operation = EPOLL_CTL_MOD});
  CHECK(l.loop.Rewatch(&channel, 0) == std::error_code(ENOMEM, std::system_category()));
  CHECK_FALSE(l.loop.Rewatch(&channel, 0));
  CHECK(calls() == 3);
  l.loop.Unwatch(&channel);
  l.loop.Unwatch(&channel);
  CHECK(calls() == 4);
}

TEST_CASE("an interrupted wait is no event and no error, and loses no post", "[F1][B6]") {
  Loop l;
  Tally served;
  TestChannel channel;
  channel.on_posted = [&] { served.Add(); };
  l.plan.Add({.site = Site::kEpollWait, .error = EINTR, .times = 20});
  l.Start();
  for (std::size_t i = 1; i <= 50; ++i) {
    Post(l.mailbox, channel);
    REQUIRE(served.WaitFor(i));
  }
  l.Join();
  CHECK_FALSE(l.error);
  CHECK(l.plan.injected() == 20);
}

TEST_CASE("a broken epoll ends the loop with its error", "[F2]") {
  Loop l;
  int served = 0;
  l.stop.on_posted = [&] { ++served; };
  Post(l.mailbox, l.stop);
  l.plan.Add({.site = Site::kEpollWait, .error = EBADF, .first = 3, .times = Fault::kAlways});
  // Two turns happen before.
  TestChannel ready;
  ready.Take(UniqueFd(sys::EventFd()));
  const std::uint64_t one = 1;
  REQUIRE(sys::Write(ready.fd().get(), &one, sizeof one) == sizeof one);
  int events = 0;
  ready.on_events = [&](std::uint32_t) { ++events; };
  REQUIRE_FALSE(l.loop.Watch(&ready, EPOLLIN));
  CHECK(l.loop.Run() == std::error_code(EBADF, std::system_category()));
  CHECK(served == 1);
  CHECK(events == 2);
  CHECK_FALSE(EventLoop::IsCurrent(l.mailbox));
  l.loop.Unwatch(&ready);
}

TEST_CASE("a loop that cannot be opened says why, and leaves nothing", "[F2][R5]") {
  const Fault fault = GENERATE(Fault{.site = Site::kEpollCreate, .error = EMFILE},
                               Fault{.site = Site::kEventFd, .error = ENFILE},
                               Fault{.site = Site::kEpollCtl, .error = ENOSPC});
  FaultPlan plan;
  plan.Add(fault);
  const std::size_t descriptors = Holdings::Now().descriptors;
  Mailbox mailbox;
  LoopTimes times;
  EventLoop loop(mailbox, times);
  CHECK(loop.Open() == std::error_code(fault.error, std::system_category()));
  CHECK(Holdings::Now().descriptors == descriptors);
  CHECK(mailbox.fd() == -1);
  // A post goes nowhere, and does no harm.
  TestChannel channel;
  Post(mailbox, channel);
  CHECK(mailbox.TakeAll() == &channel);
}

}  // namespace
}  // namespace xtcp::test
