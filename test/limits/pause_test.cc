// Pausing and the deadlines, on a clock that the test moves.

#include <unistd.h>

#include <atomic>
#include <catch2/catch.hpp>
#include <cerrno>
#include <chrono>
#include <memory>
#include <string>

#include "support/event_recorder.h"
#include "support/fault_control.h"
#include "support/raw_peer.h"
#include "support/test_protocol.h"
#include "support/test_server.h"

namespace xtcp::test {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;

// A server on a clock of its own, and a connection that talks all the time: after a round trip of
// its, the loop has looked at the time of the step before. On a Unix address, since there the
// kernel takes at once what it can.
struct Timed {
  explicit Timed(Options options) {
    events = std::make_shared<EventRecorder>();
    events->on_recv = [this](const ConnPtr& conn, std::string_view payload) {
      if (payload == "pause") conn->PauseRecv();
      if (payload == "block") {
        entered.Set();
        static_cast<void>(leave.Wait());
      }
      Echo(conn, payload);
    };
    server = std::make_unique<TestServer>(events, options,
                                          "unix:@xtcp_limits_" + std::to_string(::getpid()));
    talker = RawPeer(server->address());
    REQUIRE(events->WaitForAccepted(1));
    victim = RawPeer(server->address());
    REQUIRE(events->WaitForAccepted(2));
    paused = events->conn(1);
  }

  bool Turn() { return talker.SendAll(Frame("x")) && talker.ReadFrame() == "x"; }

  void Pass(milliseconds time) {
    constexpr milliseconds kStep{50};
    for (milliseconds passed{0}; passed < time; passed += kStep) {
      clock.Advance(kStep);
      REQUIRE(Turn());
      REQUIRE(Turn());
    }
  }

  // The victim has ended with `reason`; and nobody else.
  void RequireEnd(CloseReason reason) {
    REQUIRE(events->WaitForClosed(1));
    REQUIRE(paused->Stats().reason == reason);
    REQUIRE(Turn());
    REQUIRE(events->totals().closed == 1);
  }

  FaultPlan no_faults;
  VirtualClock clock;
  Signal entered, leave;
  std::shared_ptr<EventRecorder> events;
  std::unique_ptr<TestServer> server;
  RawPeer talker;
  RawPeer victim;
  ConnPtr paused;
};

TEST_CASE("while paused the read deadline stands still", "[M18][R8]") {
  Options options;
  options.read_deadline = seconds(1);
  Timed timed(options);
  timed.Pass(milliseconds(400));
  timed.paused->PauseRecv();
  timed.Pass(seconds(5));
  REQUIRE(timed.events->totals().closed == 0);
  timed.paused->ResumeRecv();
  timed.Pass(milliseconds(500));  // of the 600 that were left
  REQUIRE(timed.events->totals().closed == 0);
  timed.Pass(milliseconds(200));
  timed.RequireEnd(CloseReason::kReadDeadline);
  REQUIRE(timed.server->Finish() == "");
}

TEST_CASE("while paused the packet deadline stands still", "[M18][R8]") {
  Options options;
  options.packet_deadline = seconds(1);
  // With a limit for the first packet it runs from kAccept on.
  const bool from_accept = GENERATE(false, true);
  if (from_accept) options.first_packet_size = 1000;
  Timed timed(options);
  REQUIRE(timed.Turn());
  REQUIRE(timed.victim.SendAll(Frame("half").substr(0, 6)));
  REQUIRE(WaitUntil([&] { return timed.paused->Stats().received_bytes == 6; }));
  timed.Pass(milliseconds(400));
  timed.paused->PauseRecv();
  timed.Pass(seconds(5));
  REQUIRE(timed.events->totals().closed == 0);
  timed.paused->ResumeRecv();
  timed.Pass(milliseconds(500));
  REQUIRE(timed.events->totals().closed == 0);
  timed.Pass(milliseconds(200));
  timed.RequireEnd(CloseReason::kPacketDeadline);
  REQUIRE(timed.server->Finish() == "");
}

TEST_CASE("a deadline that passes after PauseRecv does not end the connection", "[M18]") {
  // The loop is busy meanwhile: it sees both at once.
  Options options;
  options.read_deadline = seconds(1);
  Timed timed(options);
  REQUIRE(timed.Turn());
  REQUIRE(timed.talker.SendAll(Frame("block")));
  REQUIRE(timed.entered.Wait());
  timed.paused->PauseRecv();
  REQUIRE(timed.victim.SendAll(Frame("waits")));
  timed.clock.Advance(milliseconds(1100));
  timed.leave.Set();
  REQUIRE(timed.talker.ReadFrame() == "block");
  timed.Pass(seconds(2));
  REQUIRE(timed.events->totals().closed == 0);
  // What has arrived meanwhile counts.
  timed.paused->ResumeRecv();
  REQUIRE(timed.victim.ReadFrame() == "waits");
  REQUIRE(timed.Turn());
  REQUIRE(timed.events->totals().closed == 0);
  REQUIRE(timed.server->Finish() == "");
}

TEST_CASE("while paused the write deadline and a stop's linger run on", "[M18][M19][R8]") {
  Options options;
  options.write_deadline = seconds(1);
  options.linger_timeout = seconds(1);
  const bool stop = GENERATE(false, true);
  Timed timed(options);
  timed.paused->PauseRecv();
  if (stop) {
    static_cast<void>(timed.paused->Stop(StopMode::kGracefullyButNotWait));
  } else {
    REQUIRE_FALSE(timed.paused->Send(std::string(12 << 20, 'x')));
  }
  REQUIRE(timed.Turn());
  timed.Pass(milliseconds(800));
  REQUIRE(timed.events->totals().closed == 0);
  timed.Pass(milliseconds(400));
  timed.RequireEnd(stop ? CloseReason::kLingerTimeout : CloseReason::kWriteDeadline);
  REQUIRE(timed.server->Finish() == "");
}

TEST_CASE("output that waits brings back a paused connection whose peer has hung up", "[M18][B6]") {
  // A kernel that says EAGAIN, and EPIPE when it is asked again.
  FaultPlan plan;
  auto events = std::make_shared<EventRecorder>();
  std::atomic<int> descriptor{-1};
  events->on_accept = [&](const ConnPtr& conn) {
    conn->PauseRecv();
    descriptor = conn->Descriptor();
  };
  TestServer server(events, {}, "unix:@xtcp_limits_" + std::to_string(::getpid()));
  RawPeer peer(server.address());
  REQUIRE(WaitUntil([&] { return descriptor >= 0; }));
  peer.Close();
  plan.Add({.site = Site::kSendMsg, .error = EAGAIN, .fd = descriptor});
  REQUIRE_FALSE(events->conn()->Send("into the void"));
  REQUIRE(events->WaitForClosed(1));
  CHECK(events->conn()->Stats().reason == CloseReason::kPeerReset);
  CHECK(events->conn()->Stats().unsent_bytes() == 13);
  CHECK(plan.injected() == 1);
  REQUIRE(server.Finish() == "");
}

}  // namespace
}  // namespace xtcp::test
