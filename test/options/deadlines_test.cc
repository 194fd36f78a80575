// Each deadline, to the millisecond of a clock that the test moves, on accepted and dialled
// connections.

#include <unistd.h>

#include <catch2/catch.hpp>
#include <chrono>
#include <cstddef>
#include <functional>
#include <memory>
#include <span>
#include <string>

#include "support/event_recorder.h"
#include "support/fault_control.h"
#include "support/one_connection.h"
#include "support/raw_peer.h"
#include "support/test_protocol.h"
#include "support/violations.h"

namespace xtcp::test {
namespace {

using namespace std::chrono_literals;
using std::chrono::milliseconds;

// How late a deadline may be (R8).
constexpr milliseconds kSlack = 100ms;

Kind EachKind() { return GENERATE(Kind::kAccepted, Kind::kDialled); }

// A name on which the kernel takes a known number of bytes, whatever the time.
std::string LocalName() { return "unix:@xtcp-deadlines-" + std::to_string(::getpid()); }

// A connection whose clock is the test's.
struct Timed {
  explicit Timed(const Options& options, std::string_view address = "127.0.0.1:0",
                 const std::shared_ptr<EventRecorder>& events = nullptr)
      : one(EachKind(), options, address, events) {
    REQUIRE(clock.Settle());
  }

  // Lets the time pass and the loop do what it then does.
  void Pass(milliseconds time) {
    clock.Advance(time);
    REQUIRE(clock.Settle());
  }

  // The connection must end when this much time has passed, and not before.
  void MustEndIn(milliseconds time, CloseReason reason) {
    Pass(time - 1ms);
    REQUIRE_FALSE(one.closed());
    Pass(1ms + kSlack);
    REQUIRE(one.events->WaitForClosed(1));
    REQUIRE(one.reason() == reason);
    REQUIRE(one.Finish() == "");
  }

  void FromPeer(std::string_view bytes) {
    REQUIRE(one.peer.SendAll(bytes));
    REQUIRE(clock.Settle());
  }

  void Send(std::string_view bytes) {
    REQUIRE_FALSE(one.conn->Send(bytes));
    REQUIRE(clock.Settle());
  }

  // More than the kernel takes.
  void Stall() {
    Send(std::string(4 << 20, 'x'));
    REQUIRE(one.conn->Stats().unsent_bytes() > 0);
  }

  // The peer takes bytes, and so the kernel takes new ones from us.
  void TakeSome() {
    const std::uint64_t before = one.conn->Stats().written_bytes;
    std::string bytes;
    REQUIRE(one.peer.ReadExactly(200'000, &bytes) == End::kOpen);
    REQUIRE(clock.Settle());
    REQUIRE(one.conn->Stats().written_bytes > before);
    REQUIRE(one.conn->Stats().unsent_bytes() > 0);
  }

  FaultPlan no_faults;
  VirtualClock clock;
  OneConnection one;
};

TEST_CASE("the read deadline ends a connection on which nothing moves", "[R8][E5]") {
  Options options;
  options.read_deadline = 10s;
  SECTION("from its beginning") { Timed(options).MustEndIn(10s, CloseReason::kReadDeadline); }
  SECTION("from the last byte received, which may be of half a packet") {
    Timed t(options);
    t.Pass(6s);
    t.FromPeer(Frame("half").substr(0, 5));
    t.MustEndIn(10s, CloseReason::kReadDeadline);
  }
  SECTION("from the last byte that the kernel took") {
    Timed t(options);
    t.Pass(6s);
    t.Send("from another thread");
    t.MustEndIn(10s, CloseReason::kReadDeadline);
  }
  SECTION("from the last byte that the kernel took of a long queue") {
    Timed t(options, LocalName());
    t.Stall();
    t.Pass(6s);
    t.TakeSome();
    t.MustEndIn(10s, CloseReason::kReadDeadline);
  }
  SECTION("what is refused, or waits in our queue, is not taken") {
    Timed t(options, LocalName());
    t.Stall();
    t.Pass(6s);
    t.Send("waits");
    REQUIRE(t.one.conn->Send(std::string(20 << 20, 'x')) == Errc::kTooLarge);
    t.MustEndIn(4s, CloseReason::kReadDeadline);
  }
  SECTION("after much traffic") {
    Timed t(options);
    for (int i = 0; i < 20; ++i) {
      t.Pass(9s);
      t.FromPeer(Frame("x"));
    }
    t.MustEndIn(10s, CloseReason::kReadDeadline);
  }
}

// Needs more and more.
struct NeedyProtocol : TestProtocol {
  UnpackResult Unpack(std::span<const std::byte> buf) const override {
    UnpackResult result = TestProtocol::Unpack(buf);
    if (result.packet == nullptr) result.need = buf.size() + 100;
    return result;
  }
};

TEST_CASE("the packet deadline runs from a packet's first byte, whatever else comes",
          "[R8][E5][M58][seen-24]") {
  Options options;
  options.packet_deadline = 10s;
  const std::string half = Frame("half").substr(0, 5);
  SECTION("further bytes of the packet do not extend it") {
    Timed t(options);
    t.Pass(1h);  // without a begun packet it does not run
    t.FromPeer(half.substr(0, 1));
    for (std::size_t i = 1; i < half.size(); ++i) {
      t.Pass(1s);
      t.FromPeer(half.substr(i, 1));
    }
    t.MustEndIn(6s, CloseReason::kPacketDeadline);
  }
  SECTION("nor do bytes that we send") {
    Timed t(options);
    t.FromPeer(half);
    t.Pass(6s);
    t.Send("taken");
    t.MustEndIn(4s, CloseReason::kPacketDeadline);
  }
  SECTION("each packet has its own") {
    Timed t(options);
    for (int i = 0; i < 5; ++i) {
      t.FromPeer(half);
      t.Pass(9s);
      t.FromPeer(Frame("half").substr(5));
      t.Pass(1h);
    }
    REQUIRE(t.one.events->totals().packets == 5);
    // The rest of one and the begin of the next in one read.
    t.FromPeer(half);
    t.Pass(9s);
    t.FromPeer(Frame("half").substr(5) + half);
    t.MustEndIn(10s, CloseReason::kPacketDeadline);
  }
  SECTION("nor does what Unpack says that it needs") {
    options.protocol = std::make_shared<NeedyProtocol>();
    Timed t(options);
    t.FromPeer(half);
    t.Pass(6s);
    t.FromPeer("l");  // it is not asked
    t.MustEndIn(4s, CloseReason::kPacketDeadline);
  }
  SECTION("also for a packet of many bytes") {
    Timed t(options);
    t.FromPeer(Frame(std::string(1 << 20, 'x')).substr(0, 300'000));
    t.Pass(6s);
    t.FromPeer(std::string(300'000, 'x'));
    t.MustEndIn(4s, CloseReason::kPacketDeadline);
  }
}

TEST_CASE("with first_packet_size the first packet's deadline runs from the start", "[R8][X2]") {
  Options options;
  options.packet_deadline = 10s;
  options.first_packet_size = 100;
  SECTION("without a byte") { Timed(options).MustEndIn(10s, CloseReason::kPacketDeadline); }
  SECTION("what is skipped or bad is no packet") {
    Timed t(options);
    t.Pass(3s);
    t.FromPeer(MarkedFrame(Marker::kSkip, "padding"));
    t.Pass(3s);
    t.FromPeer(MarkedFrame(Marker::kBad, "bad"));
    t.MustEndIn(4s, CloseReason::kPacketDeadline);
  }
  SECTION("after the first packet it is as always") {
    Timed t(options);
    t.Pass(9s);
    t.FromPeer(Frame("login"));
    t.Pass(1h);
    t.FromPeer(Header(10));
    t.MustEndIn(10s, CloseReason::kPacketDeadline);
  }
}

TEST_CASE("the write deadline ends a connection whose peer takes nothing", "[R8][E5]") {
  Options options;
  options.write_deadline = 10s;
  SECTION("from when the queue began") {
    Timed t(options, LocalName());
    t.Pass(1h);  // with nothing queued it does not run
    t.Stall();
    t.MustEndIn(10s, CloseReason::kWriteDeadline);
  }
  SECTION("bytes that are received, or queued behind, do not extend it") {
    Timed t(options, LocalName());
    t.Stall();
    t.Pass(6s);
    t.FromPeer(Frame("x"));
    t.Send("behind");
    t.MustEndIn(4s, CloseReason::kWriteDeadline);
  }
  SECTION("bytes that the kernel takes do") {
    Timed t(options, LocalName());
    t.Stall();
    for (int i = 0; i < 3; ++i) {
      t.Pass(9s);
      t.TakeSome();
    }
    t.MustEndIn(10s, CloseReason::kWriteDeadline);
  }
  SECTION("a queue that is empty again has no deadline") {
    Timed t(options, LocalName());
    t.Stall();
    t.Pass(9s);
    std::string bytes;
    REQUIRE(t.one.peer.ReadExactly(4 << 20, &bytes) == End::kOpen);
    t.Pass(1h);
    REQUIRE_FALSE(t.one.closed());
    t.Stall();
    t.MustEndIn(10s, CloseReason::kWriteDeadline);
  }
  SECTION("it runs while reading is paused") {
    Timed t(options, LocalName());
    t.one.conn->PauseRecv();
    t.Stall();
    t.MustEndIn(10s, CloseReason::kWriteDeadline);
  }
}

TEST_CASE("read and packet deadlines stand still while reading is paused", "[M18][R8]") {
  Options options;
  options.read_deadline = GENERATE(0s, 10s);
  const bool read = options.read_deadline > 0ms;
  if (!read) options.packet_deadline = 10s;
  const CloseReason reason = read ? CloseReason::kReadDeadline : CloseReason::kPacketDeadline;
  CAPTURE(read);
  Timed t(options);
  t.FromPeer(Frame("half").substr(0, 5));
  for (int i = 0; i < 3; ++i) {
    t.Pass(2s);
    t.one.conn->PauseRecv();
    REQUIRE(t.clock.Settle());
    t.Pass(1h);
    REQUIRE_FALSE(t.one.closed());
    t.one.conn->ResumeRecv();
    REQUIRE(t.clock.Settle());
  }
  t.MustEndIn(4s, reason);
}

TEST_CASE("bytes taken during a pause count, too", "[M18][R8]") {
  Options options;
  options.read_deadline = 10s;
  Timed t(options);
  t.Pass(6s);
  t.one.conn->PauseRecv();
  REQUIRE(t.clock.Settle());
  t.Pass(1h);
  t.Send("taken");
  t.Pass(1h);
  t.one.conn->ResumeRecv();
  REQUIRE(t.clock.Settle());
  t.MustEndIn(10s, CloseReason::kReadDeadline);
}

TEST_CASE("a pause counts from when it was asked for, however busy the loop is", "[M18][R8]") {
  Options options;
  options.read_deadline = 10s;
  Timed t(options);
  // The deadline falls due before the loop has come to the pause.
  t.no_faults.Add({.site = Site::kEpollWait, .act = [&](int) {
                     t.one.conn->PauseRecv();
                     t.clock.Advance(1h);
                   }});
  t.FromPeer(Frame("x"));
  REQUIRE(t.no_faults.injected() == 1);
  REQUIRE_FALSE(t.one.closed());
  REQUIRE(t.one.peer.SendAll(Frame("arrived meanwhile")));
  t.one.conn->ResumeRecv();
  REQUIRE(t.one.events->WaitForPackets(2));
  REQUIRE(t.clock.Settle());
  t.MustEndIn(10s, CloseReason::kReadDeadline);
}

TEST_CASE("after a graceful stop only linger_timeout counts", "[M19][R8][E5]") {
  Options options;
  options.linger_timeout = 20s;
  options.read_deadline = options.write_deadline = options.packet_deadline = 3s;
  SECTION("whatever comes and goes") {
    Timed t(options, LocalName());
    t.FromPeer(Header(10));
    t.Stall();
    static_cast<void>(t.one.conn->Stop(StopMode::kGracefullyButNotWait));
    REQUIRE(t.clock.Settle());
    t.Pass(6s);
    t.FromPeer("discarded");
    t.TakeSome();
    t.MustEndIn(14s, CloseReason::kLingerTimeout);
  }
  SECTION("also when all is written, and the peer does not end its stream") {
    Timed t(options);
    static_cast<void>(t.one.conn->Stop(StopMode::kGracefullyButNotWait));
    REQUIRE(t.clock.Settle());
    t.MustEndIn(20s, CloseReason::kLingerTimeout);
  }
}

TEST_CASE("after the peer's FIN each linger_timeout must see a byte taken", "[M16][R8][B2][E5]") {
  Options options;
  options.linger_timeout = 12s;
  Timed t(options, LocalName());
  t.Stall();
  t.Pass(1h);
  t.one.peer.HalfClose();
  REQUIRE(t.clock.Settle());
  REQUIRE(t.one.conn->Send("late") == Errc::kStopping);
  for (int i = 0; i < 3; ++i) {
    t.Pass(11s);
    t.TakeSome();
  }
  SECTION("or the connection is cut") { t.MustEndIn(12s, CloseReason::kLingerTimeout); }
  SECTION("until all is delivered, however long that takes") {
    REQUIRE(t.one.peer.ReadAll() == End::kEof);
    REQUIRE(t.one.peer.received() == t.one.conn->Stats().accepted_bytes);
    REQUIRE(t.one.events->WaitForClosed(1));
    REQUIRE(t.one.reason() == CloseReason::kPeerClosed);
    REQUIRE(t.one.Finish() == "");
  }
}

TEST_CASE("input that has arrived when a deadline falls due counts", "[R8]") {
  Options options;
  const bool read = GENERATE(true, false);
  (read ? options.read_deadline : options.packet_deadline) = 10s;
  // Between the end of the loop's wait and its look at the timers; or already before the wait ends.
  const bool behind_the_wait = GENERATE(true, false);
  CAPTURE(read, behind_the_wait);
  Timed t(options);
  const std::string frame = Frame("in time");
  const auto arrive = [&](int) {
    if (!t.one.peer.SendAll(frame.substr(5))) AddViolation("the peer cannot send");
  };
  if (behind_the_wait) {
    t.FromPeer(frame.substr(0, 5));
    t.no_faults.Add({.site = Site::kNow, .act = arrive});
    t.Pass(10s);
  } else {
    t.no_faults.Add({.site = Site::kEpollWait, .act = [&](int fd) {
                       t.clock.Advance(10s);
                       arrive(fd);
                     }});
    t.FromPeer(frame.substr(0, 5));
  }
  REQUIRE(t.no_faults.injected() == 1);
  REQUIRE(t.one.events->WaitForPackets(1));
  REQUIRE_FALSE(t.one.closed());
  if (read) {
    t.MustEndIn(10s, CloseReason::kReadDeadline);
  } else {
    t.Pass(1h);
    REQUIRE_FALSE(t.one.closed());
    REQUIRE(t.one.Finish() == "");
  }
}

TEST_CASE("of several deadlines the first one ends the connection", "[R8][E5]") {
  Options options;
  options.read_deadline = 30s;
  options.packet_deadline = 20s;
  options.write_deadline = 10s;
  SECTION("packet") {
    Timed t(options, LocalName());
    t.FromPeer(Header(10));
    t.MustEndIn(20s, CloseReason::kPacketDeadline);
  }
  SECTION("write") {
    Timed t(options, LocalName());
    t.FromPeer(Header(10));
    t.Stall();
    t.MustEndIn(10s, CloseReason::kWriteDeadline);
  }
  SECTION("read") { Timed(options).MustEndIn(30s, CloseReason::kReadDeadline); }
}

}  // namespace
}  // namespace xtcp::test
