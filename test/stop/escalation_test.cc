// Stops on top of stops, and stops at odd moments.

#include <atomic>
#include <catch2/catch.hpp>
#include <chrono>
#include <latch>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "support/event_recorder.h"
#include "support/raw_peer.h"
#include "support/test_client.h"
#include "support/test_protocol.h"
#include "support/test_server.h"

namespace xtcp::test {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;

constexpr StopMode kModes[] = {StopMode::kImmediately, StopMode::kGracefullyButNotWait,
                               StopMode::kGracefullyAndWait};

// A server with one connection whose peer does not read what is queued for it.
struct Stalled {
  explicit Stalled(seconds linger = seconds(60)) {
    Options options;
    options.linger_timeout = linger;
    server = std::make_unique<TestServer>(events, options);
    peer = RawPeer(server->port(), 4096);
    REQUIRE(events->WaitForAccepted(1));
    conn = events->conn();
    REQUIRE_FALSE(conn->Send(std::string(12 << 20, 'x')));
  }
  std::shared_ptr<EventRecorder> events = std::make_shared<EventRecorder>();
  std::unique_ptr<TestServer> server;
  RawPeer peer;
  ConnPtr conn;
};

TEST_CASE("a graceful stop can become an immediate one", "[M19][M21][M22][S1][S5]") {
  const bool server_wide = GENERATE(true, false);
  const bool waiter = GENERATE(true, false);
  Stalled s;
  const auto stop = [&](StopMode mode) {
    return server_wide ? (*s.server)->Stop(mode) : s.conn->Stop(mode);
  };
  StopReport waited;
  Signal released;
  std::thread thread;
  if (waiter) {
    thread = std::thread([&] {
      waited = stop(StopMode::kGracefullyAndWait);
      released.Set();
    });
    REQUIRE(WaitUntil([&] { return s.conn->IsStopped(); }));
    REQUIRE_FALSE(released.IsSet());
  } else {
    REQUIRE(stop(StopMode::kGracefullyButNotWait).connections == 1);
  }
  // The softer one changes nothing, the harder one ends it.
  static_cast<void>(stop(StopMode::kGracefullyButNotWait));
  REQUIRE(s.events->totals().closed == 0);
  static_cast<void>(stop(StopMode::kImmediately));
  StopReport report;
  WithinDeadline("a stop", [&] { report = stop(StopMode::kGracefullyAndWait); });
  REQUIRE(report.connections == 1);
  REQUIRE(report.cut == 1);
  REQUIRE(report.unsent_bytes > 0);
  REQUIRE(s.conn->Stats().reason == CloseReason::kLocalStop);
  if (waiter) {
    thread.join();
    REQUIRE(waited.cut == 1);
    REQUIRE(waited.unsent_bytes == report.unsent_bytes);
  }
  REQUIRE(s.server->Finish() == "");
}

TEST_CASE("a softer stop does not slow down an immediate one", "[M20][M22]") {
  Stalled s;
  static_cast<void>((*s.server)->Stop(StopMode::kImmediately));
  StopReport report;
  WithinDeadline("a stop", [&] { report = (*s.server)->Stop(StopMode::kGracefullyAndWait); });
  REQUIRE(report.cut == 0);
  REQUIRE(report.connections == 1);
  REQUIRE(report.unsent_bytes > 0);
  REQUIRE(s.server->Finish() == "");
}

TEST_CASE("eight threads stop at once: one tear-down, and each waiter waits for it",
          "[M20][M22][S5][E2]") {
  for (int round = 0; round < 20; ++round) {
    Options options;
    options.loops = 1 + static_cast<std::size_t>(round % 3);
    options.linger_timeout = milliseconds(100);
    auto events = std::make_shared<EventRecorder>();
    TestServer server(events, options);
    std::vector<RawPeer> peers;
    for (int i = 0; i < 6; ++i) peers.emplace_back(server.port());
    REQUIRE(events->WaitForAccepted(6));
    std::latch together(8);
    std::atomic<int> early{0};
    std::vector<std::thread> threads;
    std::vector<StopReport> reports(8);
    for (std::size_t t = 0; t < 8; ++t) {
      threads.emplace_back([&, t] {
        const StopMode mode = kModes[(t + static_cast<std::size_t>(round)) % 3];
        together.arrive_and_wait();
        reports[t] = server->Stop(mode);
        if (mode != StopMode::kGracefullyAndWait) reports[t] = {};
        if (mode == StopMode::kGracefullyAndWait && events->totals().closed != 6) ++early;
      });
    }
    for (std::thread& thread : threads) thread.join();
    REQUIRE(early == 0);
    REQUIRE(server.Finish() == "");
    for (const StopReport& report : reports) {
      if (report.connections == 0) continue;
      REQUIRE(report.connections == 6);
      REQUIRE(report.cut == server.report().cut);
    }
  }
}

TEST_CASE("a stop before Serve is remembered, and leaves nothing open", "[M20][M22][M34]") {
  for (const StopMode mode : kModes) {
    auto events = std::make_shared<EventRecorder>();
    Server server(WithDefaults({}, events));
    REQUIRE_FALSE(server.Listen("127.0.0.1:0"));
    const std::uint16_t port = server.Addresses().at(0).Port();
    StopReport report;
    WithinDeadline("a stop", [&] { report = server.Stop(mode); });
    REQUIRE_FALSE(report.error);
    REQUIRE(report.connections == 0);
    REQUIRE(server.IsStopped());
    REQUIRE_FALSE(RawPeer(port).connected());
    WithinDeadline("Serve", [&] { REQUIRE_FALSE(server.Serve()); });
    REQUIRE(server.Serve() == Errc::kAlreadyUsed);
    REQUIRE(server.Addresses().size() == 1);

    // A listener that is opened after the stop does not stay open either.
    Server late(WithDefaults({}, events));
    static_cast<void>(late.Stop(mode));
    REQUIRE_FALSE(late.Listen("127.0.0.1:0"));
    WithinDeadline("Serve", [&] { REQUIRE_FALSE(late.Serve()); });
    REQUIRE_FALSE(RawPeer(late.Addresses().at(0).Port()).connected());
    REQUIRE(events->Verify() == "");
  }
}

TEST_CASE("a stop while Serve starts is not lost", "[M22][S6][R5]") {
  for (int round = 0; round < 300; ++round) {
    auto events = std::make_shared<EventRecorder>();
    Options options;
    options.loops = 1 + static_cast<std::size_t>(round % 3);
    Server server(WithDefaults(options, events));
    REQUIRE_FALSE(server.Listen("127.0.0.1:0"));
    std::error_code served;
    std::latch together(2);
    std::thread thread([&] {
      together.arrive_and_wait();
      served = server.Serve();
    });
    together.arrive_and_wait();
    for (int i = 0; i < round * 20; ++i) std::atomic_signal_fence(std::memory_order_seq_cst);
    WithinDeadline("a stop", [&] {
      static_cast<void>(server.Stop(kModes[static_cast<std::size_t>(round) % 3]));
    });
    WithinDeadline("Serve", [&] { thread.join(); });
    REQUIRE_FALSE(served);
    REQUIRE(events->Verify() == "");
  }
}

TEST_CASE("a stop during the hand-over of accepted sockets leaves nobody behind",
          "[M25][S6][B7][E2][R5]") {
  for (int round = 0; round < 60; ++round) {
    Options options;
    options.loops = 3;
    auto events = std::make_shared<EventRecorder>();
    TestServer server(events, options);
    std::atomic<bool> over{false};
    std::vector<std::thread> threads;
    std::atomic<int> hanging{0};
    for (int t = 0; t < 3; ++t) {
      threads.emplace_back([&] {
        std::vector<RawPeer> peers;
        while (!over && peers.size() < 40) {
          RawPeer peer(server.port());
          if (!peer.connected()) break;
          peers.push_back(std::move(peer));
        }
        for (RawPeer& peer : peers) {
          if (peer.ReadAll() == End::kTimeout) ++hanging;
        }
      });
    }
    REQUIRE(events->WaitForAccepted(5));
    const StopMode mode = kModes[static_cast<std::size_t>(round) % 2];
    static_cast<void>(server->Stop(mode));
    over = true;
    for (std::thread& thread : threads) thread.join();
    REQUIRE(hanging == 0);
    REQUIRE(server.Finish() == "");
  }
}

TEST_CASE("a stop inside the first event", "[M7][M22][E2]") {
  const StopMode mode = GENERATE(StopMode::kImmediately, StopMode::kGracefullyButNotWait,
                                 StopMode::kGracefullyAndWait);
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

TEST_CASE("the books of a stop count who was there when it began", "[M21]") {
  auto events = std::make_shared<EventRecorder>();
  TestServer server(events);
  RawPeer gone(server.port()), stays(server.port());
  REQUIRE(events->WaitForAccepted(2));
  gone.Close();
  REQUIRE(events->WaitForClosed(1));
  REQUIRE(WaitUntil([&] { return server->ConnectionCount() == 1; }));
  REQUIRE(server->Stop(StopMode::kGracefullyButNotWait).connections == 1);
  stays.Close();
  REQUIRE(server.Finish() == "");
  REQUIRE(server.report().connections == 1);
}

}  // namespace
}  // namespace xtcp::test
