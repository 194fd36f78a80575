// A group of one inside somebody else's loop, and what a loop tells of itself.

#include <poll.h>
#include <sys/epoll.h>
#include <unistd.h>
#include <xtcp/xtcp.h>

#include <catch2/catch.hpp>
#include <cerrno>
#include <chrono>
#include <memory>
#include <optional>
#include <string>
#include <system_error>
#include <thread>
#include <vector>

#include "support/fault_control.h"
#include "support/leak_guard.h"
#include "support/raw_peer.h"
#include "support/test_group.h"

namespace xtcp::test {
namespace {

using namespace std::chrono_literals;
using std::chrono::milliseconds;

TEST_CASE("a group of one is turned by RunOnce inside another epoll loop", "[M56]") {
  auto events = std::make_shared<EventRecorder>();
  events->on_recv = Echo;
  LoopGroup group;
  const auto server = StartServer(group, events);
  const std::size_t threads = ThreadCount();
  const int outer = ::epoll_create1(EPOLL_CLOEXEC);
  epoll_event watch{.events = EPOLLIN, .data = {.fd = group.Descriptor()}};
  REQUIRE(group.Descriptor() >= 0);
  REQUIRE(::epoll_ctl(outer, EPOLL_CTL_ADD, group.Descriptor(), &watch) == 0);

  bool answered = false;
  std::thread client([&, address = AddressOf(*server)] {
    RawPeer peer(address);
    answered = peer.SendAll(Frame("embedded")) && peer.ReadFrame() == "embedded";
  });
  std::error_code error;
  int timers = 0;
  Timer timer = group[0].RunEvery(1ms, [&] { ++timers; });
  bool on_this_thread = false;
  static_cast<void>(group[0].Post([&, here = std::this_thread::get_id()] {
    on_this_thread = std::this_thread::get_id() == here;
  }));
  const auto end = std::chrono::steady_clock::now() + kDeadline;
  while (!error && (events->totals().closed < 1 || timers < 3) &&
         std::chrono::steady_clock::now() < end) {
    epoll_event event{};
    ::epoll_wait(outer, &event, 1, static_cast<int>(group.Timeout().count()));
    error = group.RunOnce(0ms);
  }
  client.join();
  REQUIRE_FALSE(error);
  REQUIRE(answered);
  REQUIRE(timers >= 3);
  REQUIRE(on_this_thread);
  REQUIRE(ThreadCount() == threads);

  // A call that waits, on this thread, turns the loop itself.
  RawPeer peer(AddressOf(*server));
  while (events->totals().accepted < 2) REQUIRE_FALSE(group.RunOnce(10ms));
  peer.HalfClose();
  const StopReport report = server->Stop(StopMode::kGracefullyAndWait);
  REQUIRE(report.connections <= 1);
  REQUIRE(events->totals().closed == 2);
  REQUIRE(group.Stop(StopMode::kGracefullyAndWait).connections == 0);
  REQUIRE(group.RunOnce(0ms) == Errc::kStopped);
  ::close(outer);
  REQUIRE(events->Verify() == "");
}

TEST_CASE("Timeout says until when to wait", "[M56]") {
  VirtualClock clock;
  LoopGroup group;
  const FaultPlan no_faults;
  REQUIRE_FALSE(group.RunOnce(0ms));
  REQUIRE(group.Timeout() == -1ms);  // no timer
  int runs = 0;
  Timer timer = group[0].RunAfter(100ms, [&] { ++runs; });
  REQUIRE(group.Timeout() == 0ms);  // it has not been armed yet
  REQUIRE_FALSE(group.RunOnce(0ms));
  REQUIRE(group.Timeout() == 100ms);
  clock.Advance(99ms + 1us);
  REQUIRE(group.Timeout() == 1ms);  // rounded up
  REQUIRE_FALSE(group.RunOnce(0ms));
  REQUIRE(runs == 0);
  clock.Advance(1ms);
  REQUIRE(group.Timeout() == 0ms);
  REQUIRE_FALSE(group.RunOnce(0ms));
  REQUIRE(runs == 1);
  REQUIRE(group.Timeout() == -1ms);
  REQUIRE_FALSE(group[0].Post([] {}));
  REQUIRE(group.Timeout() == 0ms);
  REQUIRE_FALSE(group.RunOnce(0ms));
  REQUIRE(group.Timeout() == -1ms);
  static_cast<void>(group.Stop(StopMode::kImmediately));
  static_cast<void>(group.RunOnce(0ms));
}

// Whether `fd` is readable.
bool Readable(int fd) {
  pollfd waiting{fd, POLLIN, 0};
  return ::poll(&waiting, 1, 0) == 1;
}

TEST_CASE("the descriptor is readable when RunOnce has something to do", "[M56]") {
  const FaultPlan no_faults;
  auto events = std::make_shared<EventRecorder>();
  LoopGroup group;
  const auto server = StartServer(group, events);
  const int fd = group.Descriptor();
  REQUIRE(fd >= 0);
  const auto turn_until_quiet = [&] {
    for (int i = 0; i < 20 && (Readable(fd) || group.Timeout() == 0ms); ++i) {
      REQUIRE_FALSE(group.RunOnce(0ms));
    }
    REQUIRE_FALSE(Readable(fd));
  };
  turn_until_quiet();
  // Each of these, one after the other, from this thread and from another one.
  bool ran = false;
  REQUIRE_FALSE(group[0].Post([&] { ran = true; }));
  REQUIRE(Readable(fd));
  turn_until_quiet();
  REQUIRE(ran);
  std::thread([&] { static_cast<void>(group[0].Post([&] { ran = false; })); }).join();
  REQUIRE(Readable(fd));
  turn_until_quiet();
  REQUIRE_FALSE(ran);
  RawPeer peer(AddressOf(*server));
  REQUIRE(Readable(fd));
  turn_until_quiet();
  REQUIRE(events->totals().accepted == 1);
  REQUIRE_FALSE(events->conn()->Send("from outside"));
  REQUIRE(Readable(fd));
  turn_until_quiet();
  std::string bytes;
  REQUIRE(peer.ReadExactly(12, &bytes) == End::kOpen);
  static_cast<void>(group[0].RunAfter(1h, [] {}));
  REQUIRE(Readable(fd));
  turn_until_quiet();
  static_cast<void>(server->Stop(StopMode::kImmediately));
  REQUIRE(Readable(fd));
  turn_until_quiet();
  REQUIRE(events->totals().closed == 1);
  static_cast<void>(group.Stop(StopMode::kGracefullyButNotWait));
  REQUIRE(Readable(fd));
  std::error_code error;
  for (int i = 0; i < 20 && !error; ++i) error = group.RunOnce(0ms);
  REQUIRE(error == Errc::kStopped);
  REQUIRE(events->Verify() == "");
}

TEST_CASE("what RunOnce returns", "[M56][M41]") {
  const FaultPlan no_faults;
  SECTION("on a group of more than one") {
    LoopGroup group(2);
    REQUIRE(group.RunOnce(0ms) == Errc::kAlreadyUsed);
    REQUIRE(group.Descriptor() == -1);
    REQUIRE(group.Timeout() == -1ms);
  }
  SECTION("after Run") {
    TestGroup group;
    REQUIRE(group->RunOnce(0ms) == Errc::kAlreadyUsed);
    REQUIRE(group.Finish() == "");
  }
  SECTION("and Run after it") {
    LoopGroup group;
    REQUIRE_FALSE(group.RunOnce(0ms));
    REQUIRE(group.Run() == Errc::kAlreadyUsed);
    static_cast<void>(group.Stop(StopMode::kImmediately));
    REQUIRE(group.RunOnce(0ms) == Errc::kStopped);
    REQUIRE(group.Run() == Errc::kAlreadyUsed);
  }
  SECTION("while another thread is in it, or in a callback") {
    LoopGroup group;
    Signal inside, goes_on;
    std::error_code nested;
    REQUIRE_FALSE(group[0].Post([&] {
      nested = group.RunOnce(0ms);
      inside.Set();
      goes_on.Wait();
    }));
    std::error_code first;
    std::thread turns([&] { first = group.RunOnce(0ms); });
    REQUIRE(inside.Wait());
    REQUIRE(group.RunOnce(0ms) == Errc::kAlreadyUsed);
    goes_on.Set();
    turns.join();
    REQUIRE_FALSE(first);
    REQUIRE(nested == Errc::kWouldDeadlock);
    REQUIRE_FALSE(group.RunOnce(0ms));
  }
  SECTION("on a stopped group that never ran") {
    LoopGroup group;
    static_cast<void>(group.Stop(StopMode::kImmediately));
    REQUIRE(group.RunOnce(0ms) == Errc::kStopped);
  }
}

TEST_CASE("RunOnce returns the loop's error", "[M56][M34]") {
  const Site site = GENERATE(Site::kEpollCreate, Site::kEventFd, Site::kEpollWait);
  FaultPlan plan;
  plan.Add({.site = site, .error = ENFILE});
  auto events = std::make_shared<EventRecorder>();
  LoopGroup group;
  const auto server = StartServer(group, events);
  std::error_code error;
  for (int i = 0; i < 5 && !error; ++i) error = group.RunOnce(0ms);
  REQUIRE(error == std::error_code(ENFILE, std::system_category()));
  REQUIRE(group.IsStopped());
  REQUIRE(server->IsStopped());
  REQUIRE(server->Stop(StopMode::kGracefullyAndWait).connections == 0);
}

TEST_CASE("an embedded group waits no longer than it is told, and wakes for what comes", "[M56]") {
  VirtualClock clock;
  const FaultPlan no_faults;
  LoopGroup group;
  REQUIRE_FALSE(group.RunOnce(0ms));
  std::error_code error{EINVAL, std::system_category()};
  Signal done;
  std::thread turns([&] {
    error = group.RunOnce(50ms);
    done.Set();
  });
  REQUIRE(clock.Settle());
  clock.Advance(49ms);
  REQUIRE(clock.Settle());
  REQUIRE_FALSE(done.IsSet());
  clock.Advance(1ms);
  REQUIRE(done.Wait());
  turns.join();
  REQUIRE_FALSE(error);
  bool ran = false;
  std::thread waits([&] { error = group.RunOnce(1h); });
  REQUIRE_FALSE(group[0].Post([&] { ran = true; }));
  WithinDeadline("RunOnce", [&] { waits.join(); });
  REQUIRE(ran);
  static_cast<void>(group.Stop(StopMode::kImmediately));
}

TEST_CASE("dials, redialers and waits work on the thread that turns the loop", "[M56][M26]") {
  auto events = std::make_shared<EventRecorder>();
  LoopGroup group;
  RawListener listener;
  REQUIRE_FALSE(group.RunOnce(0ms));
  const ConnPtr conn = NewConn(WithDefaults({}, events), group[0]);
  // It turns the loop until the connection has ended.
  std::thread peer([&] { listener.Accept().Close(); });
  REQUIRE_FALSE(conn->DialAndServe(listener.address()));
  peer.join();
  REQUIRE(events->totals().closed == 1);
  Redialer redialer(WithDefaults({}, events), listener.address(), group[0]);
  REQUIRE_FALSE(redialer.Start());
  while (events->totals().connected < 2) REQUIRE_FALSE(group.RunOnce(10ms));
  RawPeer accepted = listener.Accept();
  accepted.HalfClose();
  static_cast<void>(redialer.Stop(StopMode::kGracefullyAndWait));
  REQUIRE(events->totals().closed == 2);
  REQUIRE(events->Verify() == "");
}

// ---- LoopStats.

TEST_CASE("LoopStats are totals since the loop began", "[M57]") {
  VirtualClock clock;
  const FaultPlan no_faults;
  TestGroup group;
  auto events = std::make_shared<EventRecorder>();
  const auto server = StartServer(*group, events);
  RawPeer peer(AddressOf(*server));
  REQUIRE(events->WaitForAccepted(1));
  REQUIRE(clock.Settle());
  const LoopStats before = group.loop().Stats();
  REQUIRE(before.connections == 1);
  REQUIRE(before.turns > 0);
  // A turn in which a task takes 30 ms; waiting does not count.
  REQUIRE(group.On([&] { clock.Advance(30ms); }));
  REQUIRE(clock.Settle());
  clock.Advance(500ms);
  REQUIRE(clock.Settle());
  LoopStats after = group.loop().Stats();
  REQUIRE(after.tasks == before.tasks + 1);
  REQUIRE(after.busy - before.busy == 30ms);
  REQUIRE(after.longest_turn == 30ms);
  REQUIRE(after.timers == before.timers);
  // A connection's tasks count as well.
  REQUIRE_FALSE(events->conn()->Post([] {}));
  REQUIRE(clock.Settle());
  REQUIRE(group.loop().Stats().tasks == after.tasks + 1);
  int runs = 0;
  const Timer timer = group.loop().RunAfter(1ms, [&] { ++runs; });
  REQUIRE(group.On([&] { events->conn()->SetTimer(1ms); }));
  REQUIRE(clock.Settle());
  clock.Advance(1ms);
  REQUIRE(clock.Settle());
  after = group.loop().Stats();
  REQUIRE(after.timers == before.timers + 2);
  REQUIRE(runs == 1);
  // The longest turn is that of the last one to two minutes.
  for (int i = 0; i < 3; ++i) {
    clock.Advance(61s);
    REQUIRE(group.On([&] { clock.Advance(2ms); }));
    REQUIRE(clock.Settle());
  }
  REQUIRE(group.On([] {}));
  REQUIRE(clock.Settle());
  REQUIRE(group.loop().Stats().longest_turn == 2ms);
  // Reading them changes nothing.
  const LoopStats once = group.loop().Stats(), again = group.loop().Stats();
  REQUIRE(once.turns == again.turns);
  REQUIRE(once.busy == again.busy);
  peer.Close();
  REQUIRE(events->WaitForClosed(1));
  REQUIRE(clock.Settle());
  REQUIRE(group.loop().Stats().connections == 0);
  REQUIRE(group.Finish() == "");
  REQUIRE(events->Verify() == "");
}

}  // namespace
}  // namespace xtcp::test
