// Callbacks that take longer than a deadline: what they take is not the peer's silence. A callback
// that moves the clock is a slow one.

#include <unistd.h>

#include <catch2/catch.hpp>
#include <chrono>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "support/deadline.h"
#include "support/event_recorder.h"
#include "support/fault_control.h"
#include "support/one_connection.h"
#include "support/raw_peer.h"
#include "support/test_protocol.h"
#include "support/test_server.h"
#include "support/violations.h"

namespace xtcp::test {
namespace {

using namespace std::chrono_literals;
using std::chrono::milliseconds;

// How late a deadline may be (R8).
constexpr milliseconds kSlack = 100ms;

constexpr milliseconds kDeadlineOption = 100ms;
constexpr milliseconds kSlow = 200ms;

Kind EachKind() { return GENERATE(Kind::kAccepted, Kind::kDialled); }

// A clock that callbacks move, and what else a case needs before its connections.
struct Scene {
  // The connection must end when this much time has passed, and not before.
  void MustEndIn(milliseconds time, CloseReason reason, std::size_t connection = 0) {
    REQUIRE(clock.Settle());
    REQUIRE_FALSE(events->connection(connection).closed);
    clock.Advance(time - 1ms);
    REQUIRE(clock.Settle());
    REQUIRE_FALSE(events->connection(connection).closed);
    clock.Advance(1ms + kSlack);
    REQUIRE(WaitUntil([&] { return events->connection(connection).closed; }));
    REQUIRE(events->connection(connection).at_closed.reason == reason);
  }

  FaultPlan no_faults;
  VirtualClock clock;
  std::shared_ptr<EventRecorder> events = std::make_shared<EventRecorder>();
};

TEST_CASE("the time of a connection's own callbacks is not its peer's silence", "[R8][seen-2]") {
  Scene scene;
  Options options;
  options.read_deadline = kDeadlineOption;
  const auto slow = [&](const ConnPtr&) { scene.clock.Advance(kSlow); };
  SECTION("in the first event") {
    scene.events->on_accept = scene.events->on_connected = slow;
    OneConnection one(EachKind(), options, "127.0.0.1:0", scene.events);
    scene.MustEndIn(kDeadlineOption, CloseReason::kReadDeadline);
    REQUIRE(one.Finish() == "");
  }
  SECTION("in kRecv, again and again") {
    scene.events->on_recv = [&](const ConnPtr& conn, std::string_view) { slow(conn); };
    OneConnection one(EachKind(), options, "127.0.0.1:0", scene.events);
    for (std::size_t i = 1; i <= 5; ++i) {
      REQUIRE(one.peer.SendAll(Frame("a") + Frame("b")));
      REQUIRE(scene.events->WaitForPackets(2 * i));
      REQUIRE(scene.clock.Settle());
      REQUIRE_FALSE(one.closed());
    }
    scene.MustEndIn(kDeadlineOption, CloseReason::kReadDeadline);
    REQUIRE(one.Finish() == "");
  }
  SECTION("in OnUnpackError") {
    scene.events->on_unpack_error = [&](const ConnPtr& conn, std::span<const std::byte>,
                                        std::error_code) { slow(conn); };
    OneConnection one(EachKind(), options, "127.0.0.1:0", scene.events);
    REQUIRE(one.peer.SendAll(MarkedFrame(Marker::kBad, "bad")));
    REQUIRE(scene.events->WaitForUnpackErrors(1));
    scene.MustEndIn(kDeadlineOption, CloseReason::kReadDeadline);
    REQUIRE(one.Finish() == "");
  }
  SECTION("in OnSendReady") {
    options.send_buffer_limit = 1000;
    scene.events->on_recv = [](const ConnPtr& conn, std::string_view) {
      static_cast<void>(conn->Send(std::string(1000, 'x')));
      static_cast<void>(conn->Send("refused"));
    };
    scene.events->on_send_ready = slow;
    OneConnection one(EachKind(), options, "127.0.0.1:0", scene.events);
    REQUIRE(one.peer.SendAll(Frame("x")));
    REQUIRE(scene.events->WaitForSendReady(1));
    scene.MustEndIn(kDeadlineOption, CloseReason::kReadDeadline);
    REQUIRE(one.Finish() == "");
  }
}

TEST_CASE("what is read after a slow callback of the same turn has come after it", "[R8][seen-2]") {
  Scene scene;
  Options options;
  options.read_deadline = kDeadlineOption;
  // What a block of the inbound buffer holds: the read that completes this packet fills the block,
  // so that another one follows in the same turn.
  const std::string frame = Frame(std::string((256 << 10) - 24 - kHeaderSize, 'x'));
  const std::size_t half = 140 << 10;
  Signal inside, go;
  scene.events->keep_payloads = false;
  scene.events->on_recv = [&](const ConnPtr&, std::string_view) {
    inside.Set();
    if (!go.Wait()) AddViolation("nobody lets the callback go on");
    scene.clock.Advance(kSlow);
  };
  OneConnection one(EachKind(), options, "127.0.0.1:0", scene.events);
  REQUIRE(one.peer.SendAll(frame.substr(0, half)));
  REQUIRE(WaitUntil([&] { return one.conn->Stats().received_bytes == half; }));
  REQUIRE(one.peer.SendAll(frame.substr(half)));
  REQUIRE(inside.Wait());
  REQUIRE(one.peer.SendAll(Header(100)));
  const std::uint64_t reads = CallsOf(Site::kRecv);
  go.Set();
  REQUIRE(WaitUntil([&] { return one.conn->Stats().received_bytes == frame.size() + 4; }));
  REQUIRE(CallsOf(Site::kRecv) == reads + 1);
  scene.MustEndIn(kDeadlineOption, CloseReason::kReadDeadline);
  REQUIRE(one.Finish() == "");
}

TEST_CASE("an answer that a deadline's last look brought counts from when it was written",
          "[R8][seen-2]") {
  Scene scene;
  Options options;
  options.read_deadline = kDeadlineOption;
  Signal inside, go;
  scene.events->on_recv = [&](const ConnPtr& conn, std::string_view payload) {
    if (payload == "hold") {
      inside.Set();
      if (!go.Wait()) AddViolation("nobody lets the callback go on");
      scene.clock.Advance(kDeadlineOption);  // for the other connection, too
    } else {
      scene.clock.Advance(kSlow);
      static_cast<void>(conn->Send("answer"));
    }
  };
  TestServer server(scene.events, options);
  RawPeer first(server.port()), second(server.port());
  REQUIRE(scene.events->WaitForAccepted(2));
  REQUIRE(first.SendAll(Frame("hold")));
  REQUIRE(inside.Wait());
  REQUIRE(second.SendAll(Frame("question")));
  go.Set();
  REQUIRE(scene.events->WaitForPackets(2));
  scene.MustEndIn(kDeadlineOption, CloseReason::kReadDeadline, 1);
  std::string answer;
  REQUIRE(second.ReadAll(&answer) == End::kEof);
  REQUIRE(answer == "answer");
  REQUIRE(server.Finish() == "");
}

TEST_CASE("a queue that begins after a slow callback has its whole write deadline",
          "[R8][seen-2]") {
  Scene scene;
  Options options;
  options.write_deadline = kDeadlineOption;
  scene.events->on_recv = [&](const ConnPtr& conn, std::string_view) {
    scene.clock.Advance(kSlow);
    static_cast<void>(conn->Send(std::string(4 << 20, 'x')));  // more than the kernel takes
  };
  OneConnection one(EachKind(), options, "unix:@xtcp-slow-" + std::to_string(::getpid()),
                    scene.events);
  REQUIRE(one.peer.SendAll(Frame("x")));
  REQUIRE(WaitUntil([&] { return one.conn->Stats().written_bytes > 0; }));
  scene.MustEndIn(kDeadlineOption, CloseReason::kWriteDeadline);
  REQUIRE(one.Finish() == "");
}

TEST_CASE("a packet that begins after a slow callback has its whole packet deadline",
          "[R8][seen-2]") {
  Scene scene;
  Options options;
  options.packet_deadline = kDeadlineOption;
  SECTION("the rest of one read") {
    scene.events->on_recv = [&](const ConnPtr&, std::string_view) { scene.clock.Advance(kSlow); };
    OneConnection one(EachKind(), options, "127.0.0.1:0", scene.events);
    REQUIRE(one.peer.SendAll(Frame("whole") + Header(100)));
    REQUIRE(scene.events->WaitForPackets(1));
    scene.MustEndIn(kDeadlineOption, CloseReason::kPacketDeadline);
    REQUIRE(one.Finish() == "");
  }
  SECTION("the first one, of a client that must prove who it is") {
    options.first_packet_size = 100;
    scene.events->on_accept =
        scene.events->on_connected = [&](const ConnPtr&) { scene.clock.Advance(kSlow); };
    OneConnection one(EachKind(), options, "127.0.0.1:0", scene.events);
    scene.MustEndIn(kDeadlineOption, CloseReason::kPacketDeadline);
    REQUIRE(one.Finish() == "");
  }
}

TEST_CASE("a client that comes after another one's slow kClosed is new", "[R8][seen-2]") {
  Scene scene;
  Options options;
  options.read_deadline = kDeadlineOption;
  Signal inside, go;
  std::vector<milliseconds> ages;
  scene.events->on_accept = [&](const ConnPtr& conn) { ages.push_back(conn->Stats().age); };
  scene.events->on_recv = [&](const ConnPtr&, std::string_view) {
    inside.Set();
    if (!go.Wait()) AddViolation("nobody lets the callback go on");
  };
  bool first_end = true;
  scene.events->on_closed = [&](const ConnPtr&) {
    if (std::exchange(first_end, false)) scene.clock.Advance(kSlow);
  };
  TestServer server(scene.events, options);
  RawPeer leaves(server.port()), holds(server.port());
  REQUIRE(scene.events->WaitForAccepted(2));
  // In one batch of events: one client leaves, then one comes.
  REQUIRE(holds.SendAll(Frame("hold")));
  REQUIRE(inside.Wait());
  leaves.HalfClose();
  RawPeer comes(server.port());
  go.Set();
  REQUIRE(scene.events->WaitForAccepted(3));
  scene.MustEndIn(kDeadlineOption, CloseReason::kReadDeadline, 2);
  REQUIRE(server.Finish() == "");
  REQUIRE(ages == std::vector<milliseconds>(3, 0ms));
}

}  // namespace
}  // namespace xtcp::test
