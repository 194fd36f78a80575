// No state of a connection keeps the loop busy.

#include <time.h>
#include <unistd.h>

#include <catch2/catch.hpp>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "support/event_recorder.h"
#include "support/fault_control.h"
#include "support/raw_peer.h"
#include "support/test_client.h"
#include "support/test_protocol.h"
#include "support/test_server.h"

namespace xtcp::test {
namespace {

using std::chrono::milliseconds;

constexpr std::size_t kMiB = 1 << 20;

double CpuSeconds() {
  timespec now{};
  ::clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &now);
  return static_cast<double>(now.tv_sec) + static_cast<double>(now.tv_nsec) * 1e-9;
}

// A server on a TCP and on a Unix address, and peers that bring it into a state.
struct Scene {
  Scene() {
    events = std::make_shared<EventRecorder>();
    events->on_recv = [](const ConnPtr& conn, std::string_view payload) {
      if (payload == "pause") conn->PauseRecv();
      if (payload == "flood") static_cast<void>(conn->Send(std::string(12 * kMiB, 'x')));
      if (payload == "stop") static_cast<void>(conn->Stop(StopMode::kGracefullyButNotWait));
    };
    const std::string local = "unix:@xtcp_quiet_" + std::to_string(::getpid());
    server = std::make_unique<TestServer>(events, Options{},
                                          std::vector<std::string>{"127.0.0.1:0", local});
  }

  // A peer that has sent `frames`, each of which has come through.
  RawPeer& Peer(std::vector<std::string> frames, bool over_unix = false) {
    const std::size_t packets = events->totals().packets;
    RawPeer peer(server->address(over_unix ? 1 : 0), over_unix ? 0 : 4096);
    for (std::size_t i = 0; i < frames.size(); ++i) {
      REQUIRE(peer.SendAll(Frame(frames[i])));
      REQUIRE(events->WaitForPackets(packets + i + 1));
    }
    peers.push_back(std::move(peer));
    REQUIRE(events->WaitForAccepted(peers.size()));
    return peers.back();
  }

  FaultPlan no_faults;
  std::shared_ptr<EventRecorder> events;
  std::unique_ptr<TestServer> server;
  std::vector<RawPeer> peers;
};

struct State {
  const char* name;
  void (*enter)(Scene&);
};

const State kStates[] = {
    {"idle", [](Scene& scene) { scene.Peer({}); }},
    {"in the middle of a packet",
     [](Scene& scene) { scene.Peer({}).SendAll(Frame("half").substr(0, 6)); }},
    {"paused with unread input",
     [](Scene& scene) { scene.Peer({"pause"}).SendAll(std::string(100'000, 'x')); }},
    {"paused with packets that are buffered",
     [](Scene& scene) { scene.Peer({}).SendAll(Frame("pause") + Frame("a") + Frame("b")); }},
    {"paused with the peer's FIN", [](Scene& scene) { scene.Peer({"pause"}).HalfClose(); }},
    {"paused with unread input and the peer's FIN",
     [](Scene& scene) {
       RawPeer& peer = scene.Peer({"pause"});
       peer.SendAll(Frame("last"));
       peer.Close();
     }},
    {"paused with the peer's reset", [](Scene& scene) { scene.Peer({"pause"}).Reset(); }},
    {"paused, and the Unix peer has half closed",
     [](Scene& scene) { scene.Peer({"pause"}, true).HalfClose(); }},
    {"paused, and the Unix peer has hung up",
     [](Scene& scene) {
       RawPeer& peer = scene.Peer({"pause"}, true);
       peer.SendAll(Frame("last"));
       peer.Close();
     }},
    {"paused and written to, and the Unix peer has hung up",
     [](Scene& scene) {
       scene.Peer({"flood", "pause"}, true).Close();
     }},
    {"write blocked", [](Scene& scene) { scene.Peer({"flood"}); }},
    {"write blocked and paused, with unread input",
     [](Scene& scene) {
       scene.Peer({"flood", "pause"}).SendAll(Frame("unread"));
     }},
    {"write blocked and paused, with the peer's FIN",
     [](Scene& scene) {
       scene.Peer({"flood", "pause"}).HalfClose();
     }},
    {"half closed with output queued", [](Scene& scene) { scene.Peer({"flood"}).HalfClose(); }},
    {"half closed with output queued, on a Unix socket",
     [](Scene& scene) { scene.Peer({"flood"}, true).HalfClose(); }},
    {"stopping with output queued",
     [](Scene& scene) {
       scene.Peer({"flood", "stop"});
     }},
    {"stopping with output queued and the peer's FIN",
     [](Scene& scene) {
       scene.Peer({"flood", "stop"}).HalfClose();
     }},
    {"lingering: a graceful stop, and the peer is silent",
     [](Scene& scene) { scene.Peer({"stop"}); }},
    {"lingering while paused",
     [](Scene& scene) {
       scene.Peer({"pause"});
       static_cast<void>(
           scene.events->connections().back().conn->Stop(StopMode::kGracefullyButNotWait));
     }},
};

// How often the loop wakes up within `time`.
std::uint64_t WakeUpsWithin(milliseconds time) {
  Signal nothing;
  const std::uint64_t before = CallsOf(Site::kEpollWait);
  static_cast<void>(nothing.Wait(time));
  return CallsOf(Site::kEpollWait) - before;
}

// Waits until the loop has slept for `time`. False when it wakes up again and again.
bool FallsAsleep(milliseconds time) {
  for (std::uint64_t wake_ups = 0; wake_ups < 100;) {
    const std::uint64_t now = WakeUpsWithin(time);
    if (now == 0) return true;
    wake_ups += now;
  }
  return false;
}

TEST_CASE("no state of a connection spins the loop", "[M18][R7]") {
  for (const State& state : kStates) {
    INFO(state.name);
    Scene scene;
    state.enter(scene);
    CHECK(FallsAsleep(milliseconds(50)));
    CHECK(scene.server->Finish() == "");
  }
}

TEST_CASE("a server with connections in every state sleeps", "[M18][R7]") {
  Scene scene;
  scene.peers.reserve(std::size(kStates));
  for (const State& state : kStates) state.enter(scene);
  RawListener listener;
  auto dialled = std::make_shared<EventRecorder>();
  TestClient client(dialled, listener.address());
  const RawPeer accepted = listener.Accept();
  REQUIRE(dialled->WaitForConnected(1));
  REQUIRE(FallsAsleep(std::chrono::seconds(1)));
  const double cpu = CpuSeconds();
  CHECK(FallsAsleep(std::chrono::seconds(1)));
  CHECK(CpuSeconds() - cpu <= 0.05);
  REQUIRE(client.Finish() == "");
  REQUIRE(scene.server->Finish() == "");
}

}  // namespace
}  // namespace xtcp::test
