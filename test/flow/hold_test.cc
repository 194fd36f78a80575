// Back-pressure by itself: pause_recv_above.

#include <xtcp/xtcp.h>

#include <catch2/catch.hpp>
#include <chrono>
#include <cstdint>
#include <memory>
#include <stdexcept>
#include <string>
#include <thread>

#include "support/fault_control.h"
#include "support/one_of.h"

namespace xtcp::test {
namespace {

using namespace std::chrono_literals;

Kind AnyKind() { return GENERATE(Kind::kAccepted, Kind::kDialled, Kind::kOwnServer); }

TEST_CASE("pause_recv_above is less than send_buffer_limit", "[M60]") {
  auto events = std::make_shared<EventRecorder>();
  Options options = WithDefaults({}, events);
  REQUIRE(options.pause_recv_above == 0);
  REQUIRE(options.Hardened().pause_recv_above == 256 << 10);
  options.send_buffer_limit = 1000;
  options.pause_recv_above = 999;
  REQUIRE_NOTHROW(NewConn(options));
  options.pause_recv_above = 1000;
  REQUIRE_THROWS_AS(NewConn(options), std::invalid_argument);
}

// A handler of three lines that looks at no error, and a client that sends much and reads late.
TEST_CASE("a handler that looks at no error loses nothing: what is queued keeps requests out",
          "[M60]") {
  auto events = std::make_shared<EventRecorder>();
  events->keep_payloads = false;
  std::size_t refused = 0, most = 0;
  events->on_recv = [&](const ConnPtr& conn, std::string_view payload) {
    refused += conn->Send(Frame(payload)) ? 1 : 0;
    const ConnStats stats = conn->Stats();
    most = std::max<std::size_t>(most, stats.unsent_bytes());
  };
  Options options;
  options.send_buffer_limit = 256 << 10;
  options.pause_recv_above = 128 << 10;
  OneOf c(AnyKind(), options, events);
  constexpr std::size_t kFrames = 20'000;
  const std::string frame = Frame(std::string(1000, 'x'));
  std::thread sends([&] {
    for (std::size_t i = 0; i < kFrames; ++i) {
      if (!c.peer.SendAll(frame, 60s)) return;
    }
  });
  // It stands still before anything is read.
  REQUIRE(WaitUntil([&, last = std::size_t{0}, same = 0]() mutable {
    const std::size_t now = events->totals().packets;
    same = now > 0 && now == last ? same + 1 : 0;
    last = now;
    return same > 200;
  }));
  REQUIRE(events->totals().packets < kFrames);
  std::string bytes;
  REQUIRE(c.peer.ReadExactly(kFrames * frame.size(), &bytes, 60s) == End::kOpen);
  sends.join();
  bool same = true;
  for (std::size_t i = 0; i < kFrames && same; ++i) {
    same = bytes.compare(i * frame.size(), frame.size(), frame) == 0;
  }
  REQUIRE(same);
  REQUIRE(refused == 0);
  REQUIRE(most <= options.pause_recv_above + frame.size());
  REQUIRE(events->totals().packets == kFrames);
  c.Finish();
}

TEST_CASE("it holds from one packet to the next, also within one read", "[M60]") {
  auto events = std::make_shared<EventRecorder>();
  std::vector<std::size_t> queued;  // when a packet came
  events->on_recv = [&](const ConnPtr& conn, std::string_view) {
    queued.push_back(conn->Stats().unsent_bytes());
    static_cast<void>(conn->Send(std::string(1 << 20, 'y')));
  };
  Options options;
  options.send_buffer_limit = 64 << 20;
  options.pause_recv_above = 2 << 20;
  OneOf c(AnyKind(), options, events);
  std::string many;
  for (int i = 0; i < 30; ++i) many += Frame("x");
  REQUIRE(c.peer.SendAll(many));
  REQUIRE(c.peer.ReadExactly(std::size_t{30} << 20, nullptr) == End::kOpen);
  REQUIRE(events->WaitForPackets(30));
  for (const std::size_t bytes : queued) REQUIRE(bytes <= 2 << 20);
  c.Finish();
}

TEST_CASE("the application's pause is separate from the hold", "[M60]") {
  Options options;
  options.send_buffer_limit = 64 << 20;
  options.pause_recv_above = 1 << 20;
  OneOf c(AnyKind(), options);
  REQUIRE_FALSE(c.conn->Send(std::string(32 << 20, 'x')));
  c.conn->PauseRecv();
  REQUIRE(c.peer.SendAll(Frame("held")));
  c.conn->ResumeRecv();  // it is held still
  Signal later;
  REQUIRE_FALSE(c.conn->Post([&] { later.Set(); }));
  REQUIRE(later.Wait());
  REQUIRE(c.events->totals().packets == 0);
  c.conn->PauseRecv();
  REQUIRE(c.peer.ReadExactly(32 << 20, nullptr) == End::kOpen);
  Signal empty;
  REQUIRE(WaitUntil([&] { return c.conn->Stats().unsent_bytes() == 0; }));
  REQUIRE_FALSE(c.conn->Post([&] { empty.Set(); }));
  REQUIRE(empty.Wait());
  REQUIRE(c.events->totals().packets == 0);  // paused still
  c.conn->ResumeRecv();
  REQUIRE(c.events->WaitForPackets(1));
  c.Finish();
}

TEST_CASE("while held the peer's FIN is not seen, and a reset is", "[M60]") {
  const bool resets = GENERATE(false, true);
  Options options;
  options.send_buffer_limit = 64 << 20;
  options.pause_recv_above = 1 << 20;
  OneOf c(AnyKind(), options);
  REQUIRE_FALSE(c.conn->Send(std::string(32 << 20, 'x')));
  REQUIRE(c.peer.SendAll(Frame("before the end")));
  if (resets) {
    c.peer.Reset();
    REQUIRE(c.events->WaitForClosed(1));
    REQUIRE(c.conn->Stats().reason == CloseReason::kPeerReset);
  } else {
    c.peer.HalfClose();
    Signal later;
    REQUIRE_FALSE(c.conn->Post([&] { later.Set(); }));
    REQUIRE(later.Wait());
    REQUIRE_FALSE(c.conn->Send("y"));  // the end would refuse it
    REQUIRE(c.events->totals().packets == 0);
    REQUIRE(c.peer.ReadAll() == End::kEof);
    REQUIRE(c.events->WaitForClosed(1));
    REQUIRE(c.events->totals().packets == 1);
    REQUIRE(c.conn->Stats().reason == CloseReason::kPeerClosed);
  }
  c.Finish();
}

TEST_CASE("while held packet_deadline stands still, and read_deadline runs", "[M60][M33]") {
  const bool of_packets = GENERATE(true, false);
  const Kind kind = GENERATE(Kind::kAccepted, Kind::kDialled);
  const FaultPlan no_faults;
  VirtualClock clock;
  Options options;
  options.send_buffer_limit = 64 << 20;
  options.pause_recv_above = 1 << 20;
  if (of_packets) options.packet_deadline = 100ms;
  if (!of_packets) options.read_deadline = 100ms;
  OneOf c(kind, options);
  REQUIRE(c.peer.SendAll(Header(100) + "half"));
  REQUIRE(WaitUntil([&] { return c.conn->Stats().received_bytes == 8; }));
  REQUIRE(clock.Settle());
  clock.Advance(60ms);
  REQUIRE(clock.Settle());
  REQUIRE_FALSE(c.conn->Send(std::string(32 << 20, 'x')));
  REQUIRE(clock.Settle());
  std::uint64_t taken = c.conn->Stats().written_bytes;
  std::chrono::nanoseconds since = clock.now();
  clock.Advance(90ms);
  REQUIRE(clock.Settle());
  REQUIRE(c.events->totals().closed == 0);  // what the kernel took was traffic
  if (of_packets) {
    clock.Advance(1h);
    REQUIRE(clock.Settle());
    REQUIRE(c.events->totals().closed == 0);
    REQUIRE(c.peer.ReadExactly(32 << 20, nullptr) == End::kOpen);
    REQUIRE(clock.Settle());
    clock.Advance(39ms);
    REQUIRE(clock.Settle());
    REQUIRE(c.events->totals().closed == 0);
    clock.Advance(1ms);
    REQUIRE(clock.Settle());
    REQUIRE(c.events->totals().closed == 1);
    REQUIRE(c.conn->Stats().reason == CloseReason::kPacketDeadline);
  } else {
    // The kernel may find room for more, which is traffic, too.
    while (c.events->totals().closed == 0) {
      if (const std::uint64_t now = c.conn->Stats().written_bytes; now != taken) {
        taken = now;
        since = clock.now();
      }
      REQUIRE(clock.now() < since + 100ms);
      clock.Advance(10ms);
      REQUIRE(clock.Settle());
    }
    REQUIRE(c.events->totals().closed == 1);
    REQUIRE(c.conn->Stats().reason == CloseReason::kReadDeadline);
  }
  c.peer.Close();
  c.Finish();
}

TEST_CASE("a held connection is stopped like any other", "[M60][M19]") {
  const StopMode mode = GENERATE(StopMode::kImmediately, StopMode::kGracefullyButNotWait);
  Options options;
  options.send_buffer_limit = 64 << 20;
  options.pause_recv_above = 1 << 20;
  OneOf c(AnyKind(), options);
  REQUIRE_FALSE(c.conn->Send(std::string(32 << 20, 'x')));
  REQUIRE(c.peer.SendAll(Frame("never delivered")));
  static_cast<void>(c.conn->Stop(mode));
  static_cast<void>(c.peer.ReadAll());
  if (mode != StopMode::kImmediately) REQUIRE(c.peer.received() == 32 << 20);
  c.peer.Close();
  REQUIRE(c.events->WaitForClosed(1));
  REQUIRE(c.events->totals().packets == 0);
  REQUIRE(c.conn->Stats().reason == CloseReason::kLocalStop);
  c.Finish();
}

}  // namespace
}  // namespace xtcp::test
