// Visits to all connections of a server.

#include <xtcp/xtcp.h>

#include <atomic>
#include <catch2/catch.hpp>
#include <map>
#include <memory>
#include <mutex>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

#include "support/alloc_hook.h"
#include "support/fault_control.h"
#include "support/one_of.h"

namespace xtcp::test {
namespace {

// A server with connections, on a group that others share or on loops of its own.
struct Crowd {
  Crowd(bool shared, std::size_t loops, std::size_t count) {
    if (shared) {
      group.emplace(loops);
      server_ = StartServer(**group, events);
    } else {
      Options options;
      options.loops = loops;
      own = std::make_unique<TestServer>(events, options);
    }
    for (std::size_t i = 0; i < count; ++i) peers.emplace_back(AddressOf(server()));
    REQUIRE(events->WaitForAccepted(count));
  }
  Server& server() { return own != nullptr ? *own->operator->() : *server_; }
  void Finish() {
    if (group.has_value()) {
      REQUIRE(group->Finish() == "");
      REQUIRE(events->Verify() == "");
    } else {
      REQUIRE(own->Finish() == "");
    }
  }
  std::shared_ptr<EventRecorder> events = std::make_shared<EventRecorder>();
  std::optional<TestGroup> group;
  std::unique_ptr<Server> server_;
  std::unique_ptr<TestServer> own;
  std::vector<RawPeer> peers;
};

// How often each connection was visited, and where.
struct Visits {
  std::function<void(const ConnPtr&)> Call() {
    return [this, keep = keep](const ConnPtr& conn) {
      {
        std::lock_guard lock(mutex);
        ++of[conn.get()];
        thread_of[conn.get()] = std::this_thread::get_id();
      }
      count.Add();
    };
  }
  std::mutex mutex;
  std::map<const Conn*, int> of;
  std::map<const Conn*, std::thread::id> thread_of;
  Tally count;
  std::shared_ptr<int> keep = std::make_shared<int>();
};

TEST_CASE("ForEach visits every connection once, on its loop, even while paused", "[M65]") {
  const bool shared = GENERATE(false, true);
  const std::size_t loops = GENERATE(1, 3);
  CAPTURE(shared, loops);
  Crowd c(shared, loops, 30);
  for (const auto& connection : c.events->connections()) connection.conn->PauseRecv();
  for (int round = 0; round < 3; ++round) {
    Visits visits;
    REQUIRE_FALSE(c.server().ForEach(visits.Call()));
    REQUIRE(visits.count.WaitFor(30));
    // Destroyed after the last visit.
    REQUIRE(WaitUntil([&] { return visits.keep.use_count() == 1; }));
    REQUIRE(visits.of.size() == 30);
    for (const auto& [conn, times] : visits.of) REQUIRE(times == 1);
    for (const auto& connection : c.events->connections()) {
      REQUIRE(visits.thread_of[connection.conn.get()] == connection.thread);
    }
  }
  c.Finish();
}

TEST_CASE("visits go on in slices while connections come and go, each once", "[M65][R9]") {
  Crowd c(true, 2, 0);
  constexpr std::size_t kConns = 3000;
  const FaultPlan no_faults;
  c.events->hold_handles = false;
  std::vector<RawPeer> peers;
  for (std::size_t i = 0; i < kConns; ++i) peers.emplace_back(AddressOf(c.server()));
  REQUIRE(c.events->WaitForAccepted(kConns));
  // Each visit ends its own connection or another one; several visits are under way.
  std::mutex mutex;
  std::map<const Conn*, std::array<int, 3>> of;
  std::array<std::shared_ptr<int>, 3> keep;
  for (std::size_t v = 0; v < 3; ++v) {
    keep[v] = std::make_shared<int>();
    REQUIRE_FALSE(c.server().ForEach(
        [&, v, kept = keep[v], n = std::make_shared<std::atomic<int>>(0)](const ConnPtr& conn) {
          {
            std::lock_guard lock(mutex);
            ++of[conn.get()][v];
          }
          if (v == 1 && ++*n % 3 == 0) static_cast<void>(conn->Stop(StopMode::kImmediately));
        }));
  }
  for (std::size_t i = 0; i < 200; ++i) peers.emplace_back(AddressOf(c.server()));
  REQUIRE(WaitUntil([&] {
    return keep[0].use_count() == 1 && keep[1].use_count() == 1 && keep[2].use_count() == 1;
  }));
  std::size_t first = 0;
  {
    std::lock_guard lock(mutex);
    for (const auto& [conn, times] : of) {
      for (const int time : times) REQUIRE(time <= 1);
      first += static_cast<std::size_t>(times[0]);
    }
  }
  REQUIRE(first >= kConns);
  peers.clear();
  c.Finish();
}

TEST_CASE("what ForEach returns", "[M65][F4]") {
  const bool shared = GENERATE(false, true);
  auto events = std::make_shared<EventRecorder>();
  {
    Server idle(WithDefaults({}, events));
    const auto keep = std::make_shared<int>();
    REQUIRE_FALSE(idle.ForEach([keep](const ConnPtr&) {}));
    REQUIRE(keep.use_count() == 1);
    static_cast<void>(idle.Stop(StopMode::kImmediately));
  }
  Crowd c(shared, 2, 2);
  std::error_code error;
  {
    std::function<void(const ConnPtr&)> visit = [](const ConnPtr&) {};
    const NoMemory none;
    error = c.server().ForEach(std::move(visit));
  }
  REQUIRE(error == Errc::kNoMemory);
  static_cast<void>(c.server().Stop(StopMode::kImmediately));
  WithinDeadline("a stop",
                 [&] { static_cast<void>(c.server().Stop(StopMode::kGracefullyAndWait)); });
  const auto keep = std::make_shared<int>();
  if (!shared) REQUIRE(c.own->WaitForEnd());
  REQUIRE(c.server().ForEach([keep](const ConnPtr&) {}) == Errc::kStopped);
  REQUIRE(keep.use_count() == 1);
  c.Finish();
}

TEST_CASE("a visit may be begun, and connections ended, inside a visit; an exception ends one",
          "[M65][M38]") {
  Crowd c(true, 2, 4);
  Tally inner;
  std::atomic<bool> once{false};
  REQUIRE_FALSE(c.server().ForEach([&](const ConnPtr&) {
    if (once.exchange(true)) throw std::runtime_error("from a visit");
    static_cast<void>(c.server().ForEach([&](const ConnPtr&) { inner.Add(); }));
  }));
  REQUIRE(c.events->WaitForClosed(3));
  REQUIRE(inner.WaitFor(1));
  for (const auto& connection : c.events->connections()) {
    if (connection.closed) REQUIRE(connection.at_closed.reason == CloseReason::kException);
  }
  c.Finish();
}

}  // namespace
}  // namespace xtcp::test
