// A redialer keeps one connection to an address.

#include <xtcp/xtcp.h>

#include <algorithm>
#include <atomic>
#include <catch2/catch.hpp>
#include <cerrno>
#include <chrono>
#include <cmath>
#include <limits>
#include <memory>
#include <optional>
#include <stdexcept>
#include <string>
#include <system_error>
#include <thread>
#include <vector>

#include "support/fault_control.h"
#include "support/raw_peer.h"
#include "support/test_group.h"

namespace xtcp::test {
namespace {

using namespace std::chrono_literals;
using std::chrono::milliseconds;

// A redialer by a clock that the test moves, to a place where nobody listens yet.
struct Clocked {
  explicit Clocked(Backoff backoff = {}) : backoff_(backoff) {
    RawListener once;
    address = once.address();
  }
  void Start() {
    redialer.emplace(WithDefaults({}, events), address, group.loop(), backoff_);
    REQUIRE_FALSE(redialer->Start());
    REQUIRE(clock.Settle());
  }
  void Pass(std::chrono::nanoseconds time) {
    clock.Advance(time);
    REQUIRE(clock.Settle());
  }
  std::size_t failed() const { return events->totals().dials_failed; }

  // Moves the clock on by the millisecond until there is one more failure; how long it took.
  milliseconds WaitForNext() {
    const std::size_t before = failed();
    for (milliseconds waited{0};; ++waited) {
      if (failed() > before) return waited;
      if (waited > 100s) return waited;
      Pass(1ms);
    }
  }

  const FaultPlan no_faults;
  VirtualClock clock;
  std::shared_ptr<EventRecorder> events = std::make_shared<EventRecorder>();
  TestGroup group{1};
  std::string address;
  std::optional<Redialer> redialer;

 private:
  Backoff backoff_;
};

TEST_CASE("what Start of a redialer returns, and what its options may be", "[M55]") {
  auto events = std::make_shared<EventRecorder>();
  TestGroup group;
  const Options options = WithDefaults({}, events);
  Redialer bad(options, "no port", group.loop());
  REQUIRE(bad.Start() == Errc::kBadAddress);
  Redialer no_loop(options, "127.0.0.1:9", Loop());
  REQUIRE(no_loop.Start() == Errc::kNoLoop);
  REQUIRE(no_loop.Stop(StopMode::kGracefullyAndWait).connections == 0);
  Redialer stopped(options, "127.0.0.1:9", group.loop());
  static_cast<void>(stopped.Stop(StopMode::kImmediately));
  REQUIRE(stopped.Start() == Errc::kStopped);
  Redialer twice(options, "127.0.0.1:1", group.loop());
  REQUIRE_FALSE(twice.Start());
  REQUIRE(twice.Start() == Errc::kAlreadyUsed);
  REQUIRE(twice.conn() == nullptr);

  const auto with = [&](Backoff backoff) {
    Redialer(options, "127.0.0.1:9", group.loop(), backoff);
  };
  const double nan = std::numeric_limits<double>::quiet_NaN();
  REQUIRE_THROWS_AS(with({.first = 0ms}), std::invalid_argument);
  REQUIRE_THROWS_AS(with({.first = 10ms, .most = 9ms}), std::invalid_argument);
  REQUIRE_THROWS_AS(with({.factor = 0.9}), std::invalid_argument);
  REQUIRE_THROWS_AS(with({.factor = nan}), std::invalid_argument);
  REQUIRE_THROWS_AS(with({.jitter = -0.1}), std::invalid_argument);
  REQUIRE_THROWS_AS(with({.jitter = 1.1}), std::invalid_argument);
  REQUIRE_THROWS_AS(with({.jitter = nan}), std::invalid_argument);
  REQUIRE_THROWS_AS(Redialer(Options{}, "127.0.0.1:9", group.loop()), std::invalid_argument);
  REQUIRE_NOTHROW(with({.first = 1ms, .most = 1ms, .factor = 1, .jitter = 1}));
  REQUIRE(group.Finish() == "");
  Redialer late(options, "127.0.0.1:9", group.loop());
  REQUIRE(late.Start() == Errc::kStopped);
}

TEST_CASE("it dials again after a failure: first, times factor, up to most", "[M55]") {
  Clocked c({.first = 10ms, .most = 75ms, .factor = 2, .jitter = 0});
  c.Start();
  REQUIRE(c.failed() == 1);
  std::vector<milliseconds> waits;
  for (int i = 0; i < 6; ++i) waits.push_back(c.WaitForNext());
  REQUIRE(waits == std::vector<milliseconds>{10ms, 20ms, 40ms, 75ms, 75ms, 75ms});
  c.redialer.reset();
  REQUIRE(c.group.Finish() == "");
}

TEST_CASE("a wait is cut at random by up to jitter of itself", "[M55]") {
  Clocked c({.first = 100ms, .most = 100ms, .factor = 1, .jitter = 0.5});
  c.Start();
  std::vector<milliseconds> waits;
  for (int i = 0; i < 30; ++i) waits.push_back(c.WaitForNext());
  const auto [shortest, longest] = std::minmax_element(waits.begin(), waits.end());
  REQUIRE(*shortest >= 50ms);
  REQUIRE(*longest <= 100ms);
  // Thirty equal ones, or thirty within 10 ms, are no chance (less than 1 in 10^20).
  REQUIRE(*longest - *shortest > 10ms);
  c.redialer.reset();
  REQUIRE(c.group.Finish() == "");
}

TEST_CASE("it dials again after an end; each try is a connection of its own", "[M55]") {
  const FaultPlan no_faults;
  auto events = std::make_shared<EventRecorder>();
  TestGroup group;
  RawListener listener;
  Redialer redialer(WithDefaults({}, events), listener.address(), group.loop(),
                    {.first = 1ms, .most = 2ms});
  // From before its kConnected to before its kClosed.
  std::atomic<bool> there_at_connected{true}, gone_at_closed{true};
  events->on_connected = [&](const ConnPtr& conn) {
    there_at_connected = there_at_connected && redialer.conn() == conn;
  };
  events->on_closed = [&](const ConnPtr&) {
    gone_at_closed = gone_at_closed && redialer.conn() == nullptr;
  };
  REQUIRE_FALSE(redialer.Start());
  for (std::size_t i = 1; i <= 5; ++i) {
    RawPeer peer = listener.Accept();
    REQUIRE(peer.connected());
    REQUIRE(events->WaitForConnected(i));
    const ConnPtr conn = redialer.conn();
    REQUIRE(conn != nullptr);
    REQUIRE_FALSE(conn->Send("hello"));
    std::string bytes;
    REQUIRE(peer.ReadExactly(5, &bytes) == End::kOpen);
    // Whatever ends it: the peer, a reset, or a stop of the connection alone.
    if (i % 3 == 0) peer.Close();
    if (i % 3 == 1) peer.Reset();
    if (i % 3 == 2) static_cast<void>(conn->Stop(StopMode::kImmediately));
    if (i % 3 == 2) static_cast<void>(peer.ReadAll());
    REQUIRE(events->WaitForClosed(i));
  }
  REQUIRE(there_at_connected);
  REQUIRE(gone_at_closed);
  RawPeer last = listener.Accept();
  REQUIRE(events->WaitForConnected(6));
  REQUIRE(redialer.Stop(StopMode::kImmediately).connections == 1);
  REQUIRE(redialer.Stop(StopMode::kGracefullyAndWait).connections == 1);
  REQUIRE(events->totals().closed == 6);
  REQUIRE(redialer.conn() == nullptr);
  REQUIRE_FALSE(listener.Accept(100ms).connected());  // no further dial
  REQUIRE(group.Finish() == "");
  REQUIRE(events->Verify() == "");
}

TEST_CASE("the waits begin anew once a connection has received a packet, or lived for most",
          "[M55]") {
  const int how = GENERATE(0, 1, 2);
  CAPTURE(how);
  Clocked c({.first = 10ms, .most = 1000ms, .factor = 10, .jitter = 0});
  c.Start();
  REQUIRE(c.WaitForNext() == 10ms);
  REQUIRE(c.WaitForNext() == 100ms);
  {
    RawListener listener(c.address);
    c.Pass(1000ms);
    REQUIRE(c.events->totals().connected == 1);
    RawPeer peer = listener.Accept();
    if (how == 1) {
      REQUIRE(peer.SendAll(Frame("a packet")));
      REQUIRE(c.events->WaitForPackets(1));
    }
    if (how == 2) c.Pass(1000ms);
    peer.Close();
    listener.Close();
    REQUIRE(c.events->WaitForClosed(1));
    REQUIRE(c.clock.Settle());
  }
  REQUIRE(c.WaitForNext() == (how == 0 ? 1000ms : 10ms));
  c.redialer.reset();
  REQUIRE(c.group.Finish() == "");
  REQUIRE(c.events->Verify() == "");
}

TEST_CASE("a stop ends the waiting, the dial or the connection", "[M55][M42]") {
  const int state = GENERATE(0, 1, 2);
  const int how = GENERATE(0, 1, 2, 3);
  const bool of_group = GENERATE(false, true);
  CAPTURE(state, how, of_group);
  const FaultPlan no_faults;
  auto events = std::make_shared<EventRecorder>();
  TestGroup group(2);
  RawListener listener, hung(0);
  RawPeer fills_it(hung.port());
  std::string address = "127.0.0.1:1";
  if (state == 1) address = hung.address();
  if (state == 2) address = listener.address();
  auto redialer = std::make_unique<Redialer>(WithDefaults({}, events), address, group.loop(1),
                                             Backoff{.first = 1h, .most = 1h});
  const std::uint64_t connects = CallsOf(Site::kConnect);
  REQUIRE_FALSE(redialer->Start());
  RawPeer peer;
  if (state == 0) REQUIRE(events->WaitForDialsFailed(1));
  if (state == 1) REQUIRE(WaitUntil([&] { return CallsOf(Site::kConnect) > connects; }));
  if (state == 2) {
    peer = listener.Accept();
    REQUIRE(events->WaitForConnected(1));
    peer.HalfClose();
  }
  StopReport report;
  Signal ended;
  WithinDeadline("a stop", [&] {
    if (of_group) {
      static_cast<void>(
          group->Stop(how == 0 ? StopMode::kImmediately : StopMode::kGracefullyAndWait));
    } else if (how == 0) {
      static_cast<void>(redialer->Stop(StopMode::kImmediately));
    } else if (how == 1) {
      static_cast<void>(redialer->Stop(StopMode::kGracefullyButNotWait));
    } else if (how == 2) {
      static_cast<void>(redialer->Stop(StopMode::kGracefullyAndWait));
    } else {
      redialer.reset();
      return;
    }
    report = redialer->Stop(StopMode::kGracefullyAndWait);
    static_cast<void>(
        redialer->Stop(StopMode::kImmediately, [&](const StopReport&) { ended.Set(); }));
    ended.Wait();
  });
  if (redialer != nullptr) REQUIRE(ended.IsSet());
  const auto totals = events->totals();
  REQUIRE(totals.dials_failed == (state == 2 ? 0 : 1));
  REQUIRE(totals.connected == (state == 2 ? 1 : 0));
  REQUIRE(totals.closed == totals.connected);
  // The peer had ended its stream, so the connection may have ended before the stop.
  REQUIRE(report.connections <= totals.connected);
  REQUIRE(group.Finish() == "");
  REQUIRE(events->totals().dials_failed == totals.dials_failed);
  REQUIRE(events->Verify() == "");
}

TEST_CASE("a stop's report counts what the redialer's connection had not sent", "[M55][M21]") {
  auto events = std::make_shared<EventRecorder>();
  TestGroup group;
  RawListener listener;
  Options options;
  options.linger_timeout = 20ms;
  options.send_buffer_limit = 64 << 20;
  Redialer redialer(WithDefaults(options, events), listener.address(), group.loop());
  REQUIRE_FALSE(redialer.Start());
  RawPeer peer = listener.Accept();
  REQUIRE(events->WaitForConnected(1));
  REQUIRE_FALSE(redialer.conn()->Send(std::string(40 << 20, 'x')));
  StopReport report;
  WithinDeadline("a stop", [&] { report = redialer.Stop(StopMode::kGracefullyAndWait); });
  REQUIRE(report.connections == 1);
  REQUIRE(report.cut == 1);
  REQUIRE(report.unsent_bytes > 0);
  REQUIRE(group.Finish() == "");
  REQUIRE(events->Verify() == "");
}

TEST_CASE("a redialer without memory or descriptors tries again later", "[M55][F4]") {
  Clocked c({.first = 10ms, .most = 10ms, .factor = 1, .jitter = 0});
  c.Start();
  RawListener listener(c.address);
  FaultPlan* const plan = const_cast<FaultPlan*>(&c.no_faults);
  plan->Add({.site = Site::kSocket, .error = EMFILE, .times = 2});
  for (int i = 0; i < 3; ++i) c.Pass(10ms);
  REQUIRE(c.events->totals().connected == 1);
  REQUIRE(c.failed() == 3);
  c.redialer.reset();
  REQUIRE(c.group.Finish() == "");
  REQUIRE(c.events->Verify() == "");
}

TEST_CASE("a redialer may be stopped and destroyed in the callbacks of its connection",
          "[M55][M45]") {
  const int where = GENERATE(0, 1, 2, 3);
  const bool destroys = GENERATE(false, true);
  CAPTURE(where, destroys);
  auto events = std::make_shared<EventRecorder>();
  TestGroup group;
  RawListener listener;
  auto redialer = std::make_unique<Redialer>(WithDefaults({}, events),
                                             where == 3 ? "127.0.0.1:1" : listener.address(),
                                             group.loop(), Backoff{.first = 1ms, .most = 1ms});
  const auto end = [&] {
    if (redialer == nullptr) return;
    if (destroys) {
      redialer.reset();
    } else {
      static_cast<void>(redialer->Stop(StopMode::kGracefullyButNotWait));
    }
  };
  if (where == 0) events->on_connected = [&](const ConnPtr&) { end(); };
  if (where == 1) events->on_recv = [&](const ConnPtr&, std::string_view) { end(); };
  if (where == 2) events->on_closed = [&](const ConnPtr&) { end(); };
  if (where == 3) events->on_dial_failed = [&](const ConnPtr&, std::error_code) { end(); };
  REQUIRE_FALSE(redialer->Start());
  if (where == 3) {
    REQUIRE(events->WaitForDialsFailed(1));
  } else {
    RawPeer peer = listener.Accept();
    static_cast<void>(peer.SendAll(Frame("x")));
    if (where == 2)
      peer.Close();
    else
      static_cast<void>(peer.ReadAll());
    peer.Close();
    REQUIRE(events->WaitForClosed(1));
  }
  REQUIRE(group.On([] {}));
  REQUIRE(group.Finish() == "");
  REQUIRE(events->totals().connected + events->totals().dials_failed == 1);
  REQUIRE(events->Verify() == "");
}

}  // namespace
}  // namespace xtcp::test
