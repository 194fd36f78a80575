// What PauseRecv holds back, and that nothing of it is lost.

#include <unistd.h>

#include <atomic>
#include <catch2/catch.hpp>
#include <cerrno>
#include <cstddef>
#include <memory>
#include <string>
#include <system_error>
#include <thread>
#include <vector>

#include "support/event_recorder.h"
#include "support/raw_peer.h"
#include "support/test_client.h"
#include "support/test_protocol.h"
#include "support/test_server.h"

namespace xtcp::test {
namespace {

using Payloads = std::vector<std::string>;

constexpr bool kTcp = false, kUnix = true;

// "0", "1", …
Payloads Numbers(std::size_t count) {
  Payloads payloads;
  for (std::size_t i = 0; i < count; ++i) payloads.push_back(std::to_string(i));
  return payloads;
}

std::string Frames(const Payloads& payloads) {
  std::string stream;
  for (const std::string& payload : payloads) stream += Frame(payload);
  return stream;
}

// A server, a connection that the test pauses, and a witness: after some of its round trips the
// loop has seen whatever had reached it before.
struct Scene {
  explicit Scene(bool over_unix = kTcp, bool pause_in_accept = false) {
    events = std::make_shared<EventRecorder>();
    events->on_accept = [pause_in_accept](const ConnPtr& conn) {
      if (pause_in_accept && conn->RemoteAddress().IsUnix()) conn->PauseRecv();
    };
    events->on_recv = [](const ConnPtr& conn, std::string_view payload) {
      if (payload == "ping") Echo(conn, payload);
      if (payload == "pause") conn->PauseRecv();
    };
    const std::string local = "unix:@xtcp_pause_" + std::to_string(::getpid());
    server = std::make_unique<TestServer>(events, Options{}, Payloads{"127.0.0.1:0", local});
    witness = RawPeer(server->address());
    REQUIRE(events->WaitForAccepted(1));
    peer = RawPeer(server->address(over_unix ? 1 : 0));
    REQUIRE(events->WaitForAccepted(2));
    paused = events->conn(1);
  }

  bool TurnsPass() {
    for (int i = 0; i < 10; ++i) {
      if (!witness.SendAll(Frame("ping")) || witness.ReadFrame() != "ping") return false;
    }
    return true;
  }

  Payloads delivered() const { return events->connection(1).payloads; }
  std::size_t closed() const { return events->totals().closed; }

  std::shared_ptr<EventRecorder> events;
  std::unique_ptr<TestServer> server;
  RawPeer witness;
  RawPeer peer;
  ConnPtr paused;
};

TEST_CASE("while paused no packet comes and no FIN is seen; then all of it", "[M18][M16][E4]") {
  const bool over_unix = GENERATE(kTcp, kUnix);
  const bool half = GENERATE(true, false);  // false: a Unix peer has hung up
  const bool in_callback = GENERATE(true, false);
  CAPTURE(over_unix, half, in_callback);
  Scene scene(over_unix);
  Payloads expected = Numbers(1000);
  if (in_callback) {
    // With more behind it in the same segment.
    expected.insert(expected.begin(), "pause");
  } else {
    scene.paused->PauseRecv();
    scene.paused->PauseRecv();  // not counted
  }
  REQUIRE(scene.peer.SendAll(Frames(expected)));
  if (in_callback) REQUIRE(WaitUntil([&] { return scene.delivered() == Payloads{"pause"}; }));
  half ? scene.peer.HalfClose() : scene.peer.Close();
  REQUIRE(scene.TurnsPass());
  REQUIRE(scene.delivered().size() == (in_callback ? 1 : 0));
  REQUIRE_FALSE(scene.paused->IsStopped());
  REQUIRE(scene.closed() == 0);

  scene.paused->ResumeRecv();
  REQUIRE(scene.events->WaitForClosed(1));
  const bool same = scene.delivered() == expected;
  REQUIRE(same);
  REQUIRE(scene.paused->Stats().reason == CloseReason::kPeerClosed);
  REQUIRE_FALSE(scene.paused->Stats().error);
  REQUIRE(scene.server->Finish() == "");
}

TEST_CASE("pausing in kAccept holds back what is there already", "[M18][M5]") {
  Scene scene(kUnix, true);
  const Payloads expected = Numbers(10);
  REQUIRE(scene.peer.SendAll(Frames(expected)));
  scene.peer.Close();
  REQUIRE(scene.TurnsPass());
  REQUIRE(scene.delivered().empty());
  REQUIRE(scene.closed() == 0);
  scene.paused->ResumeRecv();
  REQUIRE(scene.events->WaitForClosed(1));
  REQUIRE(scene.delivered() == expected);
  REQUIRE(scene.server->Finish() == "");
}

TEST_CASE("pausing again and again loses nothing of a Unix peer that has hung up", "[M18]") {
  Scene scene(kUnix);
  const Payloads expected = Numbers(5000);
  REQUIRE(scene.peer.SendAll(Frames({"pause"}) + Frames(expected)));
  scene.peer.Close();
  for (int i = 0; i < 1000 && scene.closed() == 0; ++i) {
    scene.paused->PauseRecv();
    REQUIRE(scene.TurnsPass());
    scene.paused->ResumeRecv();
    REQUIRE(scene.TurnsPass());
  }
  REQUIRE(scene.delivered().size() == 1 + expected.size());
  REQUIRE(scene.paused->Stats().reason == CloseReason::kPeerClosed);
  REQUIRE(scene.server->Finish() == "");
}

TEST_CASE("a reset while paused closes, and what was unread is dropped", "[M17][M18][E5]") {
  const bool over_unix = GENERATE(kTcp, kUnix);
  const bool in_callback = GENERATE(true, false);
  CAPTURE(over_unix, in_callback);
  Scene scene(over_unix);
  if (over_unix) {
    // A Unix socket is reset by closing it with unread input.
    REQUIRE_FALSE(scene.paused->Send("unread"));
    REQUIRE(WaitUntil([&] { return scene.paused->Stats().written_bytes == 6; }));
  }
  if (!in_callback) scene.paused->PauseRecv();
  REQUIRE(scene.peer.SendAll(Frames({"pause", "a", "b"})));
  if (in_callback) REQUIRE(scene.events->WaitForPackets(1));
  REQUIRE(scene.TurnsPass());
  over_unix ? scene.peer.Close() : scene.peer.Reset();
  REQUIRE(scene.events->WaitForClosed(1));
  const ConnStats stats = scene.paused->Stats();
  REQUIRE(stats.reason == CloseReason::kPeerReset);
  REQUIRE(stats.error == std::error_code(ECONNRESET, std::system_category()));
  REQUIRE(scene.delivered().size() == (in_callback ? 1 : 0));
  if (!in_callback) REQUIRE(stats.received_bytes == 0);
  scene.paused->ResumeRecv();  // too late
  REQUIRE(scene.TurnsPass());
  REQUIRE(scene.delivered().size() == (in_callback ? 1 : 0));
  REQUIRE(scene.server->Finish() == "");
}

TEST_CASE("writing to a peer that has hung up closes a paused connection", "[M17][M18][B1]") {
  Scene scene(kUnix);
  scene.paused->PauseRecv();
  REQUIRE(scene.peer.SendAll(Frames({"a", "b"})));
  scene.peer.Close();
  REQUIRE(scene.TurnsPass());
  REQUIRE_FALSE(scene.paused->Send("into the void"));
  REQUIRE(scene.events->WaitForClosed(1));
  REQUIRE(scene.paused->Stats().reason == CloseReason::kPeerReset);
  REQUIRE(scene.paused->Stats().unsent_bytes() == 13);
  REQUIRE(scene.delivered().empty());
  REQUIRE(scene.server->Finish() == "");
}

TEST_CASE("pause takes effect between two packets of one read, resume without input", "[M18][E4]") {
  const Payloads expected = Numbers(50);
  auto events = std::make_shared<EventRecorder>();
  events->on_recv = [](const ConnPtr& conn, std::string_view) { conn->PauseRecv(); };
  TestServer server(events);
  RawPeer peer(server.port());
  REQUIRE(peer.SendAll(Frames(expected)));
  for (std::size_t i = 1; i < expected.size(); ++i) {
    REQUIRE(events->WaitForPackets(i));
    REQUIRE_FALSE(events->conn()->Send("x"));  // written in a later turn
    std::string byte;
    REQUIRE(peer.ReadExactly(1, &byte) == End::kOpen);
    REQUIRE(events->totals().packets == i);
    events->conn()->ResumeRecv();
  }
  REQUIRE(events->WaitForPackets(expected.size()));
  REQUIRE(events->connection().payloads == expected);
  REQUIRE(server.Finish() == "");
}

TEST_CASE("pausing and resuming in one callback changes nothing", "[M18]") {
  const Payloads expected = Numbers(100);
  auto events = std::make_shared<EventRecorder>();
  events->on_recv = [](const ConnPtr& conn, std::string_view) {
    conn->PauseRecv();
    conn->PauseRecv();
    conn->ResumeRecv();
    conn->ResumeRecv();
  };
  TestServer server(events);
  RawPeer peer(server.port());
  REQUIRE(peer.SendAll(Frames(expected)));
  REQUIRE(events->WaitForPackets(expected.size()));
  REQUIRE(server.Finish() == "");
}

TEST_CASE("a graceful stop reads and discards although reading is paused", "[M18][M19][B2][M7]") {
  const bool over_unix = GENERATE(kTcp, kUnix);
  const bool hung_up = over_unix && GENERATE(false, true);
  const bool server_wide = GENERATE(false, true);
  CAPTURE(over_unix, hung_up, server_wide);
  Scene scene(over_unix);
  REQUIRE(scene.peer.SendAll(Frames({"pause", "behind"})));
  REQUIRE(WaitUntil([&] { return scene.delivered() == Payloads{"pause"}; }));
  if (hung_up) scene.peer.Close();
  REQUIRE(scene.TurnsPass());
  constexpr StopMode kMode = StopMode::kGracefullyButNotWait;
  static_cast<void>(server_wide ? (*scene.server)->Stop(kMode) : scene.paused->Stop(kMode));
  if (!hung_up) {
    // More than the kernel holds: it is taken.
    REQUIRE(scene.peer.SendAll(std::string(16 << 20, 'x')));
    scene.peer.HalfClose();
    REQUIRE(scene.peer.ReadAll() == End::kEof);
  }
  if (server_wide) scene.witness.Close();
  REQUIRE(scene.events->WaitForClosed(server_wide ? 2 : 1));
  REQUIRE(scene.paused->Stats().reason == CloseReason::kLocalStop);
  REQUIRE(scene.delivered() == Payloads{"pause"});
  REQUIRE(scene.server->Finish() == "");
  REQUIRE(scene.server->report().cut == 0);
}

TEST_CASE("a connection may be paused before it stands", "[M18][M33]") {
  const Payloads expected = Numbers(10);
  RawListener listener;
  auto events = std::make_shared<EventRecorder>();
  TestClient client(events);
  client->PauseRecv();
  client->PauseRecv();
  client.Dial(listener.address());
  RawPeer peer = listener.Accept();
  REQUIRE(peer.SendAll(Frames(expected)));
  peer.HalfClose();
  REQUIRE(events->WaitForConnected(1));
  for (int i = 0; i < 10; ++i) {
    REQUIRE_FALSE(client->Send("x"));
    std::string byte;
    REQUIRE(peer.ReadExactly(1, &byte) == End::kOpen);
  }
  REQUIRE(events->totals().packets == 0);
  REQUIRE_FALSE(client->IsStopped());
  client->ResumeRecv();
  REQUIRE_FALSE(client.Wait());
  REQUIRE(events->connection().payloads == expected);
  REQUIRE(client->Stats().reason == CloseReason::kPeerClosed);
  REQUIRE(client.Finish() == "");
}

TEST_CASE("a pause before the dial may be taken back before it", "[M18]") {
  RawListener listener;
  auto events = std::make_shared<EventRecorder>();
  TestClient client(events);
  client->PauseRecv();
  client->ResumeRecv();
  client.Dial(listener.address());
  RawPeer peer = listener.Accept();
  REQUIRE(peer.SendAll(Frame("x")));
  REQUIRE(events->WaitForPackets(1));
  REQUIRE(client.Finish() == "");
}

TEST_CASE("pausing from several threads at once loses and reorders nothing", "[M18][M6][E3]") {
  const Payloads expected = Numbers(20'000);
  auto events = std::make_shared<EventRecorder>();
  std::atomic<std::size_t> packets{0};
  events->on_recv = [&](const ConnPtr& conn, std::string_view) {
    if (++packets % 7 == 0) conn->PauseRecv();
  };
  TestServer server(events);
  RawPeer peer(server.port());
  REQUIRE(events->WaitForAccepted(1));
  const ConnPtr conn = events->conn();
  std::vector<std::thread> threads;
  for (int t = 0; t < 2; ++t) {
    threads.emplace_back([&] {
      while (packets < expected.size()) {
        conn->PauseRecv();
        conn->ResumeRecv();
        std::this_thread::yield();
      }
    });
  }
  const bool sent = peer.SendAll(Frames(expected));
  const bool all = events->WaitForPackets(expected.size(), 3 * kDeadline);
  packets = expected.size();
  for (std::thread& thread : threads) thread.join();
  REQUIRE(sent);
  REQUIRE(all);
  const bool same = events->connection().payloads == expected;
  REQUIRE(same);
  REQUIRE(server.Finish() == "");
}

}  // namespace
}  // namespace xtcp::test
