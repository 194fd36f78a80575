#include <unistd.h>

#include <atomic>
#include <catch2/catch.hpp>
#include <csignal>
#include <cstddef>
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

constexpr std::size_t kMiB = 1 << 20;

std::shared_ptr<EventRecorder> NewRecorder() { return std::make_shared<EventRecorder>(); }

TEST_CASE("a peer that has closed its half still gets the whole answer", "[M16][B1][B2]") {
  const std::size_t size = GENERATE(std::size_t{10}, 8 * kMiB);
  Random random;
  const std::string answer = random.Bytes(size);
  auto events = NewRecorder();
  events->on_recv = [&](const ConnPtr& conn, std::string_view) {
    if (conn->Send(answer)) AddViolation("the answer was refused");
  };
  TestServer server(events);
  RawPeer peer(server.port());
  REQUIRE(peer.SendAll(Frame("request")));
  peer.HalfClose();
  std::string received;
  REQUIRE(peer.ReadAll(&received) == End::kEof);
  const bool same = received == answer;
  REQUIRE(same);
  REQUIRE(events->WaitForClosed(1));
  const auto connection = events->connection();
  REQUIRE(connection.at_closed.reason == CloseReason::kPeerClosed);
  REQUIRE(connection.at_closed.written_bytes == size);
  REQUIRE(server.Finish() == "");
}

TEST_CASE("after the peer's FIN Send says kStopping while the rest is flushed", "[M16][B3]") {
  auto events = NewRecorder();
  TestServer server(events);
  RawPeer peer(server.port(), 4096);
  REQUIRE(events->WaitForAccepted(1));
  const ConnPtr conn = events->conn();
  const std::string queued(8 * kMiB, 'q');
  REQUIRE_FALSE(conn->Send(queued));
  peer.HalfClose();
  REQUIRE(WaitUntil([&] { return conn->IsStopped(); }));
  REQUIRE(conn->Send("late") == Errc::kStopping);
  REQUIRE(conn->SendPacket(BytesPacket("late")) == Errc::kStopping);
  REQUIRE(events->totals().closed == 0);
  std::string received;
  REQUIRE(peer.ReadAll(&received) == End::kEof);
  const bool same = received == queued;
  REQUIRE(same);
  REQUIRE(events->WaitForClosed(1));
  REQUIRE(conn->Send("later") == Errc::kClosed);
  REQUIRE(server.Finish() == "");
  REQUIRE(events->totals().send_ready == 0);
}

TEST_CASE("a peer that has closed its half and does not read is cut after linger_timeout",
          "[M16][B1][E5]") {
  Options options;
  options.linger_timeout = std::chrono::milliseconds(150);
  auto events = NewRecorder();
  TestServer server(events, options);
  RawPeer peer(server.port(), 4096);
  REQUIRE(events->WaitForAccepted(1));
  REQUIRE_FALSE(events->conn()->Send(std::string(12 * kMiB, 'q')));
  peer.HalfClose();
  REQUIRE(events->WaitForClosed(1));
  const ConnStats stats = events->connection().at_closed;
  REQUIRE(stats.reason == CloseReason::kLingerTimeout);
  REQUIRE(stats.unsent_bytes() > 0);
  REQUIRE(stats.accepted_bytes == 12 * kMiB);
  REQUIRE(server.Finish() == "");
}

TEST_CASE("what came before the FIN is delivered, however fast the peer left", "[M5][M16][E4]") {
  const bool unix_socket = GENERATE(false, true);
  const std::string address =
      unix_socket ? "unix:@xtcp_peer_end_" + std::to_string(::getpid()) : "127.0.0.1:0";
  constexpr std::size_t kFrames = 1000, kRounds = 10;
  std::string stream;
  for (std::size_t i = 0; i < kFrames; ++i) stream += Frame(std::string(1000, 'f'));
  auto events = NewRecorder();
  events->keep_payloads = false;
  TestServer server(events, {}, address);
  for (std::size_t round = 1; round <= kRounds; ++round) {
    RawPeer peer(server.address());
    REQUIRE(peer.SendAll(stream));
    peer.Close();
    REQUIRE(events->WaitForClosed(round));
    REQUIRE(events->connection(round - 1).packets == kFrames);
    REQUIRE(events->connection(round - 1).at_closed.reason == CloseReason::kPeerClosed);
  }
  REQUIRE(server.Finish() == "");
}

TEST_CASE("what came before a reset is delivered, then kClosed says so", "[M17][E2][E5]") {
  constexpr std::size_t kFrames = 10;
  auto events = NewRecorder();
  Signal entered, reset;
  events->on_recv = [&](const ConnPtr&, std::string_view) {
    entered.Set();
    reset.Wait();
  };
  TestServer server(events);
  RawPeer peer(server.port());
  REQUIRE(peer.SendAll(Frame("0")));
  REQUIRE(entered.Wait());
  for (std::size_t i = 1; i < kFrames; ++i) REQUIRE(peer.SendAll(Frame(std::to_string(i))));
  peer.Reset();
  reset.Set();
  REQUIRE(events->WaitForClosed(1));
  REQUIRE(events->connection().packets == kFrames);
  REQUIRE(events->connection().at_closed.reason == CloseReason::kPeerReset);
  REQUIRE(server.Finish() == "");
}

TEST_CASE("a reset closes an idle connection, and one in the middle of sending",
          "[M17][B1][E2][E5]") {
  const std::size_t queued = GENERATE(std::size_t{0}, 8 * kMiB);
  constexpr std::size_t kPeers = 20;
  auto events = NewRecorder();
  events->on_accept = [&](const ConnPtr& conn) {
    if (queued > 0) static_cast<void>(conn->Send(std::string(queued, 'q')));
  };
  TestServer server(events);
  std::vector<RawPeer> peers;
  for (std::size_t i = 0; i < kPeers; ++i) peers.emplace_back(server.port(), 4096);
  REQUIRE(events->WaitForAccepted(kPeers));
  for (RawPeer& peer : peers) peer.Reset();
  REQUIRE(events->WaitForClosed(kPeers));
  for (const auto& connection : events->connections()) {
    REQUIRE(connection.at_closed.reason == CloseReason::kPeerReset);
    REQUIRE(connection.at_closed.accepted_bytes == queued);
    if (queued > 0) REQUIRE(connection.at_closed.unsent_bytes() > 0);
  }
  REQUIRE(server.Finish() == "");
}

TEST_CASE("sending to a peer that has reset neither kills the process nor touches SIGPIPE",
          "[M17][M30][X7][F3]") {
  struct sigaction before {};
  ::sigaction(SIGPIPE, nullptr, &before);
  auto events = NewRecorder();
  TestServer server(events);
  for (std::size_t round = 0; round < 20; ++round) {
    RawPeer peer(server.port());
    REQUIRE(events->WaitForAccepted(round + 1));
    const ConnPtr conn = events->conn(round);
    std::thread sender([&] {
      while (!conn->Send("into the void")) std::this_thread::yield();
    });
    peer.Reset();
    sender.join();
    REQUIRE(events->WaitForClosed(round + 1));
    REQUIRE(conn->Stats().reason == CloseReason::kPeerReset);
  }
  struct sigaction after {};
  ::sigaction(SIGPIPE, nullptr, &after);
  REQUIRE(after.sa_handler == before.sa_handler);
  REQUIRE(server.Finish() == "");
}

TEST_CASE("a reset at the moment of a graceful stop ends the connection once",
          "[M17][M19][E2][F2]") {
  constexpr std::size_t kRounds = 200;
  auto events = NewRecorder();
  TestServer server(events);
  for (std::size_t round = 0; round < kRounds; ++round) {
    RawPeer peer(server.port());
    REQUIRE(events->WaitForAccepted(round + 1));
    const ConnPtr conn = events->conn(round);
    std::thread stopper([&] { conn->Stop(StopMode::kGracefullyAndWait); });
    peer.Reset();
    stopper.join();
    const CloseReason reason = conn->Stats().reason;
    const bool either = reason == CloseReason::kPeerReset || reason == CloseReason::kLocalStop;
    REQUIRE(either);
  }
  REQUIRE(events->totals().closed == kRounds);
  REQUIRE(server.Finish() == "");
}

TEST_CASE("a peer's end is noticed while its request is being worked on", "[M16][E2]") {
  constexpr std::size_t kPeers = 50;
  auto events = NewRecorder();
  TestServer server(events);
  std::vector<RawPeer> peers;
  for (std::size_t i = 0; i < kPeers; ++i) {
    peers.emplace_back(server.port());
    REQUIRE(peers.back().SendAll(Frame("work")));
  }
  REQUIRE(events->WaitForPackets(kPeers));
  for (RawPeer& peer : peers) peer.Close();
  REQUIRE(events->WaitForClosed(kPeers));
  // The answer comes too late, and its sender learns it.
  for (const auto& connection : events->connections()) {
    REQUIRE(connection.conn->Send(Frame("answer")) == Errc::kClosed);
  }
  REQUIRE(server.Finish() == "");
}

TEST_CASE("the dialling side treats the peer's end the same way", "[M16][M17][E5]") {
  RawListener listener;
  SECTION("half close with output queued") {
    TestClient client(NewRecorder(), listener.address());
    RawPeer peer = listener.Accept();
    const std::string queued(4 * kMiB, 'q');
    REQUIRE_FALSE(client->Send(queued));
    peer.HalfClose();
    std::string received;
    REQUIRE(peer.ReadAll(&received) == End::kEof);
    const bool same = received == queued;
    REQUIRE(same);
    REQUIRE_FALSE(client.Wait());
    REQUIRE(client->Stats().reason == CloseReason::kPeerClosed);
    REQUIRE(client.Finish() == "");
  }
  SECTION("reset") {
    TestClient client(NewRecorder(), listener.address());
    RawPeer peer = listener.Accept();
    REQUIRE(client.events().WaitForConnected(1));
    peer.Reset();
    REQUIRE_FALSE(client.Wait());
    REQUIRE(client->Stats().reason == CloseReason::kPeerReset);
    REQUIRE(client.Finish() == "");
  }
}

}  // namespace
}  // namespace xtcp::test
