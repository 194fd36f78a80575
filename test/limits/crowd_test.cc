// Thousands of connections that want their loop at the same time: each iteration serves so many.

#include <sys/resource.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <catch2/catch.hpp>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "support/event_recorder.h"
#include "support/fault_control.h"
#include "support/raw_peer.h"
#include "support/stop_books.h"
#include "support/test_protocol.h"
#include "support/test_server.h"
#include "support/violations.h"

namespace xtcp::test {
namespace {

using namespace std::chrono_literals;

constexpr std::size_t kConnections = 3000;
constexpr std::size_t kPerIteration = 1024;

// Room for the descriptors of both ends.
class ManyDescriptors {
 public:
  ManyDescriptors() {
    REQUIRE(::getrlimit(RLIMIT_NOFILE, &before_) == 0);
    rlimit more = before_;
    more.rlim_cur = std::min<rlim_t>(before_.rlim_max, std::max<rlim_t>(before_.rlim_cur, 8192));
    REQUIRE(::setrlimit(RLIMIT_NOFILE, &more) == 0);
    enough = more.rlim_cur >= 2 * kConnections + 100;
  }
  ~ManyDescriptors() { ::setrlimit(RLIMIT_NOFILE, &before_); }
  ManyDescriptors(const ManyDescriptors&) = delete;
  ManyDescriptors& operator=(const ManyDescriptors&) = delete;

  bool enough = false;

 private:
  rlimit before_{};
};

// Counts how often something happens in each iteration of a server's only loop.
class PerIteration {
 public:
  void Count() {
    std::lock_guard lock(mutex_);
    ++counts_[CallsOf(Site::kEpollWait)];
  }
  void Forget() {
    std::lock_guard lock(mutex_);
    counts_.clear();
  }

  std::size_t most() const {
    std::lock_guard lock(mutex_);
    std::size_t most = 0;
    for (const auto& [iteration, count] : counts_) most = std::max(most, count);
    return most;
  }

 private:
  mutable std::mutex mutex_;
  std::map<std::uint64_t, std::size_t> counts_;
};

struct Crowd {
  explicit Crowd(Options options = {}) {
    options.max_connections = 2 * kConnections;
    events->hold_handles = true;
    events->on_closed = [this](const ConnPtr&) { closed.Count(); };
    server = std::make_unique<TestServer>(events, std::move(options),
                                          "unix:@xtcp-crowd-" + std::to_string(::getpid()));
    for (std::size_t i = 0; i < kConnections; ++i) {
      peers.emplace_back(server->address());
      if (i % 256 == 0) REQUIRE(events->WaitForAccepted(i + 1));
    }
    REQUIRE(events->WaitForAccepted(kConnections));
    REQUIRE(clock.Settle());
  }

  const ManyDescriptors descriptors;
  FaultPlan plan;
  VirtualClock clock;
  PerIteration closed;
  std::shared_ptr<EventRecorder> events = std::make_shared<EventRecorder>();
  std::unique_ptr<TestServer> server;
  std::vector<RawPeer> peers;
};

TEST_CASE("a stop of thousands takes several iterations", "[R9][M19][seen-25]") {
  const StopMode mode = GENERATE(StopMode::kImmediately, StopMode::kGracefullyButNotWait);
  CAPTURE(Name(mode));
  Crowd crowd;
  REQUIRE(crowd.descriptors.enough);
  // A graceful stop shows in the FIN of each connection, an immediate one in its end.
  PerIteration told;
  crowd.plan.Add(
      {.site = Site::kShutdown, .times = Fault::kAlways, .act = [&](int) { told.Count(); }});
  static_cast<void>((*crowd.server)->Stop(mode));
  REQUIRE(crowd.clock.Settle());
  CHECK((mode == StopMode::kImmediately ? crowd.closed : told).most() == kPerIteration);
  CHECK(crowd.server->Finish() == "");
  CHECK(crowd.events->totals().closed == kConnections);
}

TEST_CASE("thousands of deadlines that are due at once take several iterations", "[R9][seen-25]") {
  Options options;
  options.read_deadline = 10s;
  Crowd crowd(options);
  REQUIRE(crowd.descriptors.enough);
  crowd.clock.Advance(11s);
  REQUIRE(crowd.events->WaitForClosed(kConnections));
  CHECK(crowd.closed.most() == kPerIteration);
  CHECK(crowd.server->Finish() == "");
  const auto connections = crowd.events->connections();
  CHECK(std::all_of(connections.begin(), connections.end(), [](const auto& connection) {
    return connection.at_closed.reason == CloseReason::kReadDeadline;
  }));
}

TEST_CASE("thousands that are sent to at once take several iterations", "[R9][seen-25]") {
  Crowd crowd;
  REQUIRE(crowd.descriptors.enough);
  PerIteration written;
  crowd.plan.Add(
      {.site = Site::kSendMsg, .times = Fault::kAlways, .act = [&](int) { written.Count(); }});
  // All of them are posted while the loop has not begun to look.
  const auto connections = crowd.events->connections();
  Signal looks, go;
  crowd.plan.Add({.site = Site::kEpollWait, .act = [&](int) {
                    looks.Set();
                    if (!go.Wait()) AddViolation("nobody lets the loop go on");
                  }});
  REQUIRE_FALSE(connections[0].conn->Send("wakes the loop"));
  REQUIRE(looks.Wait());
  bool good = true;
  for (const auto& connection : connections) good = good && !connection.conn->Send("x");
  go.Set();
  REQUIRE(good);
  REQUIRE(crowd.clock.Settle());
  CHECK(written.most() == kPerIteration);
  std::string byte;
  CHECK(crowd.peers.back().ReadExactly(1, &byte) == End::kOpen);
  CHECK(crowd.server->Finish() == "");
}

}  // namespace
}  // namespace xtcp::test
