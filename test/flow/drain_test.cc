// A drain ends listening, and goes on serving.

#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>
#include <xtcp/xtcp.h>

#include <atomic>
#include <catch2/catch.hpp>
#include <cerrno>
#include <chrono>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "support/alloc_hook.h"
#include "support/fault_control.h"
#include "support/one_of.h"
#include "support/temp_folder.h"

namespace xtcp::test {
namespace {

using namespace std::chrono_literals;

TEST_CASE("a drain refuses new clients, serves the others, and Serve returns when they are gone",
          "[M63]") {
  const std::size_t loops = GENERATE(1, 3);
  auto events = std::make_shared<EventRecorder>();
  events->on_recv = Echo;
  Options options;
  options.loops = loops;
  options.drain_grace = 20ms;
  TestServer server(events, options);
  RawPeer one(server.port()), two(server.port());
  REQUIRE(events->WaitForAccepted(2));
  events->conn(1)->PauseRecv();
  REQUIRE_FALSE(server->IsDraining());
  server->Drain();
  server->Drain();
  REQUIRE(server->IsDraining());
  REQUIRE_FALSE(server->IsStopped());
  REQUIRE(events->WaitForDrains(2));
  REQUIRE(WaitUntil([&] { return !RawPeer(server.port()).connected(); }));
  REQUIRE(one.SendAll(Frame("still served")));
  REQUIRE(one.ReadFrame() == "still served");
  one.Close();
  REQUIRE(events->WaitForClosed(1));
  REQUIRE_FALSE(server->IsStopped());
  static_cast<void>(events->conn(1)->Stop(StopMode::kImmediately));
  REQUIRE(server.WaitForEnd());
  REQUIRE(events->totals().drains == 2);
  REQUIRE(server.Finish() == "");
  REQUIRE(server.report().connections == 0);  // they ended in the drain
}

TEST_CASE("a client whose handshake had begun is accepted during the grace, and told", "[M63]") {
  const FaultPlan no_faults;
  VirtualClock clock;
  auto events = std::make_shared<EventRecorder>();
  std::vector<std::string> order;
  events->on_accept = [&](const ConnPtr&) { order.push_back("accept"); };
  events->on_drain = [&](const ConnPtr&) { order.push_back("drain"); };
  events->on_recv = Echo;
  Options options;
  options.drain_grace = 100ms;
  TestServer server(events, options);
  RawPeer first(server.port());
  REQUIRE(events->WaitForAccepted(1));
  // The loop is busy while the drain begins and a client comes.
  Signal inside, goes_on;
  REQUIRE_FALSE(events->conn()->Post([&] {
    inside.Set();
    goes_on.Wait();
  }));
  REQUIRE(inside.Wait());
  RawPeer waits(server.port());
  REQUIRE(waits.connected());
  server->Drain();
  goes_on.Set();
  REQUIRE(events->WaitForAccepted(2));
  REQUIRE(events->WaitForDrains(2));
  REQUIRE(waits.SendAll(Frame("x")));
  REQUIRE(waits.ReadFrame() == "x");
  REQUIRE(order.size() == 4);
  REQUIRE(order[0] == "accept");
  first.Close();
  waits.Close();
  REQUIRE(events->WaitForClosed(2));
  REQUIRE(clock.Settle());
  clock.Advance(99ms);
  REQUIRE(clock.Settle());
  REQUIRE_FALSE(server->IsStopped());  // the grace is not over
  clock.Advance(1ms);
  REQUIRE(server.WaitForEnd());
  REQUIRE(server.Finish() == "");
}

TEST_CASE("a stop in the drain ends all, and OnDrain comes no more", "[M63]") {
  const bool of_group = GENERATE(false, true);
  auto events = std::make_shared<EventRecorder>();
  TestGroup group(2);
  const auto server = StartServer(*group, events);
  RawPeer peer(AddressOf(*server));
  REQUIRE(events->WaitForAccepted(1));
  if (of_group) {
    group->Drain();
  } else {
    server->Drain();
  }
  REQUIRE(server->IsDraining());
  REQUIRE(events->WaitForDrains(1));
  REQUIRE_FALSE(group->IsStopped());
  REQUIRE(server->Stop(StopMode::kImmediately).connections == 1);
  WithinDeadline("a stop", [&] { static_cast<void>(server->Stop(StopMode::kGracefullyAndWait)); });
  REQUIRE(events->totals().closed == 1);
  server->Drain();  // it is over
  REQUIRE(events->totals().drains == 1);
  REQUIRE(group.Finish() == "");
  REQUIRE(events->Verify() == "");
}

TEST_CASE("a Unix listener is removed at once, and who waits is taken", "[M63]") {
  const FaultPlan no_faults;
  const TempFolder folder;
  const std::string path = folder.file();
  auto events = std::make_shared<EventRecorder>();
  events->on_recv = Echo;
  TestServer server(events, {}, "unix:" + path);
  RawPeer first("unix:" + path);
  REQUIRE(events->WaitForAccepted(1));
  Signal inside, goes_on;
  REQUIRE_FALSE(events->conn()->Post([&] {
    inside.Set();
    goes_on.Wait();
  }));
  REQUIRE(inside.Wait());
  std::vector<RawPeer> waits;
  for (int i = 0; i < 100; ++i) waits.emplace_back("unix:" + path);
  for (const RawPeer& peer : waits) REQUIRE(peer.connected());
  server->Drain();
  goes_on.Set();
  REQUIRE(events->WaitForAccepted(101));
  struct stat status {};
  REQUIRE(WaitUntil([&] { return ::stat(path.c_str(), &status) != 0; }));
  REQUIRE_FALSE(RawPeer("unix:" + path).connected());
  REQUIRE(waits[99].SendAll(Frame("x")));
  REQUIRE(waits[99].ReadFrame() == "x");
  first.Close();
  waits.clear();
  REQUIRE(server.WaitForEnd());
  REQUIRE(server.Finish() == "");
}

TEST_CASE("nothing more is accepted from an adopted listener: it is for those who share it",
          "[M63]") {
  const bool adopted_too = GENERATE(false, true);
  const FaultPlan no_faults;
  RawListener shared;
  auto events = std::make_shared<EventRecorder>();
  Options options;
  options.drain_grace = 10ms;
  TestGroup group;
  Server server(WithDefaults(options, events), *group);
  const int mine = ::dup(shared.fd());
  REQUIRE_FALSE(server.Adopt(mine));
  REQUIRE_FALSE(server.Start());
  RawPeer first(shared.port());
  REQUIRE(events->WaitForAccepted(1));
  Signal inside, goes_on;
  REQUIRE_FALSE(events->conn()->Post([&] {
    inside.Set();
    goes_on.Wait();
  }));
  REQUIRE(inside.Wait());
  RawPeer waits(shared.port());
  server.Drain(adopted_too ? DrainMode::kAdoptedToo : DrainMode::kOwnListeners);
  goes_on.Set();
  REQUIRE(events->WaitForDrains(1));
  if (adopted_too) {
    REQUIRE(events->WaitForAccepted(2));
  } else {
    RawPeer by_other = shared.Accept();  // the one that shares it
    REQUIRE(by_other.connected());
    REQUIRE(waits.SendAll("hello"));
    std::string got;
    REQUIRE(by_other.ReadExactly(5, &got) == End::kOpen);
    REQUIRE(events->totals().accepted == 1);
  }
  first.Close();
  waits.Close();
  WithinDeadline("the end of a drain", [&] {
    WaitUntil([&] { return server.IsStopped(); });
    static_cast<void>(server.Stop(StopMode::kGracefullyAndWait));
  });
  REQUIRE(group.Finish() == "");
  REQUIRE(events->Verify() == "");
}

TEST_CASE("a drain before Serve: those who wait are taken, and Serve returns", "[M63]") {
  const bool adopted = GENERATE(false, true);
  RawListener raw;
  auto events = std::make_shared<EventRecorder>();
  events->on_recv = Echo;
  Options options;
  options.drain_grace = 10ms;
  Server server(WithDefaults(options, events));
  if (adopted) REQUIRE_FALSE(server.Adopt(raw.Release()));
  if (!adopted) REQUIRE_FALSE(server.Listen("127.0.0.1:0"));
  const std::string address = AddressOf(server);
  RawPeer waits(address);
  REQUIRE(waits.connected());
  server.Drain();
  REQUIRE_FALSE(RawPeer(address).connected());
  std::error_code served;
  Signal ended;
  std::thread serving([&] {
    served = server.Serve();
    ended.Set();
  });
  if (!adopted) {
    REQUIRE(events->WaitForDrains(1));
    REQUIRE(waits.SendAll(Frame("x")));
    REQUIRE(waits.ReadFrame() == "x");
  }
  waits.Close();
  REQUIRE(ended.Wait());
  serving.join();
  REQUIRE_FALSE(served);
  REQUIRE(events->totals().closed == (adopted ? 0 : 1));
  static_cast<void>(events->Verify());
}

TEST_CASE("a drain needs no memory, and may be begun in every callback", "[M63][F4]") {
  auto events = std::make_shared<EventRecorder>();
  const int where = GENERATE(0, 1, 2);
  Options options;
  options.drain_grace = 10ms;
  Server* drained = nullptr;
  std::atomic<bool> failed{false};
  const auto drain = [&] {
    const std::uint64_t before = Allocations();
    drained->Drain();
    if (Allocations() != before) failed = true;
  };
  if (where == 1) events->on_recv = [&](const ConnPtr&, std::string_view) { drain(); };
  if (where == 2) events->on_closed = [&](const ConnPtr&) { drain(); };
  TestServer server(events, options);
  drained = server.operator->();
  RawPeer peer(server.port());
  REQUIRE(events->WaitForAccepted(1));
  REQUIRE(peer.SendAll(Frame("x")));
  REQUIRE(events->WaitForPackets(1));
  if (where == 0) drain();
  if (where < 2) REQUIRE(events->WaitForDrains(1));
  peer.Close();
  REQUIRE(server.WaitForEnd());
  REQUIRE_FALSE(failed);
  REQUIRE(server.Finish() == "");
}

TEST_CASE("a listener that cannot be hidden is drained all the same", "[M63][R5]") {
  FaultPlan plan;
  auto events = std::make_shared<EventRecorder>();
  Options options;
  options.drain_grace = 10ms;
  TestServer server(events, options);
  RawPeer peer(server.port());
  REQUIRE(events->WaitForAccepted(1));
  plan.Add({.site = Site::kSetSockOpt, .error = EPERM, .operation = SO_BINDTOIFINDEX});
  server->Drain();
  REQUIRE(events->WaitForDrains(1));
  REQUIRE(plan.injected() == 1);
  peer.Close();
  REQUIRE(server.WaitForEnd());
  REQUIRE_FALSE(RawPeer(server.port()).connected());
  REQUIRE(server.Finish() == "");
}

// A storm: clients connect, ask once and close, while their server drains and stops and another one,
// which shares the listener, goes on. No request fails.
TEST_CASE("two servers share a listener, and one after the other drains: no client notices",
          "[M63]") {
  const FaultPlan no_faults;
  RawListener shared;
  auto events = std::make_shared<EventRecorder>();
  events->hold_handles = false;
  events->keep_payloads = false;
  events->on_recv = Echo;
  TestGroup group(2);
  const auto start = [&] {
    auto server = std::make_unique<Server>(WithDefaults({}, events), *group);
    REQUIRE_FALSE(server->Adopt(::dup(shared.fd())));
    REQUIRE_FALSE(server->Start());
    return server;
  };
  std::atomic<bool> over{false};
  std::atomic<std::size_t> asked{0}, failed{0};
  std::vector<std::thread> clients;
  for (int i = 0; i < 8; ++i) {
    clients.emplace_back([&] {
      while (!over) {
        RawPeer peer(shared.port());
        const bool good = peer.connected() && peer.SendAll(Frame("x")) && peer.ReadFrame() == "x";
        ++(good ? asked : failed);
      }
    });
  }
  auto serves = start();
  for (int i = 0; i < 4; ++i) {
    auto next = start();
    const std::size_t before = asked;
    REQUIRE(WaitUntil([&] { return asked > before + 50; }));
    serves->Drain();
    WithinDeadline("a drain", [&] {
      WaitUntil([&] { return serves->IsStopped(); });
      static_cast<void>(serves->Stop(StopMode::kGracefullyAndWait));
    });
    serves = std::move(next);
  }
  over = true;
  for (std::thread& client : clients) client.join();
  REQUIRE(asked > 200);
  REQUIRE(failed == 0);
  REQUIRE(group.Finish() == "");
  REQUIRE(events->Verify() == "");
}

// The other storm: no client whose connect succeeded is reset.
TEST_CASE("no client whose connect succeeded is reset by a drain", "[M63]") {
  const FaultPlan no_faults;
  std::atomic<std::size_t> reset{0}, served{0}, refused{0};
  for (int round = 0; round < 5; ++round) {
    auto events = std::make_shared<EventRecorder>();
    events->hold_handles = false;
    events->keep_payloads = false;
    events->on_recv = Echo;
    Options options;
    options.drain_grace = 100ms;
    TestServer server(events, options);
    std::vector<std::thread> clients;
    for (int i = 0; i < 20; ++i) {
      clients.emplace_back([&] {
        for (int n = 0; n < 200; ++n) {
          RawPeer peer(server.port());
          if (!peer.connected()) {
            ++refused;
            return;
          }
          const bool good = peer.SendAll(Frame("x")) && peer.ReadFrame() == "x";
          ++(good ? served : reset);
        }
      });
    }
    REQUIRE(events->WaitForPackets(40));
    server->Drain();
    for (std::thread& client : clients) client.join();
    REQUIRE(server.WaitForEnd());
    REQUIRE(server.Finish() == "");
  }
  REQUIRE(reset == 0);
  REQUIRE(served >= 200);
}

}  // namespace
}  // namespace xtcp::test
