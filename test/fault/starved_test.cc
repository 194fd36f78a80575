// Reads and writes for which the kernel has no memory, on a clock that the test moves.

#include <atomic>
#include <catch2/catch.hpp>
#include <cerrno>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <system_error>

#include "support/event_recorder.h"
#include "support/fault_control.h"
#include "support/raw_peer.h"
#include "support/test_protocol.h"
#include "support/test_server.h"

namespace xtcp::test {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;

constexpr std::size_t kAlways = Fault::kAlways;

// An echo server, a connection that gets no memory, and a witness.
struct Scene {
  explicit Scene(Options options = {}) {
    events->on_accept = [this](const ConnPtr& conn) {
      if (descriptor < 0) descriptor = conn->Descriptor();
    };
    events->on_recv = Echo;
    server = std::make_unique<TestServer>(events, options);
    victim = RawPeer(server->port());
    REQUIRE(WaitUntil([&] { return descriptor >= 0; }));
    witness = RawPeer(server->port());
    REQUIRE(events->WaitForAccepted(2));
    starved = events->conn(0);
  }

  // What a send leaves over goes on by sendmsg.
  void Starve(Site site, int error) {
    const auto add = [&](Site where, int what) {
      plan.Add({.site = where, .error = what, .times = kAlways, .fd = descriptor});
    };
    if (site == Site::kRecv) add(Site::kRecv, error);
    if (site == Site::kSend) add(Site::kSend, error);
    if (site == Site::kSendMsg) add(Site::kSend, EAGAIN);
    if (site != Site::kRecv) add(Site::kSendMsg, error);
  }

  // Meanwhile the witness is served.
  void Pass(milliseconds time) {
    constexpr milliseconds kStep{10};
    for (milliseconds passed{0}; passed < time; passed += kStep) {
      REQUIRE(witness.SendAll(Frame("x")));
      REQUIRE(witness.ReadFrame() == "x");
      clock.Advance(kStep);
    }
    REQUIRE(witness.SendAll(Frame("x")));
    REQUIRE(witness.ReadFrame() == "x");
  }

  FaultPlan plan;
  VirtualClock clock;
  std::shared_ptr<EventRecorder> events = std::make_shared<EventRecorder>();
  std::unique_ptr<TestServer> server;
  std::atomic<int> descriptor{-1};
  RawPeer victim;
  RawPeer witness;
  ConnPtr starved;
};

TEST_CASE("a read or write without memory is tried ten times a second, and nothing is lost",
          "[F2][R7][B1]") {
  const Site site = GENERATE(Site::kRecv, Site::kSend, Site::kSendMsg);
  const int error = GENERATE(ENOBUFS, ENOMEM);
  CAPTURE(static_cast<int>(site), error);
  constexpr std::size_t kSeconds = 3;
  Scene scene;
  scene.Starve(site, error);
  REQUIRE(scene.victim.SendAll(Frame("starved")));
  REQUIRE(WaitUntil([&] { return scene.plan.injected() > 0; }));
  // A socket that is readable and writable all the time: only the timer may count.
  const std::size_t before = scene.plan.injected();
  const std::uint64_t waits = CallsOf(Site::kEpollWait);
  scene.Pass(seconds(kSeconds));
  const std::size_t tries = scene.plan.injected() - before;
  CHECK(tries <= 10 * kSeconds + 2);
  CHECK(tries >= 8 * kSeconds);
  // Each of the witness's 100 round trips a second wakes the loop, too.
  CHECK(CallsOf(Site::kEpollWait) - waits <= 300 * kSeconds);
  CHECK(scene.events->totals().closed == 0);
  scene.plan.Clear();
  scene.Pass(milliseconds(120));
  REQUIRE(scene.victim.ReadFrame() == "starved");
  REQUIRE(scene.victim.SendAll(Frame("fed")));
  REQUIRE(scene.victim.ReadFrame() == "fed");
  REQUIRE(scene.server->Finish() == "");
}

TEST_CASE("a read or write without memory for ten seconds ends the connection", "[F2][E5][B1]") {
  const Site site = GENERATE(Site::kRecv, Site::kSend, Site::kSendMsg);
  const int error = GENERATE(ENOBUFS, ENOMEM);
  CAPTURE(static_cast<int>(site), error);
  Scene scene;
  scene.Starve(site, error);
  REQUIRE(scene.victim.SendAll(Frame("starved")));
  REQUIRE(WaitUntil([&] { return scene.plan.injected() > 0; }));
  scene.Pass(seconds(9));
  REQUIRE(scene.events->totals().closed == 0);
  scene.Pass(seconds(3));
  REQUIRE(scene.events->WaitForClosed(1));
  const ConnStats stats = scene.starved->Stats();
  CHECK(stats.reason == CloseReason::kSystemError);
  CHECK(stats.error == std::error_code(error, std::system_category()));
  CHECK(stats.unsent_bytes() == (site == Site::kRecv ? 0 : Frame("starved").size()));
  CHECK(scene.events->totals().closed == 1);
  REQUIRE(scene.server->Finish() == "");
}

TEST_CASE("a starved connection still ends with its peer's reset, or a stop",
          "[F2][M17][M19][S7]") {
  const bool reset = GENERATE(true, false);
  Options options;
  options.linger_timeout = seconds(1);
  Scene scene(options);
  scene.Starve(Site::kSend, ENOBUFS);
  REQUIRE(scene.victim.SendAll(Frame("starved")));
  REQUIRE(WaitUntil([&] { return scene.plan.injected() > 0; }));
  if (reset) {
    scene.victim.Reset();
    REQUIRE(scene.events->WaitForClosed(1));
    CHECK(scene.starved->Stats().reason == CloseReason::kPeerReset);
  } else {
    static_cast<void>(scene.starved->Stop(StopMode::kGracefullyButNotWait));
    scene.Pass(milliseconds(1100));
    REQUIRE(scene.events->WaitForClosed(1));
    CHECK(scene.starved->Stats().reason == CloseReason::kLingerTimeout);
  }
  CHECK(scene.starved->Stats().unsent_bytes() == Frame("starved").size());
  REQUIRE(scene.server->Finish() == "");
}

}  // namespace
}  // namespace xtcp::test
