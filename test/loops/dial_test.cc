// Dials on a loop that others share.

#include <dirent.h>
#include <netdb.h>
#include <signal.h>
#include <xtcp/xtcp.h>

#include <atomic>
#include <catch2/catch.hpp>
#include <cerrno>
#include <chrono>
#include <fstream>
#include <memory>
#include <string>
#include <system_error>
#include <thread>
#include <utility>
#include <vector>

#include "support/alloc_hook.h"
#include "support/fake_names.h"
#include "support/fault_control.h"
#include "support/leak_guard.h"
#include "support/raw_peer.h"
#include "support/test_group.h"

namespace xtcp::test {
namespace {

using namespace std::chrono_literals;

std::error_code System(int error) { return {error, std::system_category()}; }

// A listener whose queue is full: it drops further SYNs, so a connect to it hangs.
struct HungListener {
  RawListener listener{0};
  RawPeer fills_it{listener.port()};
};

// Threads of this process with this name, and the signals (of a mask as in /proc/self/task/*/status)
// that the last one of them blocks.
std::size_t ThreadsNamed(const std::string& name, std::string* blocked = nullptr) {
  std::size_t count = 0;
  DIR* const folder = ::opendir("/proc/self/task");
  while (const dirent* const entry = ::readdir(folder)) {
    const std::string task = std::string("/proc/self/task/") + entry->d_name;
    std::string is;
    std::getline(std::ifstream(task + "/comm"), is);
    if (is != name) continue;
    ++count;
    std::ifstream status(task + "/status");
    for (std::string line; blocked != nullptr && std::getline(status, line);) {
      if (line.starts_with("SigBlk:")) *blocked = line.substr(8);
    }
  }
  ::closedir(folder);
  return count;
}

TEST_CASE("what Dial returns, with no callback after it", "[M51]") {
  auto events = std::make_shared<EventRecorder>();
  TestGroup group;
  RawListener listener;
  SECTION("an address that does not parse leaves the connection as it was") {
    const ConnPtr conn = NewConn(WithDefaults({}, events), group.loop());
    for (const char* bad :
         {"", "127.0.0.1", "127.0.0.1:0", "127.0.0.1:99999", ":80", "[::1", "a b:1"}) {
      CAPTURE(bad);
      REQUIRE(conn->Dial(bad) == Errc::kBadAddress);
    }
    REQUIRE_FALSE(conn->Dial(listener.address()));
    REQUIRE(conn->Dial(listener.address()) == Errc::kAlreadyUsed);
    REQUIRE(conn->DialAndServe(listener.address()) == Errc::kAlreadyUsed);
    REQUIRE(events->WaitForConnected(1));
  }
  SECTION("without a loop") {
    const ConnPtr conn = NewConn(WithDefaults({}, events));
    REQUIRE(conn->Dial(listener.address()) == Errc::kNoLoop);
    const ConnPtr empty = NewConn(WithDefaults({}, events), Loop());
    REQUIRE(empty->Dial(listener.address()) == Errc::kNoLoop);
    REQUIRE(empty->DialAndServe(listener.address()) == Errc::kNoLoop);
    Loop gone;
    {
      LoopGroup other;
      gone = other[0];
    }
    const ConnPtr late = NewConn(WithDefaults({}, events), gone);
    REQUIRE(late->Dial(listener.address()) == Errc::kStopped);
    static_cast<void>(late->Stop(StopMode::kGracefullyAndWait));
  }
  SECTION("after a stop of the connection") {
    const ConnPtr conn = NewConn(WithDefaults({}, events), group.loop());
    static_cast<void>(conn->Stop(StopMode::kGracefullyButNotWait));
    REQUIRE(conn->Dial(listener.address()) == Errc::kStopped);
    REQUIRE(conn->Stats().reason == CloseReason::kConnectFailed);
    REQUIRE(conn->Send("x") == Errc::kClosed);
  }
  SECTION("after the end of the group") {
    const ConnPtr conn = NewConn(WithDefaults({}, events), group.loop());
    static_cast<void>(group->Stop(StopMode::kImmediately));
    REQUIRE(conn->Dial(listener.address()) == Errc::kStopped);
    REQUIRE(conn->Stats().reason == CloseReason::kConnectFailed);
  }
  SECTION("an accepted connection") {
    const auto server = StartServer(*group, events);
    RawPeer peer(AddressOf(*server));
    REQUIRE(events->WaitForAccepted(1));
    REQUIRE(events->conn()->Dial(listener.address()) == Errc::kAlreadyUsed);
    REQUIRE(events->conn()->DialAndServe(listener.address()) == Errc::kAlreadyUsed);
  }
  REQUIRE(group.Finish() == "");
  REQUIRE(events->totals().dials_failed == 0);
  REQUIRE(events->Verify() == "");
}

TEST_CASE("a dial without memory says so, and leaves nothing", "[M51][F4]") {
  // Each allocation of the call fails once. Nobody answers, so that no event comes meanwhile, which
  // needs memory to be recorded.
  RawListener hung(0);
  RawPeer fills_it(hung.port());  // the queue is full: further SYNs are dropped
  std::size_t refused = 0;
  for (std::uint64_t n = 1; n < 50; ++n) {
    CAPTURE(n);
    auto events = std::make_shared<EventRecorder>();
    TestGroup group;
    const ConnPtr conn = NewConn(WithDefaults({}, events), group.loop());
    std::error_code error;
    bool failed = false;
    {
      const FailAllocations fail(n);
      error = conn->Dial(hung.address());
      failed = fail.failed();
    }
    if (error) {
      REQUIRE(error == Errc::kNoMemory);
      ++refused;
    }
    REQUIRE(group.Finish() == "");
    const auto totals = events->totals();
    REQUIRE(totals.connected == 0);
    REQUIRE(totals.dials_failed <= (error ? 0 : 1));
    REQUIRE(events->Verify() == "");
    if (!failed) break;
  }
  REQUIRE(refused >= 2);
}

TEST_CASE("a dial leads to kConnected or to OnDialFailed, once, on the loop, never nested",
          "[M51]") {
  const bool fails = GENERATE(false, true);
  const bool in_callback = GENERATE(false, true);
  CAPTURE(fails, in_callback);
  auto events = std::make_shared<EventRecorder>();
  TestGroup group;
  RawListener listener;
  std::thread::id loop_thread, came_on;
  REQUIRE(group.On([&] { loop_thread = std::this_thread::get_id(); }));
  std::atomic<bool> inside_dial{false};
  bool nested = false;
  std::error_code why;
  events->on_connected = [&](const ConnPtr&) {
    nested = inside_dial;
    came_on = std::this_thread::get_id();
  };
  events->on_dial_failed = [&](const ConnPtr&, std::error_code error) {
    nested = inside_dial;
    came_on = std::this_thread::get_id();
    why = error;
  };
  const ConnPtr conn = NewConn(WithDefaults({}, events), group.loop());
  REQUIRE_FALSE(conn->Send("before the dial"));
  std::error_code returned;
  const auto dial = [&] {
    inside_dial = in_callback;
    returned = conn->Dial(fails ? "127.0.0.1:1" : listener.address());
    inside_dial = false;
  };
  if (in_callback) {
    REQUIRE(group.On(dial));
  } else {
    dial();
  }
  REQUIRE_FALSE(returned);
  if (fails) {
    REQUIRE(events->WaitForDialsFailed(1));
    REQUIRE(why == System(ECONNREFUSED));
    REQUIRE(conn->Stats().error == why);
    REQUIRE(conn->Send("x") == Errc::kClosed);
  } else {
    REQUIRE(events->WaitForConnected(1));
    RawPeer peer = listener.Accept();
    std::string bytes;
    REQUIRE(peer.ReadExactly(15, &bytes) == End::kOpen);
    REQUIRE(bytes == "before the dial");
    REQUIRE(conn->loop() == group.loop());
  }
  REQUIRE_FALSE(nested);
  REQUIRE(came_on == loop_thread);
  REQUIRE(group.Finish() == "");
  REQUIRE(events->totals().connected == (fails ? 0 : 1));
  REQUIRE(events->totals().dials_failed == (fails ? 1 : 0));
  REQUIRE(events->Verify() == "");
}

TEST_CASE("OnDialFailed comes for DialAndServe too, with or without a shared loop", "[M51][M31]") {
  const bool shared = GENERATE(false, true);
  auto events = std::make_shared<EventRecorder>();
  TestGroup group;
  std::error_code why;
  events->on_dial_failed = [&](const ConnPtr&, std::error_code error) { why = error; };
  const ConnPtr conn =
      shared ? NewConn(WithDefaults({}, events), group.loop()) : NewConn(WithDefaults({}, events));
  std::error_code returned;
  WithinDeadline("a dial", [&] { returned = conn->DialAndServe("127.0.0.1:1"); });
  REQUIRE(returned == System(ECONNREFUSED));
  REQUIRE(why == returned);
  REQUIRE(events->totals().dials_failed == 1);
  REQUIRE(group.Finish() == "");
}

TEST_CASE("a stop ends a dial with kStopped, before a stop that waits returns", "[M51][M22]") {
  const int whose = GENERATE(0, 1);
  const StopMode mode = GENERATE(StopMode::kImmediately, StopMode::kGracefullyButNotWait,
                                 StopMode::kGracefullyAndWait);
  auto events = std::make_shared<EventRecorder>();
  TestGroup group(2);
  HungListener hung;
  std::error_code why;
  events->on_dial_failed = [&](const ConnPtr&, std::error_code error) { why = error; };
  const ConnPtr conn = NewConn(WithDefaults({}, events), group.loop(1));
  const std::uint64_t connects = CallsOf(Site::kConnect);
  REQUIRE_FALSE(conn->Dial(hung.listener.address()));
  REQUIRE(WaitUntil([&] { return CallsOf(Site::kConnect) > connects; }));
  StopReport report;
  WithinDeadline("a stop", [&] {
    if (whose == 0) {
      static_cast<void>(conn->Stop(mode));
      report = conn->Stop(StopMode::kGracefullyAndWait);
    } else {
      static_cast<void>(group->Stop(mode));
      report = group->Stop(StopMode::kGracefullyAndWait);
    }
  });
  REQUIRE(events->totals().dials_failed == 1);
  REQUIRE(why == Errc::kStopped);
  REQUIRE(report.connections == 0);
  REQUIRE(group.Finish() == "");
}

TEST_CASE("DialAndServe on a shared loop waits until the connection has ended", "[M53]") {
  auto events = std::make_shared<EventRecorder>();
  TestGroup group;
  RawListener listener;
  const ConnPtr conn = NewConn(WithDefaults({}, events), group.loop());
  Signal ended;
  std::error_code returned{EINVAL, std::system_category()};
  std::thread dials([&] {
    returned = conn->DialAndServe(listener.address());
    ended.Set();
  });
  RawPeer peer = listener.Accept();
  REQUIRE(events->WaitForConnected(1));
  REQUIRE_FALSE(ended.IsSet());
  const int how = GENERATE(0, 1, 2);
  if (how == 0) peer.Close();
  if (how == 1) static_cast<void>(conn->Stop(StopMode::kImmediately));
  if (how == 2) static_cast<void>(group->Stop(StopMode::kImmediately));
  REQUIRE(ended.Wait());
  dials.join();
  REQUIRE_FALSE(returned);
  REQUIRE(events->totals().closed == 1);
  REQUIRE(group.Finish() == "");
  REQUIRE(events->Verify() == "");
}

TEST_CASE("DialAndServe is kStopped when the group ends before the connection is established",
          "[M53]") {
  auto events = std::make_shared<EventRecorder>();
  auto group = std::make_unique<LoopGroup>();
  HungListener hung;
  const bool runs = GENERATE(false, true);
  std::error_code ran, returned;
  std::thread running;
  if (runs) running = std::thread([&, g = group.get()] { ran = g->Run(); });
  const ConnPtr conn = NewConn(WithDefaults({}, events), (*group)[0]);
  // So that it is certain that the dial has begun when the group stops.
  FaultPlan plan;
  Signal begun;
  plan.Add({.site = Site::kConnect, .act = [&](int) { begun.Set(); }});
  std::thread dials([&] { returned = conn->DialAndServe(hung.listener.address()); });
  if (runs) REQUIRE(begun.Wait());
  WithinDeadline("a group's end", [&] { group.reset(); });
  WithinDeadline("a dial", [&] { dials.join(); });
  if (runs) running.join();
  REQUIRE(returned == Errc::kStopped);
  REQUIRE_FALSE(ran);
  REQUIRE(events->totals().connected == 0);
}

// ---- Names.

// A resolver that answers when it is told to.
struct SlowResolver {
  SlowResolver() {
    plan.Add({.site = Site::kGetAddrInfo,
              .error = EAI_NONAME,
              .times = Fault::kAlways,
              .act = [this](int) {
                asked.Add();
                goes_on.Wait(3 * kDeadline);
              }});
  }
  FaultPlan plan;
  Tally asked;
  Signal goes_on;
};

TEST_CASE("a slow resolver delays no connection, no timer and no stop", "[M52]") {
  SlowResolver resolver;
  auto events = std::make_shared<EventRecorder>();
  events->on_recv = Echo;
  auto group = std::make_unique<TestGroup>();
  const auto server = StartServer(**group, events);
  auto dials = std::make_shared<EventRecorder>();
  std::vector<ConnPtr> conns;
  for (int i = 0; i < 10; ++i) {
    conns.push_back(NewConn(WithDefaults({}, dials), group->loop()));
    REQUIRE_FALSE(conns.back()->Dial("slow.name:80"));
  }
  REQUIRE(resolver.asked.WaitFor(4));
  std::string blocked;
  REQUIRE(ThreadsNamed("xtcp-names", &blocked) == 4);
  // All signals but those that cannot be blocked, and those of the C library.
  const std::uint64_t mask = std::stoull(blocked, nullptr, 16);
  for (const int signal : {SIGINT, SIGTERM, SIGHUP, SIGUSR1, SIGALRM, SIGCHLD, SIGRTMIN}) {
    REQUIRE((mask >> (signal - 1) & 1) == 1);
  }
  // Connections and timers go on.
  RawPeer peer(AddressOf(*server));
  for (int i = 0; i < 10; ++i) {
    REQUIRE(peer.SendAll(Frame("x")));
    REQUIRE(peer.ReadFrame() == "x");
  }
  Signal timer;
  const Timer soon = group->loop().RunAfter(1ms, [&] { timer.Set(); });
  REQUIRE(timer.Wait());
  // A stop of one dial ends it at once; so does that of the group, and Run returns.
  static_cast<void>(conns[0]->Stop(StopMode::kGracefullyAndWait));
  REQUIRE(dials->totals().dials_failed == 1);
  REQUIRE(group->Finish() == "");
  REQUIRE(dials->totals().dials_failed == 10);
  for (const ConnPtr& conn : conns) REQUIRE(conn->Stats().error == Errc::kStopped);
  // The handle's end waits for the look-ups that are under way, and the threads are gone then.
  Signal destroyed;
  std::thread destroys([&] {
    group.reset();
    destroyed.Set();
  });
  REQUIRE_FALSE(destroyed.IsSet());
  resolver.goes_on.Set();
  REQUIRE(destroyed.Wait());
  destroys.join();
  REQUIRE(ThreadsNamed("xtcp-names") == 0);
  REQUIRE(resolver.asked.count() == 4);  // those that waited were dropped
  REQUIRE(events->Verify() == "");
}

TEST_CASE("at most 1,024 look-ups wait: a Dial beyond is kFull", "[M52][M51]") {
  SlowResolver resolver;
  auto events = std::make_shared<EventRecorder>();
  TestGroup group;
  std::vector<ConnPtr> conns;
  std::size_t accepted = 0, full = 0;
  const auto dial = [&] {
    conns.push_back(NewConn(WithDefaults({}, events), group.loop()));
    return conns.back()->Dial("slow.name:80");
  };
  for (int i = 0; i < 4; ++i) REQUIRE_FALSE(dial());
  REQUIRE(resolver.asked.WaitFor(4));
  for (int i = 0; i < 1100; ++i) {
    const std::error_code error = dial();
    if (error) REQUIRE(error == Errc::kFull);
    ++(error ? full : accepted);
  }
  REQUIRE(accepted == 1024);
  REQUIRE(full == 76);
  REQUIRE(conns.back()->Stats().reason == CloseReason::kConnectFailed);
  resolver.goes_on.Set();
  REQUIRE(events->WaitForDialsFailed(1028));
  REQUIRE(group.Finish() == "");
  REQUIRE(events->totals().dials_failed == 1028);
}

TEST_CASE("connect_timeout begins with the call of Dial, and includes the look-up", "[M52]") {
  VirtualClock clock;
  SlowResolver resolver;
  auto events = std::make_shared<EventRecorder>();
  std::error_code why;
  events->on_dial_failed = [&](const ConnPtr&, std::error_code error) { why = error; };
  {
    TestGroup group;
    Options options;
    options.connect_timeout = 100ms;
    const ConnPtr conn = NewConn(WithDefaults(options, events), group.loop());
    REQUIRE_FALSE(conn->Dial("slow.name:80"));
    REQUIRE(resolver.asked.WaitFor(1));
    REQUIRE(clock.Settle());
    clock.Advance(99ms);
    REQUIRE(clock.Settle());
    REQUIRE(events->totals().dials_failed == 0);
    clock.Advance(1ms);
    REQUIRE(clock.Settle());
    REQUIRE(events->totals().dials_failed == 1);
    REQUIRE(why == System(ETIMEDOUT));
    REQUIRE(group.Finish() == "");
    resolver.goes_on.Set();
  }
}

TEST_CASE("a name's addresses are tried in turn on the loop", "[M52][M31][M32]") {
  const FaultPlan no_faults;
  RawListener listener;
  const FakeNames names({"127.0.0.9", "127.0.0.1"});
  auto events = std::make_shared<EventRecorder>();
  TestGroup group;
  const ConnPtr conn = NewConn(WithDefaults({}, events), group.loop());
  REQUIRE_FALSE(conn->Dial("some.name:" + std::to_string(listener.port())));
  REQUIRE(events->WaitForConnected(1));
  REQUIRE(conn->RemoteAddress().ToString() == listener.address());
  REQUIRE(group.Finish() == "");
  REQUIRE(events->Verify() == "");
}

TEST_CASE("a thread for look-ups that cannot be started is the dial's error", "[M52][M51]") {
  FaultPlan plan;
  auto events = std::make_shared<EventRecorder>();
  TestGroup group;
  plan.Add({.site = Site::kStartThread, .error = EAGAIN});
  const ConnPtr conn = NewConn(WithDefaults({}, events), group.loop());
  REQUIRE(conn->Dial("some.name:80") == System(EAGAIN));
  REQUIRE(conn->Stats().reason == CloseReason::kConnectFailed);
  REQUIRE(group.Finish() == "");
  REQUIRE(events->totals().dials_failed == 0);
}

TEST_CASE("each system call of a dial may fail, and the loop goes on", "[M51][R5]") {
  const Site site = GENERATE(Site::kSocket, Site::kSetSockOpt, Site::kConnect, Site::kEpollCtl,
                             Site::kGetSockOpt, Site::kGetSockName);
  CAPTURE(static_cast<int>(site));
  auto events = std::make_shared<EventRecorder>();
  TestGroup group;
  RawListener listener;
  {
    FaultPlan plan;
    plan.Add({.site = site, .error = ENOBUFS, .times = Fault::kAlways});
    const ConnPtr conn = NewConn(WithDefaults({}, events), group.loop());
    REQUIRE_FALSE(conn->Dial(listener.address()));
    REQUIRE(
        WaitUntil([&] { return events->totals().dials_failed + events->totals().connected == 1; }));
    static_cast<void>(conn->Stop(StopMode::kImmediately));
    static_cast<void>(conn->Stop(StopMode::kGracefullyAndWait));
  }
  const ConnPtr next = NewConn(WithDefaults({}, events), group.loop());
  const std::size_t before = events->totals().connected;
  REQUIRE_FALSE(next->Dial(listener.address()));
  REQUIRE(events->WaitForConnected(before + 1));
  REQUIRE(group.Finish() == "");
  REQUIRE(events->Verify() == "");
}

// ---- Many.

TEST_CASE("a thousand dialled connections need one thread", "[M54]") {
  const FaultPlan no_faults;
  constexpr std::size_t kConns = 1000;
  auto events = std::make_shared<EventRecorder>();
  events->keep_payloads = false;
  TestGroup group(1);
  const auto server = StartServer(*group, events);
  const std::string address = AddressOf(*server);
  const std::size_t threads = ThreadCount();
  std::vector<ConnPtr> conns;
  for (std::size_t i = 0; i < kConns; ++i) {
    conns.push_back(NewConn(WithDefaults({}, events), group.loop()));
    REQUIRE_FALSE(conns.back()->Dial(address));
  }
  REQUIRE(events->WaitForConnected(kConns));
  REQUIRE(events->WaitForAccepted(kConns));
  REQUIRE(ThreadCount() == threads);
  REQUIRE(group.loop().Stats().connections == 2 * kConns);
  for (const ConnPtr& conn : conns) REQUIRE_FALSE(conn->Send(Frame("x")));
  REQUIRE(events->WaitForPackets(kConns));
  REQUIRE(group.Finish() == "");
  REQUIRE(group.loop().Stats().connections == 0);
  REQUIRE(events->Verify() == "");
}

}  // namespace
}  // namespace xtcp::test
