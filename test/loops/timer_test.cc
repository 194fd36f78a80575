// Timers of a loop and of a connection, by a clock that the test moves.

#include <time.h>
#include <xtcp/xtcp.h>

#include <algorithm>
#include <atomic>
#include <catch2/catch.hpp>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <stdexcept>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "support/alloc_hook.h"
#include "support/fault_control.h"
#include "support/raw_peer.h"
#include "support/test_group.h"

namespace xtcp::test {
namespace {

using namespace std::chrono_literals;

// ---- Of a loop.

struct Clocked {
  VirtualClock clock;
  TestGroup group{1};
  Loop loop() { return group.loop(); }
  void Pass(std::chrono::nanoseconds time) {
    clock.Advance(time);
    REQUIRE(clock.Settle());
  }
};

TEST_CASE("RunAfter runs once, not before the time", "[M48]") {
  Clocked c;
  int runs = 0;
  Timer timer = c.loop().RunAfter(10ms, [&] { ++runs; });
  REQUIRE(timer.armed());
  REQUIRE(c.clock.Settle());
  c.Pass(10ms - 1ns);
  REQUIRE(runs == 0);
  c.Pass(1ms);
  REQUIRE(runs == 1);
  REQUIRE_FALSE(timer.armed());
  c.Pass(1h);
  REQUIRE(runs == 1);
  REQUIRE(c.group.Finish() == "");
}

TEST_CASE("time that passes just before the loop waits is not waited for again", "[M48]") {
  FaultPlan plan;
  Clocked c;
  std::atomic<int> runs{0};
  Timer timer;
  REQUIRE(c.group.On([&] {
    timer = c.loop().RunAfter(10ms, [&] { ++runs; });
    // The loop has looked at the clock, and knows for how long it may sleep.
    plan.Add({.site = Site::kEpollWait, .first = 2, .act = [&](int) { c.clock.Advance(10ms); }});
  }));
  REQUIRE(WaitUntil([&] { return runs == 1; }));
  REQUIRE(c.group.Finish() == "");
}

TEST_CASE("RunAfter counts from the call, also of a turn that takes long", "[M48]") {
  Clocked c;
  int runs = 0;
  Timer timer;
  REQUIRE(c.group.On([&] {
    c.clock.Advance(50ms);  // so long the turn has taken already
    timer = c.loop().RunAfter(10ms, [&] { ++runs; });
  }));
  REQUIRE(c.clock.Settle());
  REQUIRE(runs == 0);
  c.Pass(9ms);
  REQUIRE(runs == 0);
  c.Pass(1ms);
  REQUIRE(runs == 1);
  Timer at_once = c.loop().RunAfter(-5ms, [&] { ++runs; });
  REQUIRE(c.clock.Settle());
  REQUIRE(runs == 2);
  REQUIRE(c.group.Finish() == "");
}

TEST_CASE("RunEvery runs again and again, and makes up for no period", "[M48][M49]") {
  Clocked c;
  int runs = 0;
  Timer timer = c.loop().RunEvery(10ms, [&] {
    ++runs;
    throw std::runtime_error("it goes on all the same");
  });
  REQUIRE(c.clock.Settle());
  for (int i = 1; i <= 5; ++i) {
    c.Pass(10ms);
    REQUIRE(runs == i);
  }
  c.Pass(1005ms);
  REQUIRE(runs == 6);
  c.Pass(4ms);
  REQUIRE(runs == 6);
  c.Pass(1ms);  // in step with the periods before
  REQUIRE(runs == 7);
  REQUIRE(timer.armed());
  timer.Cancel();
  REQUIRE_FALSE(timer.armed());
  c.Pass(1h);
  REQUIRE(runs == 7);
  REQUIRE(c.group.Finish() == "");
}

TEST_CASE("the end of a handle cancels; one that was detached runs on", "[M48]") {
  Clocked c;
  int runs = 0;
  {
    const Timer timer = c.loop().RunAfter(10ms, [&] { runs += 1; });
  }
  {
    c.loop().RunAfter(10ms, [&] { runs += 10; }).Detach();
  }
  Timer moved;
  {
    Timer timer = c.loop().RunAfter(10ms, [&] { runs += 100; });
    moved = std::move(timer);
    REQUIRE_FALSE(timer.armed());
  }
  Timer replaced = c.loop().RunAfter(10ms, [&] { runs += 1000; });
  replaced = c.loop().RunAfter(10ms, [&] { runs += 10'000; });
  REQUIRE(c.clock.Settle());
  c.Pass(10ms);
  REQUIRE(runs == 10'110);
  REQUIRE(c.group.Finish() == "");
}

TEST_CASE("after Cancel on the loop's thread the task does not run, also when it was due",
          "[M48]") {
  Clocked c;
  int runs = 0;
  Timer second;
  // Both are due in the same turn; the first one cancels the second.
  Timer first = c.loop().RunAfter(10ms, [&] { second.Cancel(); });
  second = c.loop().RunAfter(11ms, [&] { ++runs; });
  REQUIRE(c.clock.Settle());
  c.Pass(20ms);
  REQUIRE(runs == 0);
  REQUIRE(c.group.Finish() == "");
}

TEST_CASE("a timer may be cancelled and destroyed in its own task, which runs to its end",
          "[M48]") {
  const bool every = GENERATE(false, true);
  const bool destroys = GENERATE(false, true);
  CAPTURE(every, destroys);
  Clocked c;
  std::optional<Timer> timer;
  std::vector<std::string> seen;
  const auto probe = std::make_shared<int>(7);
  Task task([&, probe] {
    if (destroys) {
      timer.reset();
    } else {
      timer->Cancel();
    }
    seen.push_back("still here, with " + std::to_string(*probe));
  });
  timer = every ? c.loop().RunEvery(5ms, std::move(task)) : c.loop().RunAfter(5ms, std::move(task));
  REQUIRE(c.clock.Settle());
  c.Pass(5ms);
  c.Pass(1h);
  REQUIRE(seen == std::vector<std::string>{"still here, with 7"});
  REQUIRE(probe.use_count() == 1);
  REQUIRE(c.group.Finish() == "");
}

TEST_CASE("timers may be started and cancelled on any thread, at any time", "[M48]") {
  TestGroup group(2);
  std::atomic<std::uint64_t> runs{0};
  std::vector<std::thread> threads;
  for (std::size_t t = 0; t < 3; ++t) {
    threads.emplace_back([&, t] {
      for (int i = 0; i < 2000; ++i) {
        Timer one = group.loop(t % 2).RunAfter(std::chrono::milliseconds(i % 2), [&] { ++runs; });
        Timer other = group.loop(i % 2).RunEvery(1ms, [&] { ++runs; });
        if (i % 3 == 0) one.Cancel();
        if (i % 5 == 0) one = std::move(other);
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  const std::uint64_t then = runs;
  // After the cancelling, none begins again: what ran just then is over after a task of its loop.
  REQUIRE(group.On(group.loop(0), [] {}));
  REQUIRE(group.On(group.loop(1), [] {}));
  const std::uint64_t settled = runs;
  REQUIRE(settled >= then);
  REQUIRE(group.On(group.loop(0), [] {}));
  REQUIRE(runs == settled);
  REQUIRE(group.Finish() == "");
}

// CPU time of this thread.
std::chrono::nanoseconds ThreadTime() {
  timespec now{};
  ::clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
  return std::chrono::seconds(now.tv_sec) + std::chrono::nanoseconds(now.tv_nsec);
}

// What it costs the loop to start and cancel 10,000 timers beside `armed` others, the least of some
// tries.
std::chrono::nanoseconds CostBeside(std::size_t armed) {
  constexpr std::size_t kTimers = 10'000;
  TestGroup group;
  std::vector<Timer> others, timers;
  const auto start = [&](std::size_t count, std::vector<Timer>* in) {
    for (std::size_t i = 0; i < count; ++i) {
      // None is the first or the last: 7 and 1,000 have no common divisor.
      in->push_back(group.loop().RunAfter(std::chrono::minutes(60 + i * 7 % 1000), [] {}));
    }
  };
  REQUIRE(group.On([&] { start(armed, &others); }));
  std::chrono::nanoseconds least = std::chrono::nanoseconds::max(), begin{0}, end{0};
  for (int i = 0; i < 3; ++i) {
    REQUIRE(group.On([&] {
      begin = ThreadTime();
      start(kTimers, &timers);
    }));
    REQUIRE(group.On([&] { timers.clear(); }));  // each was armed in between
    REQUIRE(group.On([] {}));
    REQUIRE(group.On([&] { end = ThreadTime(); }));
    least = std::min(least, end - begin);
  }
  REQUIRE(group.Finish() == "");
  for (const Timer& timer : others) REQUIRE_FALSE(timer.armed());
  return least;
}

TEST_CASE("timers cost O(log n), cancelling too", "[M50]") {
  // A thousand times as many: the logarithm grows by 10, all else by the caches' misses. What looks
  // at each timer takes hundreds of times as long.
  CHECK(CostBeside(100'000) < 10 * CostBeside(100));
}

// ---- Of a connection.

// One connection on a shared loop, accepted or dialled, with a peer.
struct OnLoop {
  explicit OnLoop(bool dialled, Options options = {}) {
    if (dialled) {
      listener.emplace();
      conn = NewConn(WithDefaults(options, events), group.loop());
      REQUIRE_FALSE(conn->Dial(listener->address()));
      peer = listener->Accept();
      REQUIRE(events->WaitForConnected(1));
    } else {
      server = StartServer(*group, events, options);
      peer = RawPeer(AddressOf(*server));
      REQUIRE(events->WaitForAccepted(1));
      conn = events->conn();
    }
    REQUIRE(clock.Settle());
  }
  void Pass(std::chrono::nanoseconds time) {
    clock.Advance(time);
    REQUIRE(clock.Settle());
  }
  void Set(std::chrono::milliseconds delay) {
    REQUIRE(group.On([&] { conn->SetTimer(delay); }));
    REQUIRE(clock.Settle());
  }
  std::size_t timers() const { return events->totals().timers; }
  void Finish() {
    REQUIRE(group.Finish() == "");
    REQUIRE(events->Verify() == "");
  }

  VirtualClock clock;
  std::shared_ptr<EventRecorder> events = std::make_shared<EventRecorder>();
  TestGroup group{1};
  std::optional<RawListener> listener;
  std::unique_ptr<Server> server;
  ConnPtr conn;
  RawPeer peer;
};

TEST_CASE("SetTimer is one timer: it comes once, a new one replaces it, CancelTimer takes it away",
          "[M48]") {
  const bool dialled = GENERATE(false, true);
  OnLoop c(dialled);
  c.Set(10ms);
  c.Pass(9ms);
  REQUIRE(c.timers() == 0);
  c.Pass(1ms);
  REQUIRE(c.timers() == 1);
  c.Pass(1h);
  REQUIRE(c.timers() == 1);

  c.Set(10ms);
  c.Pass(5ms);
  c.Set(20ms);  // later
  c.Pass(19ms);
  REQUIRE(c.timers() == 1);
  c.Pass(1ms);
  REQUIRE(c.timers() == 2);
  c.Set(20ms);
  c.Set(3ms);  // earlier
  c.Pass(3ms);
  REQUIRE(c.timers() == 3);
  c.Pass(1h);
  REQUIRE(c.timers() == 3);

  c.Set(10ms);
  REQUIRE(c.group.On([&] { c.conn->CancelTimer(); }));
  c.Pass(1h);
  REQUIRE(c.timers() == 3);
  c.Set(0ms);
  REQUIRE(c.timers() == 4);
  c.Set(-1ms);
  REQUIRE(c.timers() == 5);
  c.Finish();
}

TEST_CASE("a connection's timer counts from the beginning of the turn in which it is set",
          "[M48]") {
  OnLoop c(GENERATE(false, true));
  REQUIRE(c.group.On([&] {
    c.clock.Advance(6ms);
    c.conn->SetTimer(10ms);
  }));
  c.Pass(3ms);
  REQUIRE(c.timers() == 0);
  c.Pass(1ms);
  REQUIRE(c.timers() == 1);
  c.Finish();
}

TEST_CASE("OnTimer may set the next one", "[M48]") {
  OnLoop c(GENERATE(false, true));
  c.events->on_timer = [](const ConnPtr& conn) { conn->SetTimer(10ms); };
  c.Set(10ms);
  for (std::size_t i = 1; i <= 5; ++i) {
    c.Pass(10ms);
    REQUIRE(c.timers() == i);
  }
  // One that is set to now comes once a turn.
  c.events->on_timer = [n = 0](const ConnPtr& conn) mutable {
    if (++n < 100) conn->SetTimer(0ms);
  };
  const std::uint64_t turns = c.group.loop().Stats().turns;
  c.Pass(10ms);
  REQUIRE(WaitUntil([&] { return c.timers() == 105; }));
  REQUIRE(c.clock.Settle());
  REQUIRE(c.group.loop().Stats().turns >= turns + 99);
  c.Finish();
}

TEST_CASE("OnTimer comes also while paused, and a pause does not move it", "[M48]") {
  OnLoop c(GENERATE(false, true));
  c.conn->PauseRecv();
  c.Set(10ms);
  REQUIRE(c.peer.SendAll(Frame("held")));
  c.Pass(10ms);
  REQUIRE(c.timers() == 1);
  REQUIRE(c.events->totals().packets == 0);
  c.conn->ResumeRecv();
  REQUIRE(c.events->WaitForPackets(1));
  c.Finish();
}

TEST_CASE("a timer does not make the loop read", "[M48]") {
  OnLoop c(GENERATE(false, true));
  REQUIRE(c.clock.Settle());
  c.Set(10ms);
  const std::uint64_t reads = CallsOf(Site::kRecv);
  c.Pass(10ms);
  REQUIRE(c.timers() == 1);
  REQUIRE(CallsOf(Site::kRecv) == reads);
  c.Finish();
}

TEST_CASE("no OnTimer before the first event, nor after a stop, the peer's end or the end",
          "[M48]") {
  const bool dialled = GENERATE(false, true);
  SECTION("a graceful stop") {
    OnLoop c(dialled);
    c.Set(10ms);
    REQUIRE(c.conn->Send(std::string(100, 'x')) == std::error_code());
    static_cast<void>(c.conn->Stop(StopMode::kGracefullyButNotWait));
    REQUIRE(c.clock.Settle());
    c.Pass(10ms);
    REQUIRE(c.timers() == 0);
    c.Set(0ms);
    c.Pass(10ms);
    REQUIRE(c.timers() == 0);
    c.Finish();
  }
  SECTION("the peer's end of stream") {
    Options options;
    options.send_buffer_limit = 64 << 20;
    OnLoop c(dialled, options);
    // More than the kernel takes: it flushes.
    REQUIRE_FALSE(c.conn->Send(std::string(32 << 20, 'x')));
    c.Set(10ms);
    c.peer.HalfClose();
    REQUIRE(WaitUntil([&] { return c.conn->Send("x") == Errc::kStopping; }));
    c.Pass(10ms);
    c.Set(0ms);
    REQUIRE(c.timers() == 0);
    static_cast<void>(c.conn->Stop(StopMode::kImmediately));
    c.Finish();
  }
  SECTION("kClosed") {
    OnLoop c(dialled);
    c.events->on_closed = [](const ConnPtr& conn) { conn->SetTimer(0ms); };
    c.Set(10ms);
    static_cast<void>(c.conn->Stop(StopMode::kImmediately));
    REQUIRE(c.events->WaitForClosed(1));
    c.Set(0ms);
    c.Pass(10ms);
    REQUIRE(c.timers() == 0);
    c.Finish();
  }
  SECTION("before the dial") {
    auto events = std::make_shared<EventRecorder>();
    TestGroup group;
    RawListener listener;
    const ConnPtr conn = NewConn(WithDefaults({}, events), group.loop());
    conn->SetTimer(0ms);
    REQUIRE(group.On([&] { conn->SetTimer(0ms); }));
    REQUIRE_FALSE(conn->Dial(listener.address()));
    REQUIRE(events->WaitForConnected(1));
    REQUIRE(group.On([] {}));
    REQUIRE(events->totals().timers == 0);
    conn->SetTimer(0ms);  // elsewhere it has no effect
    REQUIRE(group.On([] {}));
    REQUIRE(group.On([] {}));
    REQUIRE(events->totals().timers == 0);
    REQUIRE(group.Finish() == "");
    REQUIRE(events->Verify() == "");
  }
}

TEST_CASE("a connection's timer needs no memory", "[M48][F4]") {
  OnLoop c(GENERATE(false, true));
  bool set = false;
  REQUIRE(c.group.On([&] {
    const std::uint64_t before = Allocations();
    c.conn->SetTimer(10ms);
    c.conn->SetTimer(20ms);
    c.conn->CancelTimer();
    c.conn->SetTimer(5ms);
    set = Allocations() == before;
  }));
  REQUIRE(set);
  c.Pass(5ms);
  REQUIRE(c.timers() == 1);
  c.Finish();
}

TEST_CASE("deadlines and the timer of a connection do not move each other", "[M48][M33]") {
  Options options;
  options.read_deadline = 100ms;
  OnLoop c(GENERATE(false, true), options);
  c.events->on_timer = [](const ConnPtr& conn) { conn->SetTimer(30ms); };
  c.Set(30ms);
  for (int i = 0; i < 3; ++i) c.Pass(30ms);
  REQUIRE(c.timers() == 3);
  REQUIRE(c.events->totals().closed == 0);
  c.Pass(10ms);  // a timer is no traffic
  REQUIRE(c.events->totals().closed == 1);
  REQUIRE(c.conn->Stats().reason == CloseReason::kReadDeadline);
  c.Finish();
}

TEST_CASE("an exception from OnTimer ends its connection", "[M49][M38]") {
  OnLoop c(GENERATE(false, true));
  c.events->on_timer = [](const ConnPtr&) { throw std::runtime_error("from OnTimer"); };
  c.Set(0ms);
  REQUIRE(c.events->WaitForClosed(1));
  REQUIRE(c.conn->Stats().reason == CloseReason::kException);
  REQUIRE(c.group.On([] {}));
  c.Finish();
}

TEST_CASE("a stop of the group ends all timers", "[M42][M48]") {
  Clocked c;
  int runs = 0;
  Timer timer = c.loop().RunAfter(10ms, [&] { ++runs; });
  Timer every = c.loop().RunEvery(10ms, [&] { ++runs; });
  REQUIRE(c.clock.Settle());
  REQUIRE(c.group.Finish() == "");
  REQUIRE_FALSE(timer.armed());
  REQUIRE_FALSE(every.armed());
  REQUIRE(runs == 0);
  timer.Cancel();
}

}  // namespace
}  // namespace xtcp::test
