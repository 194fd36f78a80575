// How a group of loops ends: what a stop tells, and ends in every order.

#include <xtcp/xtcp.h>

#include <array>
#include <atomic>
#include <catch2/catch.hpp>
#include <cerrno>
#include <chrono>
#include <functional>
#include <memory>
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

// ---- What a stop tells.

TEST_CASE("after a stop nothing begins, but tasks are taken until the end", "[M42][M44]") {
  TestGroup group;
  auto events = std::make_shared<EventRecorder>();
  Server server(WithDefaults({}, events), *group);
  REQUIRE_FALSE(server.Listen("127.0.0.1:0"));
  const ConnPtr conn = NewConn(WithDefaults({}, events), group.loop());
  Redialer redialer(WithDefaults({}, events), "127.0.0.1:9", group.loop());
  std::error_code posted{EINVAL, std::system_category()};
  bool ran = false;
  REQUIRE(group.On([&] {
    static_cast<void>(group->Stop(StopMode::kGracefullyButNotWait));
    posted = group.loop().Post([&] { ran = true; });
    Timer none = group.loop().RunAfter(0ms, [] {});
  }));
  REQUIRE(server.Start() == Errc::kStopped);
  Server served(WithDefaults({}, events), *group);
  REQUIRE_FALSE(served.Listen("127.0.0.1:0"));
  REQUIRE_FALSE(served.Serve());  // a stop came first (M15)
  REQUIRE(conn->Dial("127.0.0.1:9") == Errc::kStopped);
  REQUIRE(conn->Dial("127.0.0.1:9") == Errc::kAlreadyUsed);
  REQUIRE(redialer.Start() == Errc::kStopped);
  REQUIRE_FALSE(posted);
  REQUIRE(group.Finish() == "");
  REQUIRE(group.loop().Post([] {}) == Errc::kStopped);
  REQUIRE(events->connections().empty());
}

TEST_CASE("a stop of a group reports each connection on it, whoever else stopped it",
          "[M42][M21]") {
  const std::size_t loops = GENERATE(1, 2);
  auto events = std::make_shared<EventRecorder>();
  TestGroup group(loops);
  Options options;
  options.linger_timeout = 50ms;
  const auto one = StartServer(*group, events, options);
  const auto other = StartServer(*group, events, options);
  // They never close, and never read: the linger timeout cuts them.
  std::vector<RawPeer> peers;
  for (int i = 0; i < 2; ++i) peers.emplace_back(AddressOf(*one));
  for (int i = 0; i < 3; ++i) peers.emplace_back(AddressOf(*other));
  RawListener listener;
  const ConnPtr dialled = NewConn(WithDefaults(options, events), group.loop(loops - 1));
  REQUIRE_FALSE(dialled->Dial(listener.address()));
  RawPeer accepted = listener.Accept();
  REQUIRE(events->WaitForAccepted(5));
  REQUIRE(events->WaitForConnected(1));
  REQUIRE(one->Stop(StopMode::kGracefullyButNotWait).connections == 2);
  const StopReport begun = group->Stop(StopMode::kGracefullyButNotWait);
  REQUIRE(begun.connections == 6);
  REQUIRE(group.Finish(StopMode::kGracefullyAndWait) == "");
  REQUIRE(group.report().connections == 6);
  REQUIRE(group.report().cut == 6);
  const StopReport of_one = one->Stop(StopMode::kGracefullyAndWait);
  const StopReport of_other = other->Stop(StopMode::kGracefullyAndWait);
  REQUIRE(of_one.connections == 2);
  REQUIRE(of_one.cut == 2);
  REQUIRE(of_other.connections == 3);
  REQUIRE(of_other.cut == 3);
  REQUIRE(events->Verify() == "");
}

// How often, where and with what an `ended` was called.
struct Told {
  std::atomic<int> calls{0};
  std::atomic<std::size_t> connections{0};
  std::atomic<bool> in_callback{false};
  std::thread::id thread;
  Signal done;

  std::function<void(const StopReport&)> Call() {
    return [this](const StopReport& report) {
      ++calls;
      connections = report.connections;
      thread = std::this_thread::get_id();
      LoopGroup probe;
      in_callback = probe.Run() == Errc::kWouldDeadlock;
      done.Set();
    };
  }
};

TEST_CASE("Stop(mode, ended) never waits, and says when it is over, as a task of a loop",
          "[M42][M24]") {
  const bool of_redialer = GENERATE(false, true);
  const StopMode mode = GENERATE(StopMode::kImmediately, StopMode::kGracefullyButNotWait,
                                 StopMode::kGracefullyAndWait);
  CAPTURE(of_redialer, static_cast<int>(mode));
  auto events = std::make_shared<EventRecorder>();
  TestGroup group;
  std::thread::id loop_thread;
  REQUIRE(group.On([&] { loop_thread = std::this_thread::get_id(); }));
  RawListener listener;
  std::unique_ptr<Server> server;
  std::unique_ptr<Redialer> redialer;
  RawPeer peer;
  if (of_redialer) {
    redialer =
        std::make_unique<Redialer>(WithDefaults({}, events), listener.address(), group.loop());
    REQUIRE_FALSE(redialer->Start());
    peer = listener.Accept();
    REQUIRE(events->WaitForConnected(1));
  } else {
    server = StartServer(*group, events);
    peer = RawPeer(AddressOf(*server));
    REQUIRE(events->WaitForAccepted(1));
  }
  const auto stop = [&](std::function<void(const StopReport&)> ended) {
    return of_redialer ? redialer->Stop(mode, std::move(ended))
                       : server->Stop(mode, std::move(ended));
  };
  Told first, second, late, nobody;
  REQUIRE(stop(first.Call()).connections == 1);
  if (mode != StopMode::kImmediately) REQUIRE_FALSE(first.done.IsSet());
  REQUIRE_FALSE(stop(second.Call()).error);
  REQUIRE_FALSE(stop(nullptr).error);
  static_cast<void>(peer.ReadAll());
  peer.Close();
  REQUIRE(first.done.Wait());
  REQUIRE(second.done.Wait());
  static_cast<void>(stop(late.Call()));  // it is over already
  REQUIRE(late.done.Wait());
  for (const Told* told : {&first, &second, &late}) {
    REQUIRE(told->calls == 1);
    REQUIRE(told->connections == 1);
    REQUIRE(told->in_callback);
    REQUIRE(told->thread == loop_thread);
  }
  REQUIRE(group.Finish() == "");
  // Its loops have ended: the call returns after it.
  Told after;
  static_cast<void>(stop(after.Call()));
  REQUIRE(after.calls == 1);
  REQUIRE(after.connections == 1);
  REQUIRE(events->Verify() == "");
}

TEST_CASE("where nothing ever ran, ended is called before the call returns", "[M42][M20]") {
  auto events = std::make_shared<EventRecorder>();
  const bool started = GENERATE(false, true);
  const bool running = GENERATE(false, true);
  CAPTURE(started, running);
  LoopGroup idle;
  std::unique_ptr<TestGroup> runs;
  if (running && !started) runs = std::make_unique<TestGroup>();
  LoopGroup& group = runs != nullptr ? **runs : idle;
  Server server(WithDefaults({}, events), group);
  REQUIRE_FALSE(server.Listen("127.0.0.1:0"));
  Redialer redialer(WithDefaults({}, events), "127.0.0.1:9", group[0]);
  if (started) {
    REQUIRE_FALSE(server.Start());
    REQUIRE_FALSE(redialer.Start());
  }
  for (int i = 0; i < 2; ++i) {
    Told of_server, of_redialer;
    static_cast<void>(server.Stop(StopMode::kGracefullyAndWait, of_server.Call()));
    REQUIRE(of_server.calls == 1);
    REQUIRE(of_server.in_callback);
    static_cast<void>(redialer.Stop(StopMode::kGracefullyAndWait, of_redialer.Call()));
    REQUIRE(of_redialer.calls == 1);
  }
  REQUIRE(server.Start() != std::error_code());
  REQUIRE(redialer.Start() == Errc::kStopped);
  if (runs != nullptr) REQUIRE(runs->Finish() == "");
}

// ---- Ends in every order.

TEST_CASE("a group and what was made for it are destroyed in any order", "[M45]") {
  // Which of them goes first, second and so on.
  std::array<int, 5> order{0, 1, 2, 3, 4};
  const bool runs = GENERATE(false, true);
  do {
    CAPTURE(order, runs);
    auto events = std::make_shared<EventRecorder>();
    RawListener listener;
    auto group = runs ? nullptr : std::make_unique<LoopGroup>(2);
    std::unique_ptr<TestGroup> running;
    if (runs) {
      running = std::make_unique<TestGroup>(2);
      group = running->Release();
    }
    auto server = StartServer(*group, events);
    auto conn = NewConn(WithDefaults({}, events), (*group)[1]);
    REQUIRE_FALSE(conn->Dial(listener.address()));
    auto redialer =
        std::make_unique<Redialer>(WithDefaults({}, events), listener.address(), (*group)[0]);
    REQUIRE_FALSE(redialer->Start());
    Timer timer = (*group)[1].RunAfter(1h, [] {});
    const Loop loop = (*group)[0];
    RawPeer peer(AddressOf(*server));
    std::vector<RawPeer> accepted;
    if (runs) {
      REQUIRE(events->WaitForAccepted(1));
      REQUIRE(events->WaitForConnected(2));
      for (int i = 0; i < 2; ++i) accepted.push_back(listener.Accept());
    }
    WithinDeadline("an end", [&] {
      for (const int next : order) {
        if (next == 0) group.reset();
        if (next == 1) server.reset();
        if (next == 2) {
          static_cast<void>(conn->Stop(StopMode::kImmediately));
          conn.reset();
        }
        if (next == 3) redialer.reset();
        if (next == 4) timer = Timer();
      }
    });
    if (running != nullptr) REQUIRE(running->Finish() == "");
    REQUIRE(loop.Post([] {}) == Errc::kStopped);
    REQUIRE_FALSE(loop.RunAfter(0ms, [] {}).armed());
    REQUIRE(events->totals().closed == events->totals().accepted + events->totals().connected);
    REQUIRE(events->Verify() == "");
  } while (std::next_permutation(order.begin(), order.end()));
}

TEST_CASE("all of them may be destroyed inside a callback", "[M45][M24]") {
  const int which = GENERATE(0, 1, 2, 3);
  CAPTURE(which);
  auto events = std::make_shared<EventRecorder>();
  RawListener listener;
  TestGroup running(2);
  auto group = running.Release();
  auto server = StartServer(*group, events);
  auto redialer =
      std::make_unique<Redialer>(WithDefaults({}, events), listener.address(), (*group)[0]);
  REQUIRE_FALSE(redialer->Start());
  Timer timer = (*group)[1].RunAfter(1h, [] {});
  const auto end_all = [&] {
    group.reset();
    server.reset();
    redialer.reset();
    timer = Timer();
  };
  Signal done;
  const auto once = [&] {
    if (!done.IsSet()) end_all();
    done.Set();
  };
  RawPeer accepted = listener.Accept();
  REQUIRE(events->WaitForConnected(1));
  const std::string address = AddressOf(*server);
  if (which == 0) REQUIRE_FALSE((*group)[0].Post([&] { once(); }));
  if (which == 1) (*group)[1].RunAfter(0ms, [&] { once(); }).Detach();
  if (which == 2) {
    const Loop loop = (*group)[0];
    const ConnPtr conn = redialer->conn();
    REQUIRE_FALSE(conn->Post([&] { once(); }));
  }
  RawPeer peer;
  if (which == 3) {
    events->on_accept = [&](const ConnPtr&) { once(); };
    peer = RawPeer(address);
  }
  REQUIRE(done.Wait());
  REQUIRE(running.WaitForEnd());
  REQUIRE(running.Finish() == "");
  REQUIRE(events->Verify() == "");
}

TEST_CASE("a server's end waits for its last connection, and not for the group", "[M45]") {
  auto events = std::make_shared<EventRecorder>();
  auto others = std::make_shared<EventRecorder>();
  TestGroup group(2);
  auto server = StartServer(*group, events);
  const auto stays = StartServer(*group, others);
  RawPeer peer(AddressOf(*server)), other(AddressOf(*stays));
  REQUIRE(events->WaitForAccepted(1));
  REQUIRE(others->WaitForAccepted(1));
  Signal inside, goes_on;
  events->on_closed = [&](const ConnPtr&) {
    inside.Set();
    goes_on.Wait();
  };
  Signal destroyed;
  std::thread ends([&] {
    server.reset();
    destroyed.Set();
  });
  REQUIRE(inside.Wait());
  REQUIRE_FALSE(destroyed.IsSet());
  goes_on.Set();
  REQUIRE(destroyed.Wait());
  ends.join();
  REQUIRE(others->totals().closed == 0);
  REQUIRE(other.SendAll(Frame("still there")));
  REQUIRE(others->WaitForPackets(1));
  REQUIRE(group.Finish() == "");
  REQUIRE(events->Verify() == "");
  REQUIRE(others->Verify() == "");
}

}  // namespace
}  // namespace xtcp::test
