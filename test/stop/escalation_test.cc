// Stops on top of stops, and many at once.

#include <atomic>
#include <catch2/catch.hpp>
#include <chrono>
#include <functional>
#include <latch>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "support/event_recorder.h"
#include "support/raw_peer.h"
#include "support/stop_books.h"
#include "support/test_client.h"
#include "support/test_protocol.h"
#include "support/test_server.h"

namespace xtcp::test {
namespace {

using Clock = std::chrono::steady_clock;
using std::chrono::milliseconds;

constexpr std::size_t kQueued = 12 << 20;  // more than the kernel takes for a peer that reads not
// Made once: under a sanitizer that costs more than to send it.
const std::string kBytes(kQueued, 'x');

// One connection whose peer does not read what is queued for it, and whatever of it is stopped.
class Stalled {
 public:
  explicit Stalled(Target target, milliseconds linger = std::chrono::minutes(10))
      : target_(target) {
    Options options;
    options.linger_timeout = linger;
    if (target == Target::kDialled) {
      listener_.emplace();
      client_.emplace(events, listener_->address(), options);
      peer = listener_->Accept();
      REQUIRE(events->WaitForConnected(1));
    } else {
      server_.emplace(events, options);
      peer = RawPeer(server_->port(), 4096);
      REQUIRE(events->WaitForAccepted(1));
    }
    conn = events->conn();
    REQUIRE_FALSE(conn->Send(kBytes));
  }

  StopReport Stop(StopMode mode) {
    return target_ == Target::kServer ? (*server_)->Stop(mode) : conn->Stop(mode);
  }

  // The report of a waiting stop.
  StopReport Wait() {
    StopReport report;
    WithinDeadline("a stop", [&] { report = Stop(StopMode::kGracefullyAndWait); });
    return report;
  }

  // Ends the test; what was wrong, a line each.
  std::string Finish() {
    static_cast<void>(peer.ReadAll());
    std::string problems = BookProblems(conn->Stats(), peer.received());
    return problems + (client_ ? client_->Finish() : server_->Finish());
  }

  const std::shared_ptr<EventRecorder> events = std::make_shared<EventRecorder>();
  ConnPtr conn;
  RawPeer peer;

 private:
  const Target target_;
  std::optional<RawListener> listener_;
  std::optional<TestServer> server_;
  std::optional<TestClient> client_;
};

// --- Stops on top of stops. ----------------------------------------------------------------------

TEST_CASE("every stop on top of every other: only a more immediate one changes anything",
          "[M19][M20][M21][M22][M23][S1][S5][B1]") {
  for (const Target target : {Target::kServer, Target::kAccepted, Target::kDialled}) {
    for (const StopMode first : kModes) {
      for (const StopMode second : kModes) {
        INFO(NameOf(target) << ": " << Name(first) << ", then " << Name(second));
        const bool now_first = first == StopMode::kImmediately;
        const bool now_second = second == StopMode::kImmediately;
        const bool cut_by_time = !now_first && !now_second;
        const milliseconds linger(cut_by_time ? milliseconds(150) : std::chrono::minutes(10));
        Stalled s(target, linger);
        const auto begin = Clock::now();
        StopReport of_first, of_second;
        Threads threads;
        threads.Add([&] { of_first = s.Stop(first); });
        REQUIRE(WaitUntil([&] { return s.conn->IsStopped(); }));
        if (!now_first && now_second) REQUIRE(s.events->totals().closed == 0);
        threads.Add([&] { of_second = s.Stop(second); });
        const StopReport report = s.Wait();
        const auto took = Clock::now() - begin;
        threads.Join();

        // The first one alone counts, but for the cut that a later immediate one makes.
        REQUIRE(report.connections == 1);
        REQUIRE(report.cut == (now_first ? 0 : 1));
        REQUIRE(report.unsent_bytes == s.conn->Stats().unsent_bytes());
        REQUIRE(report.unsent_bytes > 0);
        REQUIRE(report.unacked_bytes == s.conn->Stats().unacked_bytes);
        REQUIRE(s.conn->Stats().reason ==
                (cut_by_time ? CloseReason::kLingerTimeout : CloseReason::kLocalStop));
        REQUIRE(took >= (cut_by_time ? linger : milliseconds(0)));
        const auto expected = [&](StopMode mode) {
          return mode == StopMode::kGracefullyAndWait ? Text(report) : OnlyConnections(1);
        };
        REQUIRE(Text(of_first) == expected(first));
        REQUIRE(Text(of_second) == expected(second));
        REQUIRE(s.Finish() == "");
        REQUIRE(Text(s.Wait()) == Text(report));
      }
    }
  }
}

TEST_CASE("a graceful stop is not made longer by others that follow", "[M19][M22][S3][S7]") {
  const Target target = GENERATE(Target::kServer, Target::kAccepted, Target::kDialled);
  CAPTURE(NameOf(target));
  Stalled s(target, milliseconds(300));
  // If each of these began the time anew, it would never end.
  std::atomic<bool> over{false};
  Threads again([&] { over = true; });
  again.Add([&] {
    while (!over) {
      static_cast<void>(s.Stop(StopMode::kGracefullyButNotWait));
      std::this_thread::sleep_for(milliseconds(5));
    }
  });
  REQUIRE(s.events->WaitForClosed(1));
  again.Join();
  REQUIRE(s.conn->Stats().reason == CloseReason::kLingerTimeout);
  REQUIRE(s.Finish() == "");
}

TEST_CASE("the server's immediate stop overtakes a connection's own graceful one",
          "[M19][M21][M22][S1][S5]") {
  // In both orders, and both before the loop looks: it is held in a callback.
  const bool held = GENERATE(true, false);
  auto events = std::make_shared<EventRecorder>();
  Signal inside, go;
  events->on_recv = [&](const ConnPtr&, std::string_view) {
    inside.Set();
    static_cast<void>(go.Wait());
  };
  TestServer server(events);
  RawPeer peer(server.port(), 4096);
  REQUIRE(events->WaitForAccepted(1));
  const ConnPtr conn = events->conn();
  if (held) {
    REQUIRE(peer.SendAll(Frame("hold")));
    REQUIRE(inside.Wait());
  }
  REQUIRE_FALSE(conn->Send(kBytes));
  REQUIRE(Text(conn->Stop(StopMode::kGracefullyButNotWait)) == OnlyConnections(1));
  REQUIRE(Text(server->Stop(StopMode::kImmediately)) == OnlyConnections(1));
  go.Set();
  StopReport report;
  WithinDeadline("a stop", [&] { report = server->Stop(StopMode::kGracefullyAndWait); });
  REQUIRE(report.cut == 1);
  REQUIRE(report.unsent_bytes > 0);
  REQUIRE(conn->Stats().reason == CloseReason::kLocalStop);
  REQUIRE(Text(conn->Stop(StopMode::kGracefullyAndWait)) == Text(report));
  REQUIRE(peer.ReadAll() != End::kTimeout);
  REQUIRE(BookProblems(conn->Stats(), peer.received()) == "");
  REQUIRE(server.Finish() == "");
}

// --- Many stops at once. -------------------------------------------------------------------------

// What `threads` stops, each of a mode of its own, returned; and whether a waiting one came back
// before `all_closed` held.
struct Crowd {
  std::vector<StopReport> waited;
  int early = 0;
};

Crowd StopTogether(std::size_t threads, std::size_t shift,
                   const std::function<StopReport(StopMode)>& stop,
                   const std::function<bool()>& all_closed) {
  Crowd crowd;
  std::latch together(static_cast<std::ptrdiff_t>(threads));
  std::mutex mutex;
  Threads stopping;
  for (std::size_t t = 0; t < threads; ++t) {
    stopping.Add([&, t] {
      const StopMode mode = kModes.at((t + shift) % kModes.size());
      together.arrive_and_wait();
      WithinDeadline("a stop", [&] {
        const StopReport report = stop(mode);
        const bool closed = all_closed();
        if (mode != StopMode::kGracefullyAndWait) return;
        std::lock_guard lock(mutex);
        crowd.waited.push_back(report);
        crowd.early += closed ? 0 : 1;
      });
    });
  }
  stopping.Join();
  return crowd;
}

TEST_CASE("a connection's own stop cuts the server's graceful one, also before the loop saw that",
          "[M21][M22][S5]") {
  auto events = std::make_shared<EventRecorder>();
  Signal inside;
  Signal release;
  events->on_recv = [&](const ConnPtr&, std::string_view) {
    inside.Set();
    static_cast<void>(release.Wait());
  };
  TestServer server(events);
  RawPeer holds(server.port());
  REQUIRE(events->WaitForAccepted(1));
  RawPeer cut(server.port());
  REQUIRE(events->WaitForAccepted(2));
  REQUIRE(holds.SendAll(Frame("x")));
  REQUIRE(inside.Wait());
  REQUIRE(server->Stop(StopMode::kGracefullyButNotWait).connections == 2);
  static_cast<void>(events->conn(1)->Stop(StopMode::kImmediately));
  release.Set();
  holds.Close();
  REQUIRE(events->WaitForClosed(2));
  REQUIRE(server.Finish(StopMode::kGracefullyAndWait) == "");
  REQUIRE(Text(server.report()) == Text({.connections = 2, .cut = 1}));
}

TEST_CASE("from a server's stop on its connections refuse to send, also before their loops saw it",
          "[M19][M10][B3][B4]") {
  const StopMode mode = GENERATE(StopMode::kImmediately, StopMode::kGracefullyButNotWait);
  CAPTURE(Name(mode));
  auto events = std::make_shared<EventRecorder>();
  Signal inside, release;
  std::error_code on_loop;
  bool stopped_on_loop = false;
  events->on_recv = [&](const ConnPtr& conn, std::string_view) {
    inside.Set();
    static_cast<void>(release.Wait());
    on_loop = conn->Send("late");
    stopped_on_loop = conn->IsStopped();
  };
  TestServer server(events);
  RawPeer holds(server.port()), idle(server.port());
  REQUIRE(events->WaitForAccepted(2));
  REQUIRE(holds.SendAll(Frame("x")));
  REQUIRE(inside.Wait());
  static_cast<void>(server->Stop(mode));
  for (std::size_t i = 0; i < 2; ++i) {
    CHECK(events->conn(i)->IsStopped());
    CHECK(events->conn(i)->Send("late") == Errc::kStopping);
    CHECK(events->conn(i)->SendPacket(BytesPacket("late")) == Errc::kStopping);
  }
  CHECK(events->totals().closed == 0);
  release.Set();
  for (RawPeer* peer : {&holds, &idle}) {
    CHECK(peer->ReadAll() == End::kEof);
    CHECK(peer->received() == 0);
    peer->Close();
  }
  REQUIRE(events->WaitForClosed(2));
  CHECK(on_loop == Errc::kStopping);
  CHECK(stopped_on_loop);
  REQUIRE(server.Finish(StopMode::kGracefullyAndWait) == "");
  REQUIRE(Text(server.report()) == OnlyConnections(2));
}

TEST_CASE("eight threads stop a server: one tear-down, and each waiter waits for all of it",
          "[M20][M21][M22][S3][S5][E2]") {
  for (std::size_t round = 0; round < 30; ++round) {
    const std::size_t threads = round % 2 == 0 ? 8 : 2;
    Options options;
    options.loops = 1 + round % 3;
    options.linger_timeout = milliseconds(50);
    auto events = std::make_shared<EventRecorder>();
    TestServer server(events, options);
    std::vector<RawPeer> peers;
    for (int i = 0; i < 6; ++i) peers.emplace_back(server.port(), 4096);
    REQUIRE(events->WaitForAccepted(6));
    REQUIRE_FALSE(events->conn()->Send(kBytes));
    const Crowd crowd = StopTogether(
        threads, round, [&](StopMode mode) { return server->Stop(mode); },
        [&] { return events->totals().closed == 6; });
    REQUIRE(server.Finish() == "");
    REQUIRE(crowd.early == 0);
    REQUIRE(server.report().connections == 6);
    for (const StopReport& report : crowd.waited) REQUIRE(Text(report) == Text(server.report()));
    for (int i = 0; i < 3; ++i) {
      REQUIRE(Text(server->Stop(StopMode::kGracefullyAndWait)) == Text(server.report()));
    }
  }
}

TEST_CASE("eight threads stop a connection: one tear-down, and each waiter waits for all of it",
          "[M20][M21][M22][S3][S5][E2]") {
  for (std::size_t round = 0; round < 12; ++round) {
    const std::size_t threads = round % 4 < 2 ? 8 : 2;
    const Target target = round % 2 == 0 ? Target::kAccepted : Target::kDialled;
    Stalled s(target, milliseconds(50));
    const Crowd crowd = StopTogether(
        threads, round, [&](StopMode mode) { return s.Stop(mode); },
        [&] { return s.events->totals().closed == 1; });
    const StopReport report = s.Wait();
    REQUIRE(crowd.early == 0);
    REQUIRE(report.connections == 1);
    for (const StopReport& other : crowd.waited) REQUIRE(Text(other) == Text(report));
    REQUIRE(s.Finish() == "");
    REQUIRE(Text(s.Wait()) == Text(report));
  }
}

TEST_CASE("the books of a stop count who was there when it began", "[M21]") {
  auto events = std::make_shared<EventRecorder>();
  TestServer server(events);
  RawPeer gone(server.port()), stays(server.port());
  REQUIRE(events->WaitForAccepted(2));
  gone.Close();
  REQUIRE(events->WaitForClosed(1));
  REQUIRE(WaitUntil([&] { return server->ConnectionCount() == 1; }));
  REQUIRE(Text(server->Stop(StopMode::kGracefullyButNotWait)) == OnlyConnections(1));
  stays.Close();
  REQUIRE(server.Finish(StopMode::kGracefullyAndWait) == "");
  REQUIRE(Text(server.report()) == OnlyConnections(1));
}

}  // namespace
}  // namespace xtcp::test
