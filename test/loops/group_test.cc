// How a group of loops begins and runs, and what may wait for its end.

#include <sys/wait.h>
#include <unistd.h>
#include <xtcp/xtcp.h>

#include <atomic>
#include <catch2/catch.hpp>
#include <cerrno>
#include <chrono>
#include <functional>
#include <memory>
#include <system_error>
#include <thread>
#include <vector>

#include "support/fake_names.h"
#include "support/fault_control.h"
#include "support/leak_guard.h"
#include "support/raw_peer.h"
#include "support/test_group.h"

namespace xtcp::test {
namespace {

using namespace std::chrono_literals;

TEST_CASE("a group runs until a stop has ended everything that lived on it", "[M41][M42]") {
  const std::size_t loops = GENERATE(1, 3);
  const StopMode mode = GENERATE(StopMode::kImmediately, StopMode::kGracefullyButNotWait,
                                 StopMode::kGracefullyAndWait);
  CAPTURE(loops, static_cast<int>(mode));
  auto events = std::make_shared<EventRecorder>();
  TestGroup group(loops);
  const auto server = StartServer(*group, events);
  std::vector<RawPeer> peers;
  for (std::size_t i = 0; i < 4; ++i) peers.emplace_back(AddressOf(*server));
  REQUIRE(events->WaitForAccepted(4));
  Signal stopped;
  StopReport report;
  std::thread stopper([&] {
    report = group->Stop(mode);
    stopped.Set();
  });
  for (RawPeer& peer : peers) {
    REQUIRE(peer.ReadAll() != End::kTimeout);
    peer.Close();
  }
  REQUIRE(stopped.Wait());
  stopper.join();
  REQUIRE(group.WaitForEnd());
  REQUIRE(events->totals().closed == 4);
  REQUIRE(report.connections == 4);
  REQUIRE(group.Finish() == "");
  REQUIRE(group.report().connections == 4);
  REQUIRE(server->IsStopped());
  REQUIRE(server->Stop(StopMode::kGracefullyAndWait).connections == 4);
  REQUIRE(events->Verify() == "");
}

TEST_CASE("a group runs once, and not inside a callback", "[M41][M24]") {
  TestGroup group(2);
  REQUIRE(group.On([] {}));
  REQUIRE(group->Run() == Errc::kAlreadyUsed);
  std::error_code inside;
  LoopGroup other;
  REQUIRE(group.On([&] { inside = other.Run(); }));
  REQUIRE(inside == Errc::kWouldDeadlock);
  REQUIRE(group.Finish() == "");
  REQUIRE(group->Run() == Errc::kAlreadyUsed);
}

TEST_CASE("a group that was stopped first returns from Run at once", "[M41][M46]") {
  LoopGroup group(2);
  bool destroyed_here = false;
  const auto here = std::this_thread::get_id();
  const std::shared_ptr<void> probe(
      nullptr, [&](void*) { destroyed_here = std::this_thread::get_id() == here; });
  REQUIRE_FALSE(group[0].Post([probe = probe] { FAIL("it runs"); }));
  REQUIRE(probe.use_count() == 2);
  REQUIRE(group.Stop(StopMode::kGracefullyAndWait).connections == 0);
  REQUIRE(probe.use_count() == 1);  // what was accepted is destroyed
  REQUIRE(group[0].Post([] {}) == Errc::kStopped);
  REQUIRE_FALSE(group.Run());
  REQUIRE(group.Run() == Errc::kAlreadyUsed);
  REQUIRE(group.IsStopped());
}

TEST_CASE("tasks and timers hold the end up no longer than the one that runs", "[M41][M46]") {
  TestGroup group;
  Signal begins, goes_on;
  std::atomic<int> ran{0};
  std::atomic<int> destroyed{0}, destroyed_elsewhere{0};
  std::thread::id loop_thread;
  REQUIRE(group.On([&] { loop_thread = std::this_thread::get_id(); }));
  const auto probe = [&] {
    return std::shared_ptr<void>(nullptr, [&](void*) {
      ++destroyed;
      if (std::this_thread::get_id() != loop_thread) ++destroyed_elsewhere;
    });
  };
  REQUIRE_FALSE(group.loop().Post([&] {
    begins.Set();
    goes_on.Wait();
  }));
  REQUIRE(begins.Wait());
  // One that posts itself for ever, and a timer for each millisecond.
  std::function<void()> again = [&] {
    ++ran;
    static_cast<void>(group.loop().Post([&again] { again(); }));
  };
  REQUIRE_FALSE(group.loop().Post([&again] { again(); }));
  Timer every = group.loop().RunEvery(1ms, [&, held = probe()] { ++ran; });
  Timer late = group.loop().RunAfter(1h, [held = probe()] {});
  late.Detach();
  static_cast<void>(group->Stop(StopMode::kGracefullyButNotWait));
  goes_on.Set();
  REQUIRE(group.WaitForEnd());
  REQUIRE(destroyed == 2);
  REQUIRE(destroyed_elsewhere == 0);
  REQUIRE_FALSE(every.armed());
  REQUIRE_FALSE(late.armed());
  const int then = ran;
  REQUIRE(group.Finish() == "");
  REQUIRE(ran == then);
}

TEST_CASE("a group without a stop runs on although nothing lives on it", "[M41]") {
  auto events = std::make_shared<EventRecorder>();
  TestGroup group;
  {
    const auto server = StartServer(*group, events);
    RawPeer peer(AddressOf(*server));
    REQUIRE(events->WaitForAccepted(1));
  }
  REQUIRE(events->totals().closed == 1);
  REQUIRE(group.On([] {}));
  {
    const auto server = StartServer(*group, events);
    RawPeer peer(AddressOf(*server));
    REQUIRE(events->WaitForAccepted(2));
  }
  REQUIRE(group.On([] {}));
  REQUIRE(group.Finish() == "");
  REQUIRE(group.report().connections == 0);
  REQUIRE(events->Verify() == "");
}

TEST_CASE("before it runs a group opens nothing and starts no thread", "[M41]") {
  auto events = std::make_shared<EventRecorder>();
  // To look up a real name the C library opens files and a socket for a moment.
  const FakeNames names({"127.0.0.1"});
  const Holdings before = Holdings::Now();
  LoopGroup group(3);
  Server server(WithDefaults({}, events), group);
  const ConnPtr conn = NewConn(WithDefaults({}, events), group.Next());
  REQUIRE_FALSE(conn->Dial("no.name.here:1"));
  Redialer redialer(WithDefaults({}, events), "127.0.0.1:1", group.Next());
  REQUIRE_FALSE(redialer.Start());
  const Timer timer = group[1].RunAfter(1ms, [] {});
  REQUIRE_FALSE(group[2].Post([] {}));
  const Holdings with = Holdings::Now();
  // The look-up of a name may have a thread, which is not a loop's.
  REQUIRE(with.descriptors == before.descriptors);
  REQUIRE(group.Stop(StopMode::kGracefullyAndWait).connections == 0);
  REQUIRE(redialer.Stop(StopMode::kGracefullyAndWait).connections == 0);
  REQUIRE(conn->Stats().reason == CloseReason::kConnectFailed);
  REQUIRE(events->totals().dials_failed == 0);  // it ends without an event
}

TEST_CASE("a loop that cannot be opened or started ends its group with that error", "[M41][M34]") {
  struct Failing {
    Site site;
    int error;
    std::size_t first;
  };
  const Failing failing =
      GENERATE(Failing{Site::kEpollCreate, EMFILE, 1}, Failing{Site::kEventFd, ENFILE, 1},
               Failing{Site::kEpollCreate, ENOMEM, 2}, Failing{Site::kStartThread, EAGAIN, 1},
               Failing{Site::kStartThread, EAGAIN, 2});
  CAPTURE(static_cast<int>(failing.site), failing.first);
  FaultPlan plan;
  plan.Add({.site = failing.site, .error = failing.error, .first = failing.first});
  auto events = std::make_shared<EventRecorder>();
  LoopGroup group(3);
  Server server(WithDefaults({}, events), group);
  REQUIRE_FALSE(server.Listen("127.0.0.1:0"));
  REQUIRE_FALSE(server.Start());
  const ConnPtr conn = NewConn(WithDefaults({}, events), group[2]);
  // Nobody there would end a connection that a stop finds established.
  RawListener hung(0);
  RawPeer fills_it(hung.port());  // the queue is full: further SYNs are dropped
  REQUIRE_FALSE(conn->Dial(hung.address()));
  Redialer redialer(WithDefaults({}, events), hung.address(), group[1]);
  REQUIRE_FALSE(redialer.Start());
  const auto held_by_tasks = std::make_shared<int>();
  for (std::size_t i = 0; i < 3; ++i) {
    REQUIRE_FALSE(group[i].Post([held = held_by_tasks] { static_cast<void>(held); }));
  }
  std::error_code error;
  WithinDeadline("Run", [&] { error = group.Run(); });
  REQUIRE(held_by_tasks.use_count() == 1);  // each was run or dropped
  REQUIRE(error == std::error_code(failing.error, std::system_category()));
  REQUIRE(plan.injected() == 1);
  REQUIRE(group.IsStopped());
  REQUIRE(server.IsStopped());
  WithinDeadline("the stops", [&] {
    static_cast<void>(server.Stop(StopMode::kGracefullyAndWait));
    static_cast<void>(conn->Stop(StopMode::kGracefullyAndWait));
    static_cast<void>(redialer.Stop(StopMode::kGracefullyAndWait));
  });
  REQUIRE(server.Stats().accepted == 0);
  REQUIRE(conn->Stats().reason != CloseReason::kNone);
  static_cast<void>(events->Verify());
}

TEST_CASE("a loop that goes on no more ends its group with that error", "[M41][M34]") {
  const std::size_t loops = GENERATE(1, 2);
  auto events = std::make_shared<EventRecorder>();
  FaultPlan plan;
  TestGroup group(loops);
  const auto server = StartServer(*group, events);
  RawPeer peer(AddressOf(*server));
  REQUIRE(events->WaitForAccepted(1));
  const ConnPtr dialled = NewConn(WithDefaults({}, events), group.loop(loops - 1));
  REQUIRE_FALSE(dialled->Dial(AddressOf(*server)));
  REQUIRE(events->WaitForConnected(1));
  REQUIRE(events->WaitForAccepted(2));
  plan.Add({.site = Site::kEpollWait, .error = EBADF});
  REQUIRE(group.On([] {}));  // wakes the first loop
  static_cast<void>(peer.ReadAll());
  peer.Close();
  REQUIRE(group.WaitForEnd());
  REQUIRE(group.Finish(StopMode::kImmediately, {EBADF, std::system_category()}) == "");
  REQUIRE(events->totals().closed == 3);
  REQUIRE(events->Verify() == "");
}

// ---- Waiting.

TEST_CASE("nothing waits inside a task, a timer or any callback of a loop", "[M26][M24]") {
  const int where = GENERATE(0, 1, 2, 3, 4, 5);
  CAPTURE(where);
  auto events = std::make_shared<EventRecorder>();
  RawListener listener;
  TestGroup group(2);
  const auto server = StartServer(*group, events);
  Redialer redialer(WithDefaults({}, events), listener.address(), group.loop(1));
  const ConnPtr conn = NewConn(WithDefaults({}, events), group.loop(1));
  const ConnPtr undialled = NewConn(WithDefaults({}, events), group.loop(1));
  std::vector<std::error_code> refused;
  Signal done;
  const auto wait = [&] {
    if (done.IsSet()) return;
    LoopGroup idle;
    refused = {group->Run(), idle.RunOnce(0ms), undialled->DialAndServe("127.0.0.1:9"),
               server->Serve()};
    for (const StopReport& report :
         {redialer.Stop(StopMode::kGracefullyAndWait), conn->Stop(StopMode::kGracefullyAndWait),
          server->Stop(StopMode::kGracefullyAndWait), group->Stop(StopMode::kGracefullyAndWait)}) {
      refused.push_back(report.error);
    }
    done.Set();
  };
  if (where == 3) events->on_dial_failed = [&](const ConnPtr&, std::error_code) { wait(); };
  if (where == 4) events->on_timer = [&](const ConnPtr&) { wait(); };
  if (where == 4) {  // not that of the redialer, which may come before `conn` is dialled
    events->on_connected = [&](const ConnPtr& c) {
      if (c == conn) c->SetTimer(1ms);
    };
  }
  REQUIRE_FALSE(redialer.Start());
  RawPeer accepted = listener.Accept();
  REQUIRE(events->WaitForConnected(1));
  REQUIRE_FALSE(conn->Dial(where == 3 ? "127.0.0.1:1" : listener.address()));
  RawPeer also = where == 3 ? RawPeer() : listener.Accept();
  if (where != 3) REQUIRE(events->WaitForConnected(2));
  if (where == 0) REQUIRE_FALSE(group.loop().Post(wait));
  if (where == 1) group.loop().RunAfter(0ms, wait).Detach();
  if (where == 2) REQUIRE_FALSE(conn->Post(wait));
  if (where == 5) {
    REQUIRE_FALSE(
        group.loop().Post([&, held = std::shared_ptr<void>(nullptr, [&](void*) { wait(); })] {}));
  }
  REQUIRE(done.Wait());
  for (const std::error_code& error : refused) REQUIRE(error == Errc::kWouldDeadlock);
  REQUIRE(refused.size() == 8);
  REQUIRE(group.Finish() == "");
  REQUIRE(events->Verify() == "");
}

TEST_CASE("on a group that nobody has run there is nothing to wait for", "[M26][M20][M51]") {
  auto events = std::make_shared<EventRecorder>();
  LoopGroup group(2);
  RawListener listener;
  Server server(WithDefaults({}, events), group);
  REQUIRE_FALSE(server.Listen("127.0.0.1:0"));
  REQUIRE_FALSE(server.Start());
  const ConnPtr conn = NewConn(WithDefaults({}, events), group[1]);
  REQUIRE_FALSE(conn->Dial(listener.address()));
  REQUIRE_FALSE(conn->Send("lost"));
  Redialer redialer(WithDefaults({}, events), listener.address(), group[0]);
  REQUIRE_FALSE(redialer.Start());
  std::size_t reported = 0;
  WithinDeadline("the stops", [&] {
    reported += server.Stop(StopMode::kGracefullyAndWait).connections;
    reported += conn->Stop(StopMode::kGracefullyAndWait).connections;
    reported += redialer.Stop(StopMode::kGracefullyAndWait).connections;
  });
  REQUIRE(reported == 0);
  REQUIRE(conn->Stats().reason == CloseReason::kConnectFailed);
  REQUIRE(conn->Stats().unsent_bytes() == 4);
  // The group itself goes on, and can be run.
  REQUIRE_FALSE(group.IsStopped());
  REQUIRE(group.Stop(StopMode::kGracefullyAndWait).connections == 0);
  REQUIRE_FALSE(group.Run());
  REQUIRE(events->connections().empty());
  REQUIRE(events->totals().dials_failed == 0);
}

TEST_CASE("a child of fork may leave the group alone, and the parent does not notice", "[M45]") {
  auto events = std::make_shared<EventRecorder>();
  TestGroup group(2);
  const auto server = StartServer(*group, events);
  RawPeer peer(AddressOf(*server));
  REQUIRE(events->WaitForAccepted(1));
  const pid_t child = ::fork();
  if (child == 0) ::_exit(7);
  int status = 0;
  REQUIRE(::waitpid(child, &status, 0) == child);
  REQUIRE(WEXITSTATUS(status) == 7);
  REQUIRE(peer.SendAll(Frame("on it goes")));
  REQUIRE(events->WaitForPackets(1));
  REQUIRE(group.Finish() == "");
  REQUIRE(events->Verify() == "");
}

}  // namespace
}  // namespace xtcp::test
