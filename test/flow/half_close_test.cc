// The two ends of a stream end separately.

#include <sys/socket.h>
#include <xtcp/xtcp.h>

#include <catch2/catch.hpp>
#include <chrono>
#include <memory>
#include <string>

#include "support/fault_control.h"
#include "support/one_of.h"

namespace xtcp::test {
namespace {

using namespace std::chrono_literals;

Kind AnyKind() { return GENERATE(Kind::kAccepted, Kind::kDialled, Kind::kOwnServer); }

Options HalfClosing() {
  Options options;
  options.half_close = true;
  options.send_buffer_limit = 64 << 20;
  return options;
}

TEST_CASE("with half_close the peer's FIN is an event, and Send works on", "[M62]") {
  auto events = std::make_shared<EventRecorder>();
  events->on_recv_end = [](const ConnPtr&) {};
  OneOf c(AnyKind(), HalfClosing(), events);
  REQUIRE(c.peer.SendAll(Frame("question") + "half a packet"));
  c.peer.HalfClose();
  REQUIRE(events->WaitForRecvEnds(1));
  REQUIRE(events->totals().packets == 1);  // it came before
  // A late answer, from another thread, long after; the loop sleeps meanwhile.
  const std::uint64_t waits = CallsOf(Site::kEpollWait);
  REQUIRE_FALSE(c.conn->Send(Frame("late answer")));
  REQUIRE(c.peer.ReadFrame() == "late answer");
  REQUIRE_FALSE(c.conn->IsStopped());
  REQUIRE(CallsOf(Site::kEpollWait) - waits < 20);
  c.conn->EndSend();
  REQUIRE(c.peer.ReadAll() == End::kEof);
  REQUIRE(events->WaitForClosed(1));
  REQUIRE(c.conn->Stats().reason == CloseReason::kPeerClosed);
  REQUIRE(events->totals().recv_ends == 1);
  c.Finish();
}

TEST_CASE("unless it is overridden, OnRecvEnd stops the connection gracefully", "[M62]") {
  OneOf c(AnyKind(), HalfClosing());
  REQUIRE_FALSE(c.conn->Send(std::string(8 << 20, 'x')));
  c.peer.HalfClose();
  REQUIRE(c.peer.ReadAll() == End::kEof);
  REQUIRE(c.peer.received() == 8 << 20);
  REQUIRE(c.events->WaitForClosed(1));
  REQUIRE(c.conn->Stats().reason == CloseReason::kLocalStop);
  c.Finish();
}

TEST_CASE("a connection without half_close ends as before", "[M62][M16]") {
  OneOf c(AnyKind());
  c.peer.HalfClose();
  REQUIRE(c.peer.ReadAll() == End::kEof);
  REQUIRE(c.events->WaitForClosed(1));
  REQUIRE(c.conn->Stats().reason == CloseReason::kPeerClosed);
  REQUIRE(c.events->totals().recv_ends == 0);
  c.Finish();
}

TEST_CASE("a pause holds the end of the stream back; after a stop it does not come", "[M62]") {
  auto events = std::make_shared<EventRecorder>();
  events->on_recv_end = [](const ConnPtr& conn) { conn->EndSend(); };
  OneOf c(AnyKind(), HalfClosing(), events);
  const bool stops = GENERATE(false, true);
  c.conn->PauseRecv();
  REQUIRE(c.peer.SendAll(Frame("first")));
  c.peer.HalfClose();
  // A task comes after whatever the loop had to do.
  Signal later;
  REQUIRE_FALSE(c.conn->Post([&] { later.Set(); }));
  REQUIRE(later.Wait());
  REQUIRE(events->totals().recv_ends == 0);
  if (stops) {
    static_cast<void>(c.conn->Stop(StopMode::kGracefullyButNotWait));
    REQUIRE(events->WaitForClosed(1));
    REQUIRE(events->totals().recv_ends == 0);
    REQUIRE(c.conn->Stats().reason == CloseReason::kLocalStop);
  } else {
    c.conn->ResumeRecv();
    REQUIRE(events->WaitForRecvEnds(1));
    REQUIRE(events->totals().packets == 1);
    REQUIRE(events->WaitForClosed(1));
    REQUIRE(c.conn->Stats().reason == CloseReason::kPeerClosed);
  }
  c.Finish();
}

TEST_CASE("EndSend writes what was accepted, then a FIN; kRecv goes on", "[M62]") {
  OneOf c(AnyKind());  // it needs no half_close
  REQUIRE_FALSE(c.conn->Send(Frame("the last word")));
  c.conn->EndSend();
  c.conn->EndSend();
  REQUIRE(c.conn->Send("x") == Errc::kStopping);
  REQUIRE(c.conn->IsStopped());
  REQUIRE(c.peer.ReadFrame() == "the last word");
  REQUIRE(c.peer.ReadAll() == End::kEof);
  for (std::size_t i = 1; i <= 3; ++i) {
    REQUIRE(c.peer.SendAll(Frame("still heard")));
    REQUIRE(c.events->WaitForPackets(i));
  }
  REQUIRE(c.events->totals().closed == 0);
  c.peer.Close();
  REQUIRE(c.events->WaitForClosed(1));
  REQUIRE(c.conn->Stats().reason == CloseReason::kPeerClosed);
  c.Finish();
}

TEST_CASE("EndSend is for any callback, before the dial too, and every stop may follow", "[M62]") {
  SECTION("in each callback") {
    const int where = GENERATE(0, 1, 2);
    auto events = std::make_shared<EventRecorder>();
    const auto answer = [](const ConnPtr& conn) {
      static_cast<void>(conn->Send(Frame("bye")));
      conn->EndSend();
    };
    if (where == 0) events->on_accept = answer;
    if (where == 1) events->on_recv = [&](const ConnPtr& conn, std::string_view) { answer(conn); };
    if (where == 2) events->on_recv_end = answer;
    OneOf c(Kind::kAccepted, HalfClosing(), events);
    REQUIRE(c.peer.SendAll(Frame("x")));
    REQUIRE(events->WaitForPackets(1));
    if (where == 2) c.peer.HalfClose();
    REQUIRE(c.peer.ReadFrame() == "bye");
    REQUIRE(c.peer.ReadAll() == End::kEof);
    c.peer.Close();
    REQUIRE(events->WaitForClosed(1));
    c.Finish();
  }
  SECTION("before the dial") {
    auto events = std::make_shared<EventRecorder>();
    TestGroup group;
    RawListener listener;
    const ConnPtr conn = NewConn(WithDefaults({}, events), group.loop());
    REQUIRE_FALSE(conn->Send(Frame("all there is")));
    conn->EndSend();
    REQUIRE(conn->Send("x") == Errc::kStopping);
    REQUIRE_FALSE(conn->Dial(listener.address()));
    RawPeer peer = listener.Accept();
    REQUIRE(peer.ReadFrame() == "all there is");
    REQUIRE(peer.ReadAll() == End::kEof);
    peer.Close();
    REQUIRE(events->WaitForClosed(1));
    REQUIRE(conn->Stats().reason == CloseReason::kPeerClosed);
    REQUIRE(group.Finish() == "");
    REQUIRE(events->Verify() == "");
  }
  SECTION("a stop after it") {
    const StopMode mode = GENERATE(StopMode::kImmediately, StopMode::kGracefullyButNotWait);
    OneOf c(AnyKind());
    c.conn->EndSend();
    REQUIRE(c.peer.ReadAll() == End::kEof);
    REQUIRE(c.conn->Stop(mode).connections == 1);
    c.peer.Close();
    REQUIRE(c.events->WaitForClosed(1));
    REQUIRE(c.conn->Stats().reason == CloseReason::kLocalStop);
    c.Finish();
  }
}

TEST_CASE("a half-closed connection sees a reset, and its write deadline", "[M62][M33]") {
  auto events = std::make_shared<EventRecorder>();
  events->on_recv_end = [](const ConnPtr&) {};
  const bool resets = GENERATE(false, true);
  Options options = HalfClosing();
  if (!resets) options.write_deadline = 50ms;
  OneOf c(AnyKind(), options, events);
  c.peer.HalfClose();
  REQUIRE(events->WaitForRecvEnds(1));
  REQUIRE_FALSE(c.conn->Send(std::string(40 << 20, 'x')));
  if (resets) c.peer.Reset();
  REQUIRE(events->WaitForClosed(1));
  REQUIRE(c.conn->Stats().reason ==
          (resets ? CloseReason::kPeerReset : CloseReason::kWriteDeadline));
  c.Finish();
}

TEST_CASE("a half-closed connection of a Unix socket whose peer is gone does not spin",
          "[M62][E4]") {
  const FaultPlan no_faults;
  auto events = std::make_shared<EventRecorder>();
  events->on_recv_end = [](const ConnPtr&) {};
  Options options = HalfClosing();
  TestServer server(events, options, "unix:@xtcp-half-close-test");
  RawPeer peer("unix:@xtcp-half-close-test");
  REQUIRE(events->WaitForAccepted(1));
  peer.Close();
  REQUIRE(events->WaitForRecvEnds(1));
  const ConnPtr conn = events->conn();
  // One iteration for each task, and no more.
  const std::uint64_t waits = CallsOf(Site::kEpollWait);
  for (int i = 0; i < 20; ++i) {
    Signal ran;
    REQUIRE_FALSE(conn->Post([&] { ran.Set(); }));
    REQUIRE(ran.Wait());
  }
  REQUIRE(CallsOf(Site::kEpollWait) - waits < 100);
  REQUIRE_FALSE(conn->Send("to nobody"));
  REQUIRE(events->WaitForClosed(1));
  REQUIRE(conn->Stats().reason == CloseReason::kPeerReset);
  REQUIRE(server.Finish() == "");
}

}  // namespace
}  // namespace xtcp::test
