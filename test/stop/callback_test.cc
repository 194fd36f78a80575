// Stops inside callbacks, and beside callbacks that run.

#include <atomic>
#include <catch2/catch.hpp>
#include <chrono>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <string_view>

#include "support/event_recorder.h"
#include "support/leak_guard.h"
#include "support/raw_peer.h"
#include "support/stop_books.h"
#include "support/test_client.h"
#include "support/test_protocol.h"
#include "support/test_server.h"

namespace xtcp::test {
namespace {

using std::chrono::milliseconds;

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
    static_cast<void>(conn->Send(std::string(200 << 10, 'x')));
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
  REQUIRE(stats.unsent_bytes() == 100 + (200 << 10));
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
