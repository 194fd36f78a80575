#include <atomic>
#include <barrier>
#include <catch2/catch.hpp>
#include <cstddef>
#include <functional>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "support/deadline.h"
#include "support/event_recorder.h"
#include "support/random.h"
#include "support/raw_peer.h"
#include "support/test_client.h"
#include "support/test_protocol.h"
#include "support/test_server.h"
#include "support/violations.h"

namespace xtcp::test {
namespace {

using Payloads = std::vector<std::string>;

constexpr EventType kAccept = EventType::kAccept;
constexpr EventType kConnected = EventType::kConnected;
constexpr EventType kRecv = EventType::kRecv;
constexpr EventType kClosed = EventType::kClosed;

std::shared_ptr<EventRecorder> NewRecorder() { return std::make_shared<EventRecorder>(); }

StopMode AnyMode() {
  return GENERATE(StopMode::kImmediately, StopMode::kGracefullyButNotWait,
                  StopMode::kGracefullyAndWait);
}

TEST_CASE("a connection that says nothing has kAccept and kClosed", "[M5][E1][E2][E5]") {
  TestServer server(NewRecorder());
  RawPeer peer(server.port());
  REQUIRE(server.events().WaitForAccepted(1));
  REQUIRE(server->ConnectionCount() == 1);
  peer.Close();
  REQUIRE(server.events().WaitForClosed(1));
  REQUIRE(server.Finish() == "");
  const auto connection = server.events().connection();
  REQUIRE(connection.events == std::vector{kAccept, kClosed});
  REQUIRE(connection.at_closed.reason == CloseReason::kPeerClosed);
  REQUIRE_FALSE(connection.at_closed.error);
}

TEST_CASE("both ends see their first event, each packet and kClosed", "[M5][E1][E2]") {
  auto events = NewRecorder();
  events->on_recv = Echo;
  TestServer server(events);
  TestClient client(NewRecorder(), server.address());
  REQUIRE_FALSE(client->Send(Frame("a") + Frame("b")));
  REQUIRE(client.events().WaitForPackets(2));
  REQUIRE(client.Finish(StopMode::kGracefullyAndWait) == "");
  REQUIRE(server.events().WaitForClosed(1));
  REQUIRE(server.Finish() == "");
  REQUIRE(server.events().connection().events == std::vector{kAccept, kRecv, kRecv, kClosed});
  REQUIRE(client.events().connection().events == std::vector{kConnected, kRecv, kRecv, kClosed});
  REQUIRE(client->Stats().reason == CloseReason::kLocalStop);
  REQUIRE(server.events().connection().at_closed.reason == CloseReason::kPeerClosed);
}

TEST_CASE("data and FIN that came during a slow kAccept wait for it", "[M5][M6][E3]") {
  auto events = NewRecorder();
  Signal entered, peer_done;
  events->on_accept = [&](const ConnPtr&) {
    entered.Set();
    peer_done.Wait();
  };
  TestServer server(events);
  RawPeer peer(server.port());
  REQUIRE(entered.Wait());
  REQUIRE(peer.SendAll(Frame("a") + Frame("b") + Frame("c")));
  peer.Close();
  peer_done.Set();
  REQUIRE(events->WaitForClosed(1));
  REQUIRE(server.Finish() == "");
  REQUIRE(events->connection().payloads == Payloads{"a", "b", "c"});
  REQUIRE(events->connection().at_closed.reason == CloseReason::kPeerClosed);
}

TEST_CASE("hundreds of peers that send and leave at once lose nothing", "[M5][M6][E1][E2][E3]") {
  constexpr std::size_t kPeers = 300;
  Options options;
  options.loops = 4;
  auto events = NewRecorder();
  TestServer server(events, options);
  std::vector<std::thread> threads;
  for (int i = 0; i < 3; ++i) {
    threads.emplace_back([&] {
      for (std::size_t n = 0; n < kPeers / 3; ++n) {
        RawPeer peer(server.port());
        peer.SendAll(Frame("hello") + Frame("bye"));
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  REQUIRE(events->WaitForClosed(kPeers));
  REQUIRE(server.Finish() == "");
  for (const auto& connection : events->connections()) {
    REQUIRE(connection.payloads == Payloads{"hello", "bye"});
  }
  REQUIRE(server->Stats().accepted == kPeers);
}

TEST_CASE("after a stop in the third of a thousand packets only kClosed comes", "[M7][E2][E4]") {
  const StopMode mode = AnyMode();
  auto events = NewRecorder();
  std::atomic<int> packets{0};
  events->on_recv = [&](const ConnPtr& conn, std::string_view) {
    if (++packets == 3) conn->Stop(mode);
  };
  TestServer server(events);
  RawPeer peer(server.port());
  std::string stream;
  for (int i = 0; i < 1000; ++i) stream += Frame("frame");
  REQUIRE(peer.SendAll(stream));
  const End end = peer.ReadAll();
  peer.Close();
  REQUIRE(events->WaitForClosed(1));
  REQUIRE(server.Finish() == "");
  REQUIRE(events->connection().events == std::vector{kAccept, kRecv, kRecv, kRecv, kClosed});
  REQUIRE(events->connection().at_closed.reason == CloseReason::kLocalStop);
  // A graceful stop reads what the peer still sent, so that it sees an end and no reset.
  if (mode != StopMode::kImmediately) REQUIRE(end == End::kEof);
}

TEST_CASE("a connection may be declined in kAccept", "[M7][M22][E1][E2][S4]") {
  constexpr std::size_t kPeers = 100;
  const StopMode mode = AnyMode();
  Options options;
  options.loops = 2;
  auto events = NewRecorder();
  events->on_accept = [mode](const ConnPtr& conn) {
    const StopReport report = conn->Stop(mode);
    if (mode == StopMode::kGracefullyAndWait && report.error != Errc::kWouldDeadlock) {
      AddViolation("M26: a waiting stop in kAccept did not say kWouldDeadlock");
    }
    if (!conn->IsStopped()) AddViolation("M22: IsStopped is false after a stop in kAccept");
  };
  TestServer server(events, options);
  for (std::size_t i = 0; i < kPeers; ++i) {
    RawPeer peer(server.port());
    peer.SendAll(Frame("hello"));
    const End end = peer.ReadAll();
    const bool ended = end == End::kEof || end == End::kReset;
    REQUIRE(ended);
  }
  REQUIRE(events->WaitForClosed(kPeers));
  REQUIRE(server.Finish() == "");
  for (const auto& connection : events->connections()) {
    REQUIRE(connection.events == std::vector{kAccept, kClosed});
  }
}

TEST_CASE("a dialled connection may be stopped in kConnected", "[M7][M22][E2]") {
  const StopMode mode = AnyMode();
  auto events = NewRecorder();
  events->on_connected = [mode](const ConnPtr& conn) { conn->Stop(mode); };
  RawListener listener;
  TestClient client(events, listener.address());
  RawPeer peer = listener.Accept();
  peer.SendAll(Frame("ignored"));
  const End end = peer.ReadAll();
  const bool ended = end == End::kEof || end == End::kReset;
  REQUIRE(ended);
  peer.Close();
  REQUIRE_FALSE(client.Wait());
  REQUIRE(client.Finish() == "");
  REQUIRE(events->connection().events == std::vector{kConnected, kClosed});
  REQUIRE(client->Stats().reason == CloseReason::kLocalStop);
}

TEST_CASE("a stop in kClosed changes nothing", "[M5][M8][M22][E6]") {
  const StopMode mode = AnyMode();
  auto events = NewRecorder();
  events->on_closed = [mode](const ConnPtr& conn) {
    conn->Stop(mode);
    conn->PauseRecv();
    conn->ResumeRecv();
    if (conn->Stats().reason != CloseReason::kPeerClosed) AddViolation("M8: the reason changed");
  };
  TestServer server(events);
  { RawPeer peer(server.port()); }
  REQUIRE(events->WaitForClosed(1));
  REQUIRE(server.Finish() == "");
}

TEST_CASE("the server may be stopped in any event, in any mode", "[M7][M22][M26][S4][E2]") {
  const StopMode mode = AnyMode();
  const EventType where = GENERATE(kAccept, kRecv, kClosed);
  CAPTURE(static_cast<int>(mode), static_cast<int>(where));
  Options options;
  options.loops = 2;
  options.linger_timeout = std::chrono::milliseconds(200);
  auto events = NewRecorder();
  std::atomic<Server*> server_pointer{nullptr};
  Signal ready;
  std::atomic<int> stops{0};
  const auto stop = [&](const ConnPtr&) {
    ready.Wait();
    if (++stops > 1) return;
    const StopReport report = server_pointer.load()->Stop(mode);
    const bool waits = mode == StopMode::kGracefullyAndWait;
    if ((report.error == Errc::kWouldDeadlock) != waits) AddViolation("M26: wrong error of Stop");
  };
  if (where == kAccept) events->on_accept = stop;
  if (where == kRecv) events->on_recv = [&](const ConnPtr& conn, std::string_view) { stop(conn); };
  if (where == kClosed) events->on_closed = stop;
  TestServer server(events, options);
  server_pointer = server.operator->();
  ready.Set();
  std::vector<RawPeer> peers;
  for (int i = 0; i < 6; ++i) {
    RawPeer peer(server.port());
    peer.SendAll(Frame("hello"));
    peers.push_back(std::move(peer));
  }
  if (where == kClosed) peers[0].Close();
  REQUIRE(server.WaitForEnd());
  REQUIRE(stops >= 1);
  REQUIRE(server.Finish() == "");
}

TEST_CASE("stopping another connection in a callback never nests its kClosed", "[M7][M27][E3]") {
  Options options;
  options.loops = GENERATE(1u, 2u);
  const StopMode mode = GENERATE(StopMode::kImmediately, StopMode::kGracefullyButNotWait);
  auto events = NewRecorder();
  // Connections come in pairs: each stops its partner when it is told to.
  events->on_recv = [&](const ConnPtr& conn, std::string_view payload) {
    const std::size_t own = std::stoul(std::string(payload));
    if (events->conn(own) != conn) AddViolation("a packet came on another connection");
    events->conn(own ^ 1)->Stop(mode);
  };
  TestServer server(events, options);
  const auto connect_pair = [&](std::size_t first) {
    std::vector<RawPeer> pair;
    pair.emplace_back(server.port());
    if (!events->WaitForAccepted(first + 1)) return pair;
    pair.emplace_back(server.port());
    events->WaitForAccepted(first + 2);
    return pair;
  };
  std::vector<RawPeer> pair = connect_pair(0);
  REQUIRE(pair[0].SendAll(Frame("0")));
  REQUIRE(pair[1].ReadAll() != End::kTimeout);
  pair.clear();
  REQUIRE(events->WaitForClosed(2));
  // Both at once, on one loop or on two.
  constexpr std::size_t kRounds = 50;
  for (std::size_t round = 1; round <= kRounds; ++round) {
    pair = connect_pair(2 * round);
    REQUIRE(pair.size() == 2);
    static_cast<void>(pair[0].SendAll(Frame(std::to_string(2 * round))));
    static_cast<void>(pair[1].SendAll(Frame(std::to_string(2 * round + 1))));
    pair.clear();
    REQUIRE(events->WaitForClosed(2 * round + 2));
  }
  REQUIRE(server.Finish() == "");
}

TEST_CASE("kClosed comes once, whoever ends the connection at the same moment", "[M5][M10][E2]") {
  constexpr int kRounds = 150;
  auto events = NewRecorder();
  events->on_recv = Echo;
  TestServer server(events);
  for (int round = 0; round < kRounds; ++round) {
    RawPeer peer(server.port());
    REQUIRE(events->WaitForAccepted(static_cast<std::size_t>(round) + 1));
    const ConnPtr conn = events->conn(static_cast<std::size_t>(round));
    std::barrier start(4);
    const auto stop = [&](StopMode mode) {
      start.arrive_and_wait();
      conn->Stop(mode);
    };
    std::thread first(stop, StopMode::kImmediately);
    std::thread second(stop, StopMode::kGracefullyButNotWait);
    std::thread sender([&] {
      start.arrive_and_wait();
      for (int i = 0; i < 50; ++i) static_cast<void>(conn->Send("x"));
    });
    start.arrive_and_wait();
    if (round % 2 == 0) {
      peer.Close();
    } else {
      peer.Reset();
    }
    first.join();
    second.join();
    sender.join();
  }
  REQUIRE(events->WaitForClosed(kRounds));
  REQUIRE(server.Finish() == "");
}

TEST_CASE("two hundred connections end at a stop, from outside or in a handler",
          "[M20][M22][E2][X5]") {
  constexpr std::size_t kPeers = 200;
  const bool inside = GENERATE(false, true);
  Options options;
  options.loops = 2;
  auto events = NewRecorder();
  std::atomic<Server*> server_pointer{nullptr};
  events->on_recv = [&](const ConnPtr&, std::string_view) {
    server_pointer.load()->Stop(StopMode::kImmediately);
  };
  TestServer server(events, options);
  server_pointer = server.operator->();
  std::vector<RawPeer> peers;
  for (std::size_t i = 0; i < kPeers; ++i) peers.emplace_back(server.port());
  REQUIRE(events->WaitForAccepted(kPeers));
  REQUIRE(server->ConnectionCount() == kPeers);
  if (inside) {
    REQUIRE(peers[77].SendAll(Frame("stop")));
    REQUIRE(server.WaitForEnd());
  }
  REQUIRE(server.Finish() == "");
  REQUIRE(events->totals().closed == kPeers);
  REQUIRE(server.report().connections == kPeers);
}

TEST_CASE("a handle outlives its connection and its server", "[M8][M29][E6]") {
  ConnPtr accepted;
  {
    auto events = NewRecorder();
    TestServer server(events);
    RawPeer peer(server.port());
    REQUIRE(events->WaitForAccepted(1));
    accepted = events->conn();
    REQUIRE(server.Finish() == "");
  }
  const ConnStats stats = accepted->Stats();
  REQUIRE(stats.reason == CloseReason::kLocalStop);
  REQUIRE(accepted->IsStopped());
  REQUIRE(accepted->Send("x") == Errc::kClosed);
  REQUIRE(accepted->SendPacket(BytesPacket("x")) == Errc::kClosed);
  accepted->PauseRecv();
  accepted->ResumeRecv();
  WithinDeadline("a stop after the end", [&] {
    accepted->Stop(StopMode::kImmediately);
    accepted->Stop(StopMode::kGracefullyButNotWait);
    accepted->Stop(StopMode::kGracefullyAndWait);
  });
  REQUIRE(accepted->DialAndServe("127.0.0.1:1") == Errc::kAlreadyUsed);
  REQUIRE_FALSE(accepted->ToString().empty());
  REQUIRE(accepted->Stats().accepted_bytes == stats.accepted_bytes);
  REQUIRE(accepted->Stats().reason == stats.reason);
}

TEST_CASE("one handler may serve several servers and connections at once", "[M5][M6]") {
  auto events = NewRecorder();
  std::atomic<int> answers{0};
  events->on_recv = [&](const ConnPtr& conn, std::string_view payload) {
    if (payload == "ping") static_cast<void>(conn->Send(Frame("pong")));
    if (payload == "pong") ++answers;
  };
  Options options;
  options.loops = 2;
  TestServer first(events, options);
  TestServer second(events);
  {
    TestClient a(events, first.address());
    TestClient b(events, second.address());
    REQUIRE_FALSE(a->Send(Frame("ping")));
    REQUIRE_FALSE(b->Send(Frame("ping")));
    REQUIRE(events->WaitForPackets(4));
    REQUIRE(a.Finish() == "");
    REQUIRE(b.Finish() == "");
  }
  REQUIRE(events->WaitForClosed(4));
  REQUIRE(first.Finish() == "");
  REQUIRE(second.Finish() == "");
  REQUIRE(answers == 2);
}

}  // namespace
}  // namespace xtcp::test
