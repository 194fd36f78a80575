// Stops on top of stops, and stops at odd moments.

#include <dlfcn.h>
#include <netdb.h>

#include <atomic>
#include <catch2/catch.hpp>
#include <chrono>
#include <cstring>
#include <functional>
#include <latch>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <string_view>
#include <thread>
#include <utility>
#include <vector>

#include "support/event_recorder.h"
#include "support/leak_guard.h"
#include "support/random.h"
#include "support/raw_peer.h"
#include "support/stop_books.h"
#include "support/test_client.h"
#include "support/test_protocol.h"
#include "support/test_server.h"

namespace xtcp::test {
namespace {

using Clock = std::chrono::steady_clock;
using std::chrono::microseconds;
using std::chrono::milliseconds;

// While one exists, a look-up of "held.test" waits for `Release`, and then finds 127.0.0.1.
class HeldLookUp {
 public:
  HeldLookUp() { current = this; }
  ~HeldLookUp() {
    Release();
    current = nullptr;
  }
  HeldLookUp(const HeldLookUp&) = delete;
  HeldLookUp& operator=(const HeldLookUp&) = delete;

  bool WaitForBegin() { return begun_.Wait(); }
  void Release() { released_.Set(); }

  // On the thread that looks up.
  static void Hold() {
    HeldLookUp* const held = current;
    if (held == nullptr) return;
    held->begun_.Set();
    static_cast<void>(held->released_.Wait());
  }

 private:
  static std::atomic<HeldLookUp*> current;
  Signal begun_;
  Signal released_;
};
std::atomic<HeldLookUp*> HeldLookUp::current{nullptr};

}  // namespace
}  // namespace xtcp::test

// Stands in front of the C library's in this program.
extern "C" int getaddrinfo(const char* node, const char* service, const addrinfo* hints,
                           addrinfo** result) {
  static const auto real =
      reinterpret_cast<decltype(&getaddrinfo)>(::dlsym(RTLD_NEXT, "getaddrinfo"));
  if (node != nullptr && std::strcmp(node, "held.test") == 0) {
    xtcp::test::HeldLookUp::Hold();
    node = "127.0.0.1";
  }
  return real(node, service, hints, result);
}

namespace xtcp::test {
namespace {

constexpr std::size_t kQueued = 12 << 20;  // more than the kernel takes for a peer that reads not

enum class Target { kServer, kAccepted, kDialled };

std::string_view NameOf(Target target) {
  switch (target) {
    case Target::kServer:
      return "server";
    case Target::kAccepted:
      return "accepted connection";
    case Target::kDialled:
      return "dialled connection";
  }
  return "?";
}

// One connection whose peer does not read what is queued for it, and whatever of it is stopped.
class Stalled {
 public:
  explicit Stalled(Target target, milliseconds linger = std::chrono::minutes(1)) : target_(target) {
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
    REQUIRE_FALSE(conn->Send(std::string(kQueued, 'x')));
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
        const milliseconds linger(now_first || now_second ? 60'000 : 150);
        Stalled s(target, linger);
        const auto begin = Clock::now();
        StopReport of_first, of_second;
        Threads threads;
        threads.Add([&] { of_first = s.Stop(first); });
        REQUIRE(WaitUntil([&] { return s.conn->IsStopped(); }));
        if (!now_first) REQUIRE(s.events->totals().closed == 0);
        threads.Add([&] { of_second = s.Stop(second); });
        const StopReport report = s.Wait();
        const auto took = Clock::now() - begin;
        threads.Join();

        // The first one alone counts, but for the cut that a later immediate one makes.
        const bool cut_by_time = !now_first && !now_second;
        REQUIRE(report.connections == 1);
        REQUIRE(report.cut == (now_first ? 0 : 1));
        REQUIRE(report.unsent_bytes == s.conn->Stats().unsent_bytes());
        REQUIRE(report.unsent_bytes > 0);
        REQUIRE(report.unacked_bytes == s.conn->Stats().unacked_bytes);
        REQUIRE(s.conn->Stats().reason ==
                (cut_by_time ? CloseReason::kLingerTimeout : CloseReason::kLocalStop));
        REQUIRE(took >= (cut_by_time ? linger : milliseconds(0)));
        REQUIRE(took < milliseconds(8000));
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
  REQUIRE_FALSE(conn->Send(std::string(kQueued, 'x')));
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
    REQUIRE_FALSE(events->conn()->Send(std::string(kQueued, 'x')));
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

// --- Before and during the start. ----------------------------------------------------------------

TEST_CASE("a stop before Serve is remembered, and leaves nothing open", "[M20][M22][M34]") {
  for (const StopMode mode : kModes) {
    auto events = std::make_shared<EventRecorder>();
    Server server(WithDefaults({}, events));
    REQUIRE_FALSE(server.Listen("127.0.0.1:0"));
    const std::uint16_t port = server.Addresses().at(0).Port();
    StopReport report;
    WithinDeadline("a stop", [&] { report = server.Stop(mode); });
    REQUIRE(Text(report) == OnlyConnections(0));
    REQUIRE(server.IsStopped());
    REQUIRE_FALSE(RawPeer(port).connected());
    std::error_code served = Errc::kClosed;
    WithinDeadline("Serve", [&] { served = server.Serve(); });
    REQUIRE_FALSE(served);
    REQUIRE(server.Serve() == Errc::kAlreadyUsed);
    REQUIRE(server.Addresses().size() == 1);

    // A listener that is opened after the stop does not stay open either.
    Server late(WithDefaults({}, events));
    static_cast<void>(late.Stop(mode));
    REQUIRE_FALSE(late.Listen("127.0.0.1:0"));
    served = Errc::kClosed;
    WithinDeadline("Serve", [&] { served = late.Serve(); });
    REQUIRE_FALSE(served);
    REQUIRE_FALSE(RawPeer(late.Addresses().at(0).Port()).connected());
    REQUIRE(events->Verify() == "");
  }
}

TEST_CASE("a stop before the dial is remembered; a connection dials once", "[M20][M22][M31][B3]") {
  for (const StopMode mode : kModes) {
    INFO(Name(mode));
    auto events = std::make_shared<EventRecorder>();
    RawListener listener;
    TestClient client(events, Options{});
    REQUIRE_FALSE(client->Send("lost"));
    StopReport report;
    WithinDeadline("a stop", [&] { report = client->Stop(mode); });
    REQUIRE(Text(report).substr(0, 20) == OnlyConnections(0).substr(0, 20));
    REQUIRE(client->IsStopped());
    REQUIRE(client->Send("more") == Errc::kStopping);
    client.Dial(listener.address());
    REQUIRE(client.Wait() == Errc::kStopped);
    REQUIRE(client->Send("more") == Errc::kClosed);
    REQUIRE(client->DialAndServe(listener.address()) == Errc::kAlreadyUsed);
    REQUIRE(client.Finish(mode, Errc::kStopped) == "");
    REQUIRE(client->Stats().reason == CloseReason::kConnectFailed);
    REQUIRE(client->Stats().unsent_bytes() == 4);
    REQUIRE(events->connections().empty());
  }
}

TEST_CASE("a server and a connection that have ended do not begin again", "[M22][M31][M34]") {
  for (const StopMode mode : kModes) {
    auto events = std::make_shared<EventRecorder>();
    events->on_recv = Echo;
    TestServer server(events);
    TestClient client(events, server.address());
    REQUIRE(events->WaitForConnected(1));
    REQUIRE(client.Finish(mode) == "");
    REQUIRE(client->DialAndServe(server.address()) == Errc::kAlreadyUsed);
    REQUIRE(server.Finish(mode) == "");
    REQUIRE(server->Serve() == Errc::kAlreadyUsed);
    REQUIRE(server->Listen("127.0.0.1:0") == Errc::kAlreadyUsed);
    REQUIRE(server->ListenAndServe("127.0.0.1:0") == Errc::kAlreadyUsed);
  }
}

// Waits for about `time` without giving the processor away.
void Spin(Clock::duration time) {
  const auto end = Clock::now() + time;
  while (Clock::now() < end) {
  }
}

TEST_CASE("a stop while Serve starts is not lost", "[M20][M22][S5][S6][R5]") {
  for (std::size_t round = 0; round < 300; ++round) {
    auto events = std::make_shared<EventRecorder>();
    Options options;
    options.loops = 1 + round % 3;
    Server server(WithDefaults(options, events));
    const bool listen_first = round % 2 == 0;
    if (listen_first) REQUIRE_FALSE(server.Listen("127.0.0.1:0"));
    std::error_code served = Errc::kClosed;
    std::latch together(2);
    std::thread thread([&] {
      together.arrive_and_wait();
      served = listen_first ? server.Serve() : server.ListenAndServe("127.0.0.1:0");
    });
    together.arrive_and_wait();
    Spin(microseconds(2) * round);
    WithinDeadline("a stop", [&] { static_cast<void>(server.Stop(kModes.at(round % 3))); });
    WithinDeadline("Serve", [&] { thread.join(); });
    REQUIRE_FALSE(served);
    REQUIRE(server.IsStopped());
    REQUIRE(Text(server.Stop(StopMode::kGracefullyAndWait)) == OnlyConnections(0));
    REQUIRE(events->Verify() == "");
  }
}

TEST_CASE("a stop at any moment of a dial: it never stood, or it ended in order",
          "[M20][M22][M31][S5][S6][B1]") {
  for (std::size_t round = 0; round < 300; ++round) {
    INFO("round " << round);
    RawListener listener;
    auto events = std::make_shared<EventRecorder>();
    const ConnPtr conn = NewConn(WithDefaults({}, events));
    REQUIRE_FALSE(conn->Send("first"));
    std::error_code dialled = Errc::kClosed;
    Signal ended;
    std::latch together(2);
    Threads threads;
    threads.Add([&] {
      together.arrive_and_wait();
      dialled = conn->DialAndServe(listener.address());
      ended.Set();
    });
    together.arrive_and_wait();
    const bool stands = round % 4 == 0;
    if (stands) {
      REQUIRE(events->WaitForConnected(1));
    } else {
      Spin(microseconds(1) * round);
    }
    const StopMode mode = kModes.at(round % 3);
    for (std::size_t i = 0; i <= round % 2; ++i) {
      threads.Add([&] { static_cast<void>(conn->Stop(mode)); });
    }
    RawPeer peer;
    while (!peer.connected() && !ended.IsSet()) peer = listener.Accept(milliseconds(2));
    if (peer.connected()) {
      static_cast<void>(peer.ReadAll());
      peer.Close();
    }
    WithinDeadline("a dial", [&] { threads.Join(); });
    const StopReport report = conn->Stop(StopMode::kGracefullyAndWait);
    REQUIRE(events->Verify() == "");
    const bool connected = events->totals().connected == 1;
    if (stands) REQUIRE(connected);
    const ConnStats stats = conn->Stats();
    REQUIRE(dialled == (connected ? std::error_code() : Errc::kStopped));
    REQUIRE((stats.reason == CloseReason::kConnectFailed) == !connected);
    REQUIRE(report.connections == (connected ? 1 : 0));
    REQUIRE(report.cut == 0);
    REQUIRE(stats.accepted_bytes == 5);
    REQUIRE(peer.received() <= stats.written_bytes);
    // Bytes from before the dial are written first, or counted.
    if (connected && mode != StopMode::kImmediately) REQUIRE(peer.received() == 5);
  }
}

TEST_CASE("a stop during a name look-up ends the dial when the look-up returns",
          "[M20][M22][M32][S2]") {
  const StopMode mode = GENERATE(StopMode::kImmediately, StopMode::kGracefullyButNotWait,
                                 StopMode::kGracefullyAndWait);
  CAPTURE(Name(mode));
  auto events = std::make_shared<EventRecorder>();
  RawListener listener;
  HeldLookUp look_up;
  TestClient client(events, "held.test:" + std::to_string(listener.port()));
  REQUIRE(look_up.WaitForBegin());
  StopReport report;
  WithinDeadline("a stop", [&] { report = client->Stop(mode); });
  REQUIRE(Text(report) == OnlyConnections(0));
  REQUIRE(client->IsStopped());
  REQUIRE(client->Send("late") == Errc::kStopping);
  REQUIRE(client->Stats().reason == CloseReason::kNone);  // the dial has not ended
  look_up.Release();
  REQUIRE(client.Wait() == Errc::kStopped);
  REQUIRE(client.Finish(mode, Errc::kStopped) == "");
  REQUIRE(client->Stats().reason == CloseReason::kConnectFailed);
  REQUIRE(events->connections().empty());
  REQUIRE_FALSE(listener.Accept(milliseconds(0)).connected());
}

// --- While connections come in. ------------------------------------------------------------------

TEST_CASE("a stop in a storm of connects leaves nobody behind", "[M21][M25][S3][S6][B7][E2][R5]") {
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
  constexpr std::size_t kRounds = 50;
#else
  constexpr std::size_t kRounds = 200;
#endif
  Random random(21);
  for (std::size_t round = 0; round < kRounds; ++round) {
    INFO("round " << round);
    Options options;
    options.loops = 3;
    auto events = std::make_shared<EventRecorder>();
    TestServer server(events, options);
    std::atomic<bool> over{false};
    std::atomic<int> hanging{0};
    Threads connecting([&] { over = true; });
    for (int t = 0; t < 4; ++t) {
      connecting.Add([&] {
        std::vector<RawPeer> peers;
        while (!over && peers.size() < 40) {
          RawPeer peer(server.port());
          if (!peer.connected()) break;
          peers.push_back(std::move(peer));
        }
        for (RawPeer& peer : peers) {
          if (ReadToEnd(peer) == End::kTimeout) ++hanging;
          peer.Close();
        }
      });
    }
    REQUIRE(events->WaitForAccepted(random.Between(1, 20)));
    const StopMode mode = kModes.at(round % 3);
    StopReport first;
    WithinDeadline("a stop", [&] { first = server->Stop(mode); });
    if (mode == StopMode::kGracefullyAndWait) {
      REQUIRE(events->totals().closed == events->totals().accepted);
      REQUIRE(server->ConnectionCount() == 0);
    }
    connecting.Join();
    REQUIRE(hanging == 0);
    REQUIRE(server.Finish(StopMode::kGracefullyAndWait) == "");
    // All that were open then, also those without an event, and none that came later.
    REQUIRE(first.connections == server.report().connections);
    REQUIRE(server->Stats().accepted >= events->totals().accepted);
    REQUIRE(server.report().connections <= server->Stats().accepted);
    REQUIRE(Text(server.report()) == OnlyConnections(first.connections));
  }
}

// --- In callbacks, and beside them. --------------------------------------------------------------

TEST_CASE("a stop in every callback, in every mode", "[M4][M7][M20][M22][M26][S1][S4][E2]") {
  enum class Place { kAccept, kRecv, kUnpackError, kSendReady, kClosed };
  const auto place = GENERATE(Place::kAccept, Place::kRecv, Place::kUnpackError, Place::kSendReady,
                              Place::kClosed);
  const StopMode mode = GENERATE(StopMode::kImmediately, StopMode::kGracefullyButNotWait,
                                 StopMode::kGracefullyAndWait);
  const bool whole_server = GENERATE(false, true);
  CAPTURE(static_cast<int>(place), Name(mode), whole_server);
  auto events = std::make_shared<EventRecorder>();
  Server* server = nullptr;
  Signal ready, stopped;
  StopReport report;
  std::size_t packets_then = 0;
  const auto stop = [&](Place here, const ConnPtr& conn) {
    if (here != place || stopped.IsSet()) return;
    static_cast<void>(ready.Wait());
    report = whole_server ? server->Stop(mode) : conn->Stop(mode);
    packets_then = events->totals().packets;
    stopped.Set();
  };
  events->on_accept = [&](const ConnPtr& conn) { stop(Place::kAccept, conn); };
  events->on_recv = [&](const ConnPtr& conn, std::string_view payload) {
    // More than fits, so that OnSendReady follows.
    if (payload == "fill") {
      while (!conn->Send(std::string(100'000, 'x'))) {
      }
    }
    if (payload == "stop") stop(Place::kRecv, conn);
  };
  events->on_unpack_error = [&](const ConnPtr& conn, std::span<const std::byte>, std::error_code) {
    stop(Place::kUnpackError, conn);
  };
  events->on_send_ready = [&](const ConnPtr& conn) { stop(Place::kSendReady, conn); };
  events->on_closed = [&](const ConnPtr& conn) { stop(Place::kClosed, conn); };
  Options options;
  options.send_buffer_limit = 1 << 20;
  TestServer owner(events, options);
  server = owner.operator->();
  ready.Set();
  RawPeer peer(owner.port());
  std::string frames = Frame("before");
  if (place == Place::kSendReady) frames += Frame("fill");
  if (place == Place::kRecv) frames += Frame("stop");
  if (place == Place::kUnpackError) frames += MarkedFrame(Marker::kBad, "bad");
  if (place != Place::kSendReady && place != Place::kClosed) {
    for (int i = 0; i < 100; ++i) frames += Frame("behind");
  }
  static_cast<void>(peer.SendAll(frames));
  if (place == Place::kClosed) peer.HalfClose();
  REQUIRE(peer.ReadAll() != End::kTimeout);
  peer.Close();
  REQUIRE(stopped.Wait());
  REQUIRE(events->WaitForClosed(1));
  REQUIRE((report.error == Errc::kWouldDeadlock) == (mode == StopMode::kGracefullyAndWait));
  // No kRecv after a stop was seen: a connection sees its own at once, the server's soon.
  if (!whole_server) REQUIRE(events->totals().packets == packets_then);
  REQUIRE(owner.Finish() == "");
}

TEST_CASE("a stop inside the first event of many", "[M7][M22][E2]") {
  for (const StopMode mode : kModes) {
    auto events = std::make_shared<EventRecorder>();
    events->on_accept = [&](const ConnPtr& conn) { static_cast<void>(conn->Stop(mode)); };
    TestServer server(events);
    for (int i = 0; i < 100; ++i) {
      RawPeer peer(server.port());
      static_cast<void>(peer.SendAll(Frame("data")));
      REQUIRE(peer.ReadAll() != End::kTimeout);
    }
    REQUIRE(events->WaitForClosed(100));
    REQUIRE(events->totals().packets == 0);
    REQUIRE(server.Finish() == "");
  }
}

TEST_CASE("an immediate stop drops what the same callback has sent", "[M19][S1][B1]") {
  const bool dialled = GENERATE(false, true);
  auto events = std::make_shared<EventRecorder>();
  events->on_recv = [](const ConnPtr& conn, std::string_view) {
    static_cast<void>(conn->Send(std::string(100, 'x')));
    static_cast<void>(conn->Send(std::string(1 << 20, 'x')));
    static_cast<void>(conn->Stop(StopMode::kImmediately));
  };
  std::optional<TestServer> server;
  std::optional<TestClient> client;
  RawListener listener;
  RawPeer peer;
  if (dialled) {
    client.emplace(events, listener.address());
    peer = listener.Accept();
  } else {
    server.emplace(events);
    peer = RawPeer(server->port());
  }
  REQUIRE(peer.SendAll(Frame("go")));
  REQUIRE(peer.ReadAll() == End::kEof);
  REQUIRE(peer.received() == 0);
  REQUIRE(events->WaitForClosed(1));
  const ConnStats stats = events->conn()->Stats();
  REQUIRE(stats.written_bytes == 0);
  REQUIRE(stats.unsent_bytes() == 100 + (1 << 20));
  REQUIRE((dialled ? client->Finish() : server->Finish()) == "");
}

TEST_CASE("stops that do not wait need nothing that a callback holds", "[M20][M27][S2][B5]") {
  // A callback waits for the lock that the caller holds across the stop: were the stop to wait for
  // the callback, or to run one, neither would ever go on.
  const StopMode mode = GENERATE(StopMode::kImmediately, StopMode::kGracefullyButNotWait);
  const Target target = GENERATE(Target::kServer, Target::kAccepted, Target::kDialled);
  CAPTURE(Name(mode), NameOf(target));
  std::mutex own;
  Signal inside;
  std::atomic<int> callbacks{0};
  auto events = std::make_shared<EventRecorder>();
  events->on_recv = [&](const ConnPtr&, std::string_view) {
    inside.Set();
    std::lock_guard lock(own);
    ++callbacks;
  };
  events->on_closed = [&](const ConnPtr&) {
    std::lock_guard lock(own);
    ++callbacks;
  };
  std::optional<TestServer> server;
  std::optional<TestClient> client;
  RawListener listener;
  RawPeer peer;
  if (target == Target::kDialled) {
    client.emplace(events, listener.address());
    peer = listener.Accept();
    REQUIRE(events->WaitForConnected(1));
  } else {
    server.emplace(events);
    peer = RawPeer(server->port());
    REQUIRE(events->WaitForAccepted(1));
  }
  const ConnPtr conn = events->conn();
  WithinDeadline("a stop", [&] {
    std::lock_guard lock(own);
    static_cast<void>(peer.SendAll(Frame("x")));
    static_cast<void>(inside.Wait());
    static_cast<void>(conn->Send("y"));
    conn->PauseRecv();
    conn->ResumeRecv();
    static_cast<void>(target == Target::kServer ? (*server)->Stop(mode) : conn->Stop(mode));
    static_cast<void>(conn->Send("z"));
  });
  REQUIRE(inside.IsSet());
  static_cast<void>(peer.ReadAll());
  peer.Close();
  REQUIRE(events->WaitForClosed(1));
  REQUIRE(callbacks == 2);
  REQUIRE((client ? client->Finish() : server->Finish()) == "");
}

TEST_CASE("when a waiting stop returns every descriptor is closed", "[M20][S3][R5]") {
  const Target target = GENERATE(Target::kServer, Target::kAccepted, Target::kDialled);
  const std::size_t loops = GENERATE(1, 3);
  CAPTURE(NameOf(target), loops);
  // Many rounds, since what would be closed a moment later is seen by luck only.
  for (int round = 0; round < 20; ++round) {
    Options options;
    options.loops = loops;
    auto events = std::make_shared<EventRecorder>();
    std::optional<TestServer> server;
    std::optional<TestClient> client;
    RawListener listener;
    RawPeer peer;
    // Of what is open now, and of the peer, nothing is the library's. A server goes on when one
    // connection is stopped.
    std::size_t others = Holdings::Now().descriptors + 1;
    if (target == Target::kDialled) {
      client.emplace(events, listener.address(), options);
      peer = listener.Accept();
      REQUIRE(events->WaitForConnected(1));
    } else {
      server.emplace(events, options);
      RawPeer first(server->port());
      REQUIRE(events->WaitForAccepted(1));
      first.Close();
      REQUIRE(events->WaitForClosed(1));
      if (target == Target::kAccepted) others = Holdings::Now().descriptors + 1;
      peer = RawPeer(server->port());
      REQUIRE(events->WaitForAccepted(2));
    }
    const ConnPtr conn = events->connections().back().conn;
    std::size_t left = 0;
    WithinDeadline("a stop", [&] {
      if (target == Target::kServer) {
        static_cast<void>((*server)->Stop(StopMode::kImmediately));
        static_cast<void>((*server)->Stop(StopMode::kGracefullyAndWait));
      } else {
        static_cast<void>(conn->Stop(StopMode::kImmediately));
        static_cast<void>(conn->Stop(StopMode::kGracefullyAndWait));
      }
      left = Holdings::Now().descriptors;
    });
    REQUIRE(left == others);
    REQUIRE((client ? client->Finish() : server->Finish()) == "");
  }
}

TEST_CASE("a waiting stop waits for the callback that runs, however short the linger",
          "[M20][S3]") {
  const Target target = GENERATE(Target::kServer, Target::kAccepted, Target::kDialled);
  CAPTURE(NameOf(target));
  Options options;
  options.linger_timeout = milliseconds(10);
  std::atomic<bool> returned{false};
  Signal inside;
  auto events = std::make_shared<EventRecorder>();
  events->on_recv = [&](const ConnPtr&, std::string_view) {
    inside.Set();
    std::this_thread::sleep_for(milliseconds(150));
    returned = true;
  };
  std::optional<TestServer> server;
  std::optional<TestClient> client;
  RawListener listener;
  RawPeer peer;
  if (target == Target::kDialled) {
    client.emplace(events, listener.address(), options);
    peer = listener.Accept();
  } else {
    server.emplace(events, options);
    peer = RawPeer(server->port());
  }
  REQUIRE(peer.SendAll(Frame("x")));
  REQUIRE(inside.Wait());
  bool in_time = false;
  StopReport report;
  WithinDeadline("a stop", [&] {
    report = target == Target::kServer ? (*server)->Stop(StopMode::kGracefullyAndWait)
                                       : events->conn()->Stop(StopMode::kGracefullyAndWait);
    in_time = returned && events->totals().closed == 1;
  });
  REQUIRE(in_time);
  REQUIRE(Text(report) == Text({.connections = 1, .cut = 1}));
  REQUIRE((client ? client->Finish() : server->Finish()) == "");
}

}  // namespace
}  // namespace xtcp::test
