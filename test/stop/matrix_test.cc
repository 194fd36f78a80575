// Every mode of a stop, in every state of a connection, from every caller.

#include <array>
#include <atomic>
#include <catch2/catch.hpp>
#include <chrono>
#include <functional>
#include <latch>
#include <memory>
#include <optional>
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

enum class State { kIdle, kMidReceive, kMidSend, kNotReading, kFlooding, kInCallback };
enum class Caller { kLoopThread, kOtherThread, kTwoThreads };

constexpr std::array kModes = {StopMode::kImmediately, StopMode::kGracefullyButNotWait,
                               StopMode::kGracefullyAndWait};
constexpr std::array kStates = {State::kIdle,       State::kMidReceive, State::kMidSend,
                                State::kNotReading, State::kFlooding,   State::kInCallback};
constexpr std::array kCallers = {Caller::kLoopThread, Caller::kOtherThread, Caller::kTwoThreads};

// More than the kernel takes for a peer that does not read.
constexpr std::size_t kQueued = 12 << 20;

// A peer that does not end its stream is cut; all others have all the time that they need.
milliseconds LingerFor(State state) {
  const bool cut = state == State::kNotReading || state == State::kFlooding;
  return cut ? milliseconds(150) : milliseconds(20'000);
}

// The connection that is stopped, seen from outside. `stop` is what is called: the connection's or
// its server's.
struct Scene {
  State state;
  StopMode mode;
  Caller caller;
  std::function<StopReport(StopMode)> stop;
  std::function<bool()> stopped;

  std::shared_ptr<EventRecorder> events = std::make_shared<EventRecorder>();
  Signal held;    // the callback of kInCallback runs
  Signal called;  // a stop on the loop's thread has returned
  std::error_code on_loop;

  bool graceful() const { return mode != StopMode::kImmediately; }

  // What frames from a peer make the handler do.
  void Install() {
    events->keep_payloads = false;
    events->on_recv = [this](const ConnPtr& conn, std::string_view payload) {
      if (payload == "fill") {
        static_cast<void>(conn->Send(std::string(kQueued, 'x')));
      } else if (payload == "hold") {
        held.Set();
        WaitUntil([this] { return stopped(); });
      } else if (payload == "stop") {
        on_loop = stop(mode).error;
        called.Set();
      }
    };
  }

  // Brings the connection into its state.
  void Enter(RawPeer& peer, const ConnPtr& conn) {
    switch (state) {
      case State::kIdle:
      case State::kFlooding:
        break;
      case State::kMidReceive:
        REQUIRE(peer.SendAll(Frame("half").substr(0, 6)));
        break;
      case State::kMidSend:
      case State::kNotReading:
        REQUIRE(peer.SendAll(Frame("fill")));
        REQUIRE(WaitUntil([&] { return conn->Stats().accepted_bytes == kQueued; }));
        break;
      case State::kInCallback:
        if (caller == Caller::kLoopThread) break;  // there the stop itself is inside
        REQUIRE(peer.SendAll(Frame("hold")));
        REQUIRE(held.Wait());
        break;
    }
  }

  // Stops from whom it says, plays the peer to its end, and waits for the end of the stop.
  // `control` is another connection's peer whose handler can call on a loop's thread.
  StopReport Run(RawPeer& peer, RawPeer& control, bool control_ends) {
    std::atomic<bool> over{false};
    std::thread flood;
    if (state == State::kFlooding) {
      flood = std::thread([&] {
        const std::string frames = Frame(std::string(1000, 'f'));
        while (!over && peer.SendAll(frames, milliseconds(1000))) {
        }
      });
      REQUIRE(events->WaitForPackets(10));
    }
    std::vector<std::thread> callers;
    std::latch together(caller == Caller::kTwoThreads ? 2 : 1);
    if (caller == Caller::kLoopThread) {
      RawPeer& from = state == State::kInCallback ? peer : control;
      REQUIRE(from.SendAll(Frame("stop")));
      REQUIRE(called.Wait());
    } else {
      for (int i = 0; i < (caller == Caller::kTwoThreads ? 2 : 1); ++i) {
        callers.emplace_back([&] {
          together.arrive_and_wait();
          WithinDeadline("a stop", [&] { static_cast<void>(stop(mode)); });
        });
      }
    }
    const bool reads = state != State::kNotReading && state != State::kFlooding;
    End end = End::kOpen;
    if (reads) {
      end = peer.ReadAll();
      peer.Close();
    }
    if (control_ends) {
      static_cast<void>(control.ReadAll());
      control.Close();
    }
    REQUIRE(WaitUntil(stopped));  // the stop that is tested comes first
    StopReport report;
    WithinDeadline("a stop", [&] { report = stop(StopMode::kGracefullyAndWait); });
    for (std::thread& thread : callers) thread.join();
    over = true;
    if (flood.joinable()) flood.join();
    if (!reads) end = peer.ReadAll();
    if (graceful() && reads) REQUIRE(end == End::kEof);
    return report;
  }

  // What must be true of the connection and the report in the end. `peer_got`: as the peer counted.
  void Check(const ConnStats& stats, const StopReport& report, std::uint64_t peer_got) const {
    const bool waits = mode == StopMode::kGracefullyAndWait;
    if (caller == Caller::kLoopThread) {
      REQUIRE((on_loop == Errc::kWouldDeadlock) == waits);
    }
    REQUIRE_FALSE(report.error);
    REQUIRE(stats.accepted_bytes == stats.written_bytes + stats.unsent_bytes());
    REQUIRE(peer_got <= stats.written_bytes);
    REQUIRE(peer_got + stats.unacked_bytes >= stats.written_bytes);
    REQUIRE(report.unsent_bytes == stats.unsent_bytes());
    REQUIRE(report.unacked_bytes == stats.unacked_bytes);
    if (!graceful()) {
      REQUIRE(report.cut == 0);
      REQUIRE(stats.reason == CloseReason::kLocalStop);
    } else if (state == State::kNotReading || state == State::kFlooding) {
      REQUIRE(report.cut == 1);
      REQUIRE(stats.reason == CloseReason::kLingerTimeout);
      REQUIRE((report.unsent_bytes > 0) == (state == State::kNotReading));
    } else {
      REQUIRE(report.cut == 0);
      REQUIRE(report.unsent_bytes == 0);
      REQUIRE(report.unacked_bytes == 0);
      REQUIRE(peer_got == stats.accepted_bytes);
      REQUIRE(stats.reason == CloseReason::kLocalStop);
    }
  }
};

template <typename Body>
void ForEachCell(const Body& body) {
  for (const State state : kStates) {
    for (const StopMode mode : kModes) {
      for (const Caller caller : kCallers) {
        INFO("state " << static_cast<int>(state) << ", mode " << static_cast<int>(mode)
                      << ", caller " << static_cast<int>(caller));
        Scene scene;
        scene.state = state;
        scene.mode = mode;
        scene.caller = caller;
        body(scene);
      }
    }
  }
}

void RunOnServer(bool stop_server, std::size_t loops) {
  ForEachCell([&](Scene& scene) {
    Options options;
    options.loops = loops;
    options.linger_timeout = LingerFor(scene.state);
    Server* server_to_stop = nullptr;
    ConnPtr target;
    scene.Install();
    TestServer server(scene.events, options);
    const int receive_buffer = scene.state == State::kNotReading ? 4096 : 0;
    RawPeer peer(server.port(), receive_buffer);
    REQUIRE(scene.events->WaitForAccepted(1));
    target = scene.events->conn();
    RawPeer control(server.port());
    REQUIRE(scene.events->WaitForAccepted(2));
    server_to_stop = server.operator->();
    if (stop_server) {
      scene.stop = [&](StopMode mode) { return server_to_stop->Stop(mode); };
      scene.stopped = [&] { return server_to_stop->IsStopped(); };
    } else {
      scene.stop = [&](StopMode mode) { return target->Stop(mode); };
      scene.stopped = [&] { return target->IsStopped(); };
    }
    scene.Enter(peer, target);
    const StopReport report = scene.Run(peer, control, stop_server);
    REQUIRE(report.connections == (stop_server ? 2 : 1));
    scene.Check(target->Stats(), report, peer.received());
    REQUIRE(server.Finish() == "");
  });
}

TEST_CASE("stopping a server, one loop", "[M19][M20][M21][M23][S1][S2][S3][S4][S5][S7][B1][B2]") {
  RunOnServer(true, 1);
}

TEST_CASE("stopping a server, three loops", "[M19][M20][M21][M25][S3][S5][B1][B2]") {
  RunOnServer(true, 3);
}

TEST_CASE("stopping a connection, one loop", "[M19][M20][M21][M26][S4][B1][B2]") {
  RunOnServer(false, 1);
}

TEST_CASE("stopping a connection, three loops", "[M19][M20][M21][M26][B1][B2]") {
  RunOnServer(false, 3);
}

TEST_CASE("stopping a dialled connection", "[M19][M20][M21][M26][S3][S4][B1][B2]") {
  ForEachCell([](Scene& scene) {
    Options options;
    options.linger_timeout = LingerFor(scene.state);
    scene.Install();
    RawListener listener;
    TestClient client(scene.events, listener.address(), options);
    RawPeer peer = listener.Accept();
    REQUIRE(scene.events->WaitForConnected(1));
    // The control connection is on another loop: of a server that shares the handler.
    TestServer server(scene.events);
    RawPeer control(server.port());
    REQUIRE(scene.events->WaitForAccepted(1));
    scene.stop = [&](StopMode mode) { return client->Stop(mode); };
    scene.stopped = [&] { return client->IsStopped(); };
    scene.Enter(peer, client.conn());
    const StopReport report = scene.Run(peer, control, false);
    REQUIRE(report.connections == 1);
    scene.Check(client->Stats(), report, peer.received());
    REQUIRE(client.Finish() == "");
    REQUIRE(server.Finish() == "");
  });
}

}  // namespace
}  // namespace xtcp::test
