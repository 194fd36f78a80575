// Connections on their way to a loop that breaks, and a stop that comes while `Serve` begins.

#include <sys/epoll.h>

#include <atomic>
#include <catch2/catch.hpp>
#include <cerrno>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <system_error>
#include <thread>
#include <vector>

#include "support/event_recorder.h"
#include "support/fault_control.h"
#include "support/leak_guard.h"
#include "support/log_lines.h"
#include "support/raw_peer.h"
#include "support/stop_books.h"
#include "support/test_server.h"
#include "support/violations.h"

namespace xtcp::test {
namespace {

const std::error_code kBroken(EBADF, std::system_category());

// Two loops with a connection or two, dealt in turn: the second loop's are the odd ones.
struct TwoLoops {
  TwoLoops() {
    Options options;
    options.loops = 2;
    plan.Add({.site = Site::kEpollWait, .times = Fault::kAlways, .act = [this](int fd) {
                std::lock_guard lock(mutex);
                polls[std::this_thread::get_id()] = fd;
              }});
    server = std::make_unique<TestServer>(events, options, "0.0.0.0:0");
    for (std::size_t i = 0; i < 3; ++i) {
      peers.emplace_back(server->port());
      REQUIRE(events->WaitForAccepted(i + 1));
    }
    plan.Clear();
    std::lock_guard lock(mutex);
    second = polls.at(events->connection(1).thread);
  }

  // The peer of what never became a connection.
  void Finish(RawPeer& refused) {
    CHECK(refused.ReadAll() != End::kTimeout);
    CHECK(refused.received() == 0);
    for (RawPeer& peer : peers) peer.Close();
    REQUIRE(server->WaitForEnd());
    CHECK(events->totals().accepted == 3);
    REQUIRE(server->Finish(StopMode::kImmediately, kBroken) == "");
    CHECK(Holdings::Now().descriptors == before.descriptors + 1);  // the one that was refused
  }

  const Holdings before = Holdings::Now();
  FaultPlan plan;
  std::mutex mutex;
  std::map<std::thread::id, int> polls;  // each loop's epoll
  int second = -1;                       // that of the second one
  std::shared_ptr<EventRecorder> events = std::make_shared<EventRecorder>();
  std::unique_ptr<TestServer> server;
  std::vector<RawPeer> peers;
};

TEST_CASE("a connection that is dealt to a loop which has broken is refused",
          "[M25][M34][F2][E1][R5][seen-28]") {
  TwoLoops two;
  const LogLines log;
  Signal held;
  // The first loop has admitted the fourth connection, and asks for its name, while the second loop
  // breaks and the server stops.
  two.plan.Add({.site = Site::kGetSockName, .act = [&](int) {
                  held.Set();
                  if (!WaitUntil([&] { return (*two.server)->IsStopped(); })) Die("no stop");
                }});
  RawPeer refused(two.server->port());
  REQUIRE(held.Wait());
  two.plan.Add({.site = Site::kEpollWait, .error = EBADF, .fd = two.second});
  REQUIRE(two.peers[1].SendAll("x"));
  CHECK(WaitUntil([&] { return (*two.server)->Stats().refused == 1; }));
  CHECK(log.With("a connection was refused") == 1);
  two.Finish(refused);
}

TEST_CASE("a connection that waits for its loop when that breaks is closed without an event",
          "[M25][M34][F2][E1][R5][seen-28]") {
  TwoLoops two;
  Signal held, dealt;
  // The second loop is about to wait, and will not look at what is dealt any more.
  two.plan.Add({.site = Site::kEpollWait, .error = EBADF, .fd = two.second, .act = [&](int) {
                  held.Set();
                  if (!dealt.Wait()) Die("nothing was dealt");
                }});
  REQUIRE(two.peers[1].SendAll("x"));
  REQUIRE(held.Wait());
  RawPeer refused(two.server->port());
  CHECK(WaitUntil([&] { return (*two.server)->ConnectionCount() == 4; }));
  // It is counted before it is dealt; the first loop's next wait comes after that.
  const std::uint64_t waits = CallsOf(Site::kEpollWait);
  REQUIRE(two.peers[0].SendAll("x"));
  CHECK(WaitUntil([&] { return CallsOf(Site::kEpollWait) > waits; }));
  dealt.Set();
  two.Finish(refused);
}

TEST_CASE("a stop that comes while Serve begins ends it, and leaves nothing",
          "[M22][M34][R5][S6][seen-28]") {
  const StopMode mode = GENERATE(StopMode::kImmediately, StopMode::kGracefullyButNotWait,
                                 StopMode::kGracefullyAndWait);
  const std::size_t loops = GENERATE(1u, 3u);
  // While the loops are made; while the listener begins to be watched; while the threads start.
  const auto [site, first] = GENERATE(table<Site, std::size_t>({{Site::kEpollCreate, 1},
                                                                {Site::kEpollCtl, 1},
                                                                {Site::kGetRlimit, 1},
                                                                {Site::kStartThread, 1}}));
  if (site == Site::kStartThread && loops == 1) return;
  CAPTURE(Name(mode), loops, static_cast<int>(site));
  const Holdings before = Holdings::Now();
  {
    FaultPlan plan;
    auto events = std::make_shared<EventRecorder>();
    Options options;
    options.loops = loops;
    Server server(WithDefaults(options, events));
    REQUIRE_FALSE(server.Listen("127.0.0.1:0"));
    RawPeer early(server.Addresses().at(0).Port());
    StopReport report;
    Threads stopper;
    plan.Add({.site = site, .first = first, .act = [&](int) {
                stopper.Add([&] { report = server.Stop(mode); });
                if (!WaitUntil([&] { return server.IsStopped(); })) Die("no stop");
              }});
    std::error_code served;
    WithinDeadline("Serve", [&] { served = server.Serve(); });
    stopper.Join();
    CHECK(plan.injected() == 1);
    CHECK_FALSE(served);
    CHECK(Text(report) == OnlyConnections(0));
    CHECK(early.ReadAll() != End::kTimeout);
    CHECK(events->connections().empty());
    CHECK_FALSE(RawPeer(server.Addresses().at(0).Port()).connected());
  }
  CHECK(BackTo(before));
}

}  // namespace
}  // namespace xtcp::test
