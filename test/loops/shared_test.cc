// Several services on the same loops.

#include <xtcp/xtcp.h>

#include <atomic>
#include <catch2/catch.hpp>
#include <chrono>
#include <map>
#include <memory>
#include <mutex>
#include <set>
#include <string>
#include <thread>
#include <vector>

#include "support/fault_control.h"
#include "support/raw_peer.h"
#include "support/test_group.h"

namespace xtcp::test {
namespace {

using namespace std::chrono_literals;

// Notes whether callbacks of one loop overlap, whosever they are.
struct OneAtATime {
  void Enter() {
    if (inside.exchange(true)) overlapped = true;
    ++calls;
    std::this_thread::yield();
    inside = false;
  }
  std::atomic<bool> inside{false}, overlapped{false};
  std::size_t calls = 0;  // of the loop alone: no atomic, so that the thread sanitizer sees a race
};

TEST_CASE("callbacks of all services on a loop come one after the other", "[M43][M25]") {
  TestGroup group(1);
  OneAtATime loop;
  std::vector<std::shared_ptr<EventRecorder>> recorders;
  std::vector<std::unique_ptr<Server>> servers;
  for (int i = 0; i < 3; ++i) {
    auto events = std::make_shared<EventRecorder>();
    events->on_recv = [&](const ConnPtr& conn, std::string_view payload) {
      loop.Enter();
      Echo(conn, payload);
      conn->SetTimer(0ms);
    };
    events->on_timer = [&](const ConnPtr&) { loop.Enter(); };
    servers.push_back(StartServer(*group, events));
    recorders.push_back(std::move(events));
  }
  const Timer every = group.loop().RunEvery(1ms, [&] { loop.Enter(); });
  constexpr std::size_t kFrames = 100;
  std::vector<std::thread> clients;
  std::atomic<std::size_t> answers{0};
  for (const auto& server : servers) {
    clients.emplace_back([&, address = AddressOf(*server)] {
      RawPeer peer(address);
      for (std::size_t i = 0; i < kFrames; ++i) {
        if (!peer.SendAll(Frame("x")) || peer.ReadFrame() != "x") return;
        if (group.loop().Post([&] { loop.Enter(); })) return;
        ++answers;
      }
    });
  }
  for (std::thread& client : clients) client.join();
  REQUIRE(answers == kFrames * servers.size());
  REQUIRE(group.Finish() == "");
  REQUIRE_FALSE(loop.overlapped);
  REQUIRE(loop.calls >= 2 * kFrames * servers.size());
  for (const auto& events : recorders) REQUIRE(events->Verify() == "");
}

TEST_CASE("each server on a group has its own limits, totals, stop and report", "[M43][M21]") {
  const std::size_t loops = GENERATE(1, 3);
  CAPTURE(loops);
  TestGroup group(loops);
  auto few = std::make_shared<EventRecorder>();
  auto many = std::make_shared<EventRecorder>();
  few->on_recv = Echo;
  many->on_recv = Echo;
  Options limited;
  limited.max_connections = 2;
  const auto small = StartServer(*group, few, limited);
  const auto large = StartServer(*group, many);
  std::vector<RawPeer> to_small, to_large;
  for (int i = 0; i < 2; ++i) to_small.emplace_back(AddressOf(*small));
  REQUIRE(few->WaitForAccepted(2));
  RawPeer refused(AddressOf(*small));
  REQUIRE(refused.ReadAll() != End::kTimeout);
  for (int i = 0; i < 5; ++i) to_large.emplace_back(AddressOf(*large));
  REQUIRE(many->WaitForAccepted(5));
  for (RawPeer& peer : to_small) {
    REQUIRE(peer.SendAll(Frame("few")));
    REQUIRE(peer.ReadFrame() == "few");
  }
  REQUIRE(to_large[0].SendAll(Frame("many")));
  REQUIRE(to_large[0].ReadFrame() == "many");
  const ServerStats of_small = small->Stats(), of_large = large->Stats();
  REQUIRE(of_small.accepted == 2);
  REQUIRE(of_small.refused == 1);
  REQUIRE(of_small.received_bytes == 2 * Frame("few").size());
  REQUIRE(of_large.accepted == 5);
  REQUIRE(of_large.refused == 0);
  REQUIRE(of_large.received_bytes == Frame("many").size());
  std::size_t on_loops = 0;
  for (std::size_t i = 0; i < loops; ++i) on_loops += group.loop(i).Stats().connections;
  REQUIRE(on_loops == 7);

  // A stop of one reaches none of the other's.
  StopReport report;
  WithinDeadline("a stop", [&] {
    static_cast<void>(small->Stop(StopMode::kImmediately));
    report = small->Stop(StopMode::kGracefullyAndWait);
  });
  REQUIRE(report.connections == 2);
  REQUIRE(few->totals().closed == 2);
  REQUIRE(many->totals().closed == 0);
  REQUIRE_FALSE(large->IsStopped());
  for (RawPeer& peer : to_large) {
    REQUIRE(peer.SendAll(Frame("on")));
    REQUIRE(peer.ReadFrame() == "on");
  }
  REQUIRE(group.Finish() == "");
  REQUIRE(group.report().connections == 5);
  REQUIRE(few->Verify() == "");
  REQUIRE(many->Verify() == "");
}

TEST_CASE("a group's connections are dealt to all of its loops in turn", "[M43]") {
  TestGroup group(3);
  auto events = std::make_shared<EventRecorder>();
  Server server(WithDefaults({}, events), *group);
  for (int i = 0; i < 3; ++i) REQUIRE_FALSE(server.Listen("127.0.0.1:0"));
  REQUIRE_FALSE(server.Start());
  std::vector<RawPeer> peers;
  for (std::size_t i = 0; i < 9; ++i) peers.emplace_back(server.Addresses().at(i % 3).ToString());
  REQUIRE(events->WaitForAccepted(9));
  std::map<std::size_t, int> of_loop;
  std::map<std::size_t, std::set<std::thread::id>> threads;
  for (const auto& connection : events->connections()) {
    ++of_loop[connection.conn->loop().index()];
    threads[connection.conn->loop().index()].insert(connection.thread);
  }
  for (std::size_t i = 0; i < 3; ++i) {
    REQUIRE(of_loop[i] == 3);
    REQUIRE(threads[i].size() == 1);
    REQUIRE(group.loop(i).Stats().connections == 3);
    bool current = false;
    std::thread::id thread;
    REQUIRE(group.On(group.loop(i), [&, i] {
      current = group.loop(i).IsCurrent() && !group.loop((i + 1) % 3).IsCurrent();
      thread = std::this_thread::get_id();
    }));
    REQUIRE(current);
    REQUIRE(thread == *threads[i].begin());
    REQUIRE_FALSE(group.loop(i).IsCurrent());
  }
  REQUIRE(group.Finish() == "");
  REQUIRE(events->Verify() == "");
}

TEST_CASE("user data, the descriptor and the timer are for any callback on the loop",
          "[M43][M28]") {
  TestGroup group(1);
  auto events = std::make_shared<EventRecorder>();
  const auto server = StartServer(*group, events);
  RawListener listener;
  const ConnPtr dialled = NewConn(WithDefaults({}, events), group.loop());
  dialled->UserData() = std::string("before the dial");
  REQUIRE(dialled->Descriptor() == -1);
  REQUIRE_FALSE(dialled->Dial(listener.address()));
  RawPeer other_end = listener.Accept();
  RawPeer peer(AddressOf(*server));
  REQUIRE(events->WaitForAccepted(1));
  REQUIRE(events->WaitForConnected(1));
  // In a task of the loop, and in a callback of another connection.
  std::string seen;
  int descriptors = 0;
  const ConnPtr accepted = [&] {
    for (const auto& one : events->connections()) {
      if (one.events.front() == EventType::kAccept) return one.conn;
    }
    return ConnPtr();
  }();
  REQUIRE(group.On([&] {
    seen = std::any_cast<std::string>(dialled->UserData());
    accepted->UserData() = seen + ", and then here";
    dialled->SetTimer(0ms);
    descriptors = (dialled->Descriptor() >= 0) + (accepted->Descriptor() >= 0);
  }));
  REQUIRE(seen == "before the dial");
  REQUIRE(descriptors == 2);
  REQUIRE(events->WaitForTimers(1));
  Signal done;
  REQUIRE_FALSE(dialled->Post([&] {
    seen = std::any_cast<std::string>(accepted->UserData());
    done.Set();
  }));
  REQUIRE(done.Wait());
  REQUIRE(seen == "before the dial, and then here");
  REQUIRE(group.Finish() == "");
  REQUIRE(events->Verify() == "");
}

TEST_CASE("what Start returns", "[M44]") {
  auto events = std::make_shared<EventRecorder>();
  TestGroup group;
  Server alone(WithDefaults({}, events));
  REQUIRE_FALSE(alone.Listen("127.0.0.1:0"));
  REQUIRE(alone.Start() == Errc::kNoLoop);
  Server server(WithDefaults({}, events), *group);
  REQUIRE(server.Start() == Errc::kNotListening);
  REQUIRE_FALSE(server.Listen("127.0.0.1:0"));
  REQUIRE_FALSE(server.Start());
  REQUIRE(server.Start() == Errc::kAlreadyUsed);
  REQUIRE(server.Serve() == Errc::kAlreadyUsed);
  REQUIRE(server.Listen("127.0.0.1:0") == Errc::kAlreadyUsed);
  Server stopped(WithDefaults({}, events), *group);
  REQUIRE_FALSE(stopped.Listen("127.0.0.1:0"));
  static_cast<void>(stopped.Stop(StopMode::kImmediately));
  REQUIRE(stopped.Start() == Errc::kStopped);
  REQUIRE(group.Finish() == "");
  Server late(WithDefaults({}, events), *group);
  REQUIRE_FALSE(late.Listen("127.0.0.1:0"));
  REQUIRE(late.Start() == Errc::kStopped);
}

TEST_CASE("Serve on a shared group ends with the server, and the group goes on", "[M44]") {
  auto events = std::make_shared<EventRecorder>();
  TestGroup group(2);
  Server server(WithDefaults({}, events), *group);
  REQUIRE_FALSE(server.Listen("127.0.0.1:0"));
  Signal ended;
  std::error_code served{EINVAL, std::system_category()};
  std::thread serving([&] {
    served = server.Serve();
    ended.Set();
  });
  RawPeer peer(AddressOf(server));
  REQUIRE(events->WaitForAccepted(1));
  REQUIRE_FALSE(ended.IsSet());
  static_cast<void>(server.Stop(StopMode::kImmediately));
  REQUIRE(ended.Wait());
  serving.join();
  REQUIRE_FALSE(served);
  REQUIRE(events->totals().closed == 1);
  REQUIRE_FALSE(group->IsStopped());
  REQUIRE(group.On([] {}));
  REQUIRE(group.Finish() == "");
  REQUIRE(events->Verify() == "");
}

TEST_CASE("a server whose listeners all die ends by itself, and the group goes on", "[M44][M34]") {
  auto events = std::make_shared<EventRecorder>();
  FaultPlan plan;
  TestGroup group;
  Server server(WithDefaults({}, events), *group);
  REQUIRE_FALSE(server.Listen("127.0.0.1:0"));
  plan.Add({.site = Site::kAccept4, .error = EBADF});
  std::error_code served;
  std::thread serving([&] { served = server.Serve(); });
  RawPeer peer(AddressOf(server));
  WithinDeadline("Serve", [&] { serving.join(); });
  REQUIRE(served == std::error_code(EBADF, std::system_category()));
  REQUIRE(server.IsStopped());
  REQUIRE(group.On([] {}));
  REQUIRE(group.Finish() == "");
}

TEST_CASE("options of a server on a group do not say how many loops there are", "[M44]") {
  auto events = std::make_shared<EventRecorder>();
  TestGroup group(1);
  Options options;
  options.loops = 7;
  const auto server = StartServer(*group, events, options);
  std::vector<RawPeer> peers;
  for (int i = 0; i < 3; ++i) peers.emplace_back(AddressOf(*server));
  REQUIRE(events->WaitForAccepted(3));
  std::set<std::thread::id> threads;
  for (const auto& connection : events->connections()) threads.insert(connection.thread);
  REQUIRE(threads.size() == 1);
  REQUIRE(group.Finish() == "");
  REQUIRE(events->Verify() == "");
}

}  // namespace
}  // namespace xtcp::test
