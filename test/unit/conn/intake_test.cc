#include "conn/intake.h"

#include <xtcp/error.h>

#include <array>
#include <catch2/catch.hpp>
#include <chrono>
#include <cstddef>
#include <memory>
#include <string>
#include <system_error>
#include <vector>

#include "socket/resolve.h"
#include "support/alloc_hook.h"
#include "unit/reactor/test_channel.h"

namespace xtcp::internal {
namespace {

using namespace std::chrono_literals;

constexpr std::size_t kLimit = 100'000;

// An intake in a state, and what is beside it on a connection.
struct OneIntake {
  explicit OneIntake(SendState state, std::size_t limit = kLimit)
      : context(loop, nullptr, limit), intake(SendState::kNew) {
    if (state == SendState::kNew) return;
    if (state == SendState::kResolving || state == SendState::kDialing) {
      intake.Enter(SendState::kNew, state);
      return;
    }
    intake.Open({}, 1s, state == SendState::kRefusing);
    if (state == SendState::kClosed) Close();
  }
  ~OneIntake() {
    intake.TakePending(out, account, context.pool());
    out.Clear(context.pool());
  }

  std::error_code Send(std::size_t size) {
    post = false;
    return intake.Send(std::vector<std::byte>(size), context, channel, &post);
  }
  Intake::StopNote Stop(StopMode mode) {
    post = false;
    return intake.Stop(mode, context, channel, &post);
  }
  std::size_t Close(const Intake::End& end = {.reason = CloseReason::kPeerClosed}) {
    return intake.Close(end, out, account, context.pool());
  }
  std::size_t Take() { return intake.TakePending(out, account, context.pool()); }
  ConnStats Stats() const {
    ConnStats stats;
    intake.Fill(&stats, account, 9s);
    return stats;
  }
  // The loop takes the channel out of its mailbox.
  void Serve() { Mailbox::Next(&channel); }

  const std::shared_ptr<LoopContext> loop =
      std::make_shared<LoopContext>(std::weak_ptr<Group>(), std::size_t{0});
  ConnContext context;
  TestChannel channel;
  Intake intake;
  SendAccount account;
  OutboundBuffer out;
  bool post = false;
};

TEST_CASE("what a send returns follows from the connection's state, and the size comes last",
          "[B3][M9][E6]") {
  struct Row {
    SendState state;
    std::error_code error;
  };
  for (const Row& row :
       {Row{SendState::kNew, {}}, Row{SendState::kResolving, {}}, Row{SendState::kDialing, {}},
        Row{SendState::kOpen, {}}, Row{SendState::kRefusing, Errc::kStopping},
        Row{SendState::kClosed, Errc::kClosed}}) {
    CAPTURE(static_cast<int>(row.state));
    OneIntake c(row.state);
    CHECK(c.Send(1) == row.error);
    CHECK(c.Send(kLimit + 1) == (row.error ? row.error : Errc::kTooLarge));
    CHECK(c.Send(kLimit) == (row.error ? row.error : Errc::kFull));
    CHECK(c.intake.pending_bytes() == (row.error ? 0 : 1));
  }
}

TEST_CASE("a burst of sends is one post; after the loop has taken them the next one posts again",
          "[M13][B6]") {
  OneIntake c(SendState::kOpen);
  REQUIRE_FALSE(c.Send(10));
  CHECK(c.post);
  c.Serve();
  REQUIRE_FALSE(c.Send(20));
  CHECK_FALSE(c.post);  // they go with those before
  CHECK(c.Take() == 30);
  REQUIRE_FALSE(c.Send(1));
  CHECK(c.post);
}

TEST_CASE("sends before the connection is established post nothing, and are there when it begins",
          "[M33]") {
  for (const SendState state : {SendState::kNew, SendState::kDialing}) {
    OneIntake c(state);
    REQUIRE_FALSE(c.Send(10));
    REQUIRE_FALSE(c.Send(20));
    CHECK_FALSE(c.post);
    c.intake.Open({}, 1s, false);
    CHECK(c.Take() == 30);
    CHECK(c.Stats().accepted_sends == 2);
  }
}

TEST_CASE("bytes are accepted once, whether they wait or were taken", "[M11][B1]") {
  OneIntake c(SendState::kOpen);
  for (const std::size_t size : {1u, 20'000u, 16'000u}) REQUIRE_FALSE(c.Send(size));
  CHECK(c.Stats().accepted_bytes == 36'001);
  CHECK(c.Take() == 36'001);
  CHECK(c.Stats().accepted_bytes == 36'001);
  CHECK(c.Take() == 0);
  CHECK(c.Stats().accepted_bytes == 36'001);
  CHECK(c.Stats().accepted_sends == 3);
}

TEST_CASE("each refused send is counted, until the account is final", "[M11][E6]") {
  OneIntake c(SendState::kOpen);
  CHECK(c.Send(kLimit + 1) == Errc::kTooLarge);
  REQUIRE_FALSE(c.Send(kLimit));
  CHECK(c.Send(1) == Errc::kFull);
  c.intake.Refuse();
  CHECK(c.Send(1) == Errc::kStopping);
  CHECK(c.Stats().refused_sends == 3);
  c.Close();
  CHECK(c.Send(1) == Errc::kClosed);
  CHECK(c.intake.Refuse(Errc::kNoMemory) == Errc::kNoMemory);
  CHECK(c.Stats().refused_sends == 3);
}

TEST_CASE("a send that is too large asks for no notice of room", "[M14]") {
  OneIntake c(SendState::kOpen);
  CHECK(c.Send(kLimit + 1) == Errc::kTooLarge);
  CHECK_FALSE(c.post);
  CHECK_FALSE(c.intake.has_refused());
  CHECK_FALSE(c.intake.TakeSendReady(c.context));
}

TEST_CASE("the first send that is refused for want of room tells the loop, the next ones do not",
          "[M14]") {
  OneIntake c(SendState::kOpen);
  std::size_t ahead = kLimit / 2;
  REQUIRE_FALSE(c.intake.Charge(kLimit / 2, &ahead, c.context));
  CHECK(c.Send(kLimit / 2 + 1) == Errc::kFull);
  CHECK(c.post);
  c.Serve();
  CHECK(c.Send(kLimit / 2 + 1) == Errc::kFull);
  CHECK_FALSE(c.post);
  CHECK(c.intake.has_refused());
}

TEST_CASE("room is told of once, when half of it is there", "[M14]") {
  OneIntake c(SendState::kOpen);
  std::size_t ahead = 0;
  REQUIRE_FALSE(c.intake.Charge(kLimit, &ahead, c.context));
  CHECK(c.Send(1) == Errc::kFull);
  c.intake.Release(kLimit / 2 - 1);
  CHECK_FALSE(c.intake.TakeSendReady(c.context));
  c.intake.Release(1);
  CHECK(c.intake.TakeSendReady(c.context));
  CHECK_FALSE(c.intake.has_refused());
  CHECK_FALSE(c.intake.TakeSendReady(c.context));
}

TEST_CASE("after any stop nobody is told of room", "[M14]") {
  const int whose = GENERATE(0, 1, 2, 3);
  CAPTURE(whose);
  OneIntake c(SendState::kOpen);
  std::size_t ahead = 0;
  REQUIRE_FALSE(c.intake.Charge(kLimit, &ahead, c.context));
  CHECK(c.Send(1) == Errc::kFull);
  c.intake.Release(kLimit);
  if (whose == 0) c.Stop(StopMode::kGracefullyButNotWait);
  if (whose == 1) c.context.stops.store(Stops::kGraceful);
  if (whose == 2) c.loop->group_stops.store(Stops::kNow);
  if (whose == 3) c.intake.EndSend(c.channel);
  CHECK_FALSE(c.intake.TakeSendReady(c.context));
}

TEST_CASE("a charge ahead is given whole or not at all, and never to a send that is refused",
          "[M11][M14]") {
  OneIntake c(SendState::kOpen);
  std::size_t ahead = kLimit;  // more than half of the limit
  REQUIRE_FALSE(c.intake.Charge(1, &ahead, c.context));
  CHECK(ahead == 0);
  ahead = kLimit / 2 - 1;
  REQUIRE_FALSE(c.intake.Charge(0, &ahead, c.context));
  CHECK(ahead == kLimit / 2 - 1);
  ahead = 1;
  CHECK(c.intake.Charge(kLimit, &ahead, c.context) == Errc::kFull);
  CHECK(ahead == 0);
}

TEST_CASE("a send without memory queues nothing, and gives its charge back", "[B3][F4]") {
  // The first allocation, or a later one of the same send.
  for (const std::uint64_t which : {1, 2, 4}) {
    CAPTURE(which);
    OneIntake c(SendState::kOpen);
    const std::vector<std::byte> bytes(kLimit);
    std::error_code error;
    {
      const test::FailAllocations fail(which);
      error = c.intake.Send(bytes, c.context, c.channel, &c.post);
    }
    CHECK(error == Errc::kNoMemory);
    CHECK(c.intake.pending_bytes() == 0);
    CHECK(c.Stats().accepted_bytes == 0);
    CHECK(c.Stats().refused_sends == 1);
    CHECK_FALSE(c.Send(kLimit));
    CHECK(c.Take() == kLimit);
  }
}

TEST_CASE("parts that are refused let their owners go before the call returns", "[M61]") {
  const auto owner = std::make_shared<std::string>(2000, 'x');
  const auto send = [&](OneIntake& c) {
    const std::array parts = {Part(owner), Part("text")};
    return c.intake.SendParts(parts, 2004, c.context, c.channel, &c.post);
  };
  OneIntake full(SendState::kOpen);
  REQUIRE_FALSE(full.Send(kLimit));
  CHECK(send(full) == Errc::kFull);
  OneIntake closed(SendState::kClosed);
  CHECK(send(closed) == Errc::kClosed);
  OneIntake small(SendState::kOpen, 2003);
  CHECK(send(small) == Errc::kTooLarge);
  CHECK_FALSE(small.intake.has_refused());
  CHECK(owner.use_count() == 1);
  OneIntake open(SendState::kOpen);
  CHECK_FALSE(send(open));
  CHECK(open.post);
  CHECK(owner.use_count() == 2);
  CHECK(open.Take() == 2004);
  CHECK(open.Stats().accepted_sends == 1);
}

TEST_CASE("a stop of the service, or of its group, refuses sends before the loop has seen it",
          "[M10][M42]") {
  const bool of_group = GENERATE(false, true);
  OneIntake c(SendState::kOpen);
  (of_group ? c.loop->group_stops : c.context.stops).store(Stops::kGraceful);
  CHECK(c.Send(1) == Errc::kStopping);
  CHECK(c.intake.refuses(c.context));
  CHECK_FALSE(c.intake.stop_asked());  // that is for the loop
}

TEST_CASE("a stop refuses sends at once, and a softer one does not take it back", "[S5][M22]") {
  OneIntake c(SendState::kOpen);
  CHECK(c.Stop(StopMode::kImmediately).was_open);
  CHECK(c.post);
  CHECK(c.Send(1) == Errc::kStopping);
  c.Stop(StopMode::kGracefullyAndWait);
  CHECK(c.intake.stops() == Stops::kNow);
  OneIntake other(SendState::kOpen);
  other.Stop(StopMode::kGracefullyAndWait);
  CHECK(other.intake.stops() == Stops::kGraceful);
  other.Stop(StopMode::kImmediately);
  CHECK(other.intake.stops() == Stops::kGracefulThenNow);
}

TEST_CASE("a graceful stop after an immediate one of the service is not noted", "[S5][M22]") {
  OneIntake c(SendState::kOpen);
  c.context.stops.store(Stops::kNow);
  c.Stop(StopMode::kGracefullyButNotWait);
  CHECK(c.intake.stops() == Stops::kNow);
}

TEST_CASE("what a stop finds, and whether the loop has to look, follows from the state",
          "[M21][S5]") {
  struct Row {
    SendState state;
    bool was_open;
    bool serves;
    bool post;
  };
  for (const Row& row :
       {Row{SendState::kNew, false, false, false}, Row{SendState::kResolving, false, false, false},
        Row{SendState::kDialing, false, true, true}, Row{SendState::kOpen, true, true, true},
        Row{SendState::kRefusing, true, true, true}, Row{SendState::kClosed, false, true, false}}) {
    CAPTURE(static_cast<int>(row.state));
    OneIntake c(row.state);
    const Intake::StopNote note = c.Stop(StopMode::kGracefullyButNotWait);
    CHECK(note.was_open == row.was_open);
    CHECK(note.serves == row.serves);
    CHECK(c.post == row.post);
    CHECK(c.intake.stop_asked() == (row.state != SendState::kClosed));
  }
}

TEST_CASE("a connection that is established while it is stopped refuses, and is in the report",
          "[S6][M21]") {
  OneIntake c(SendState::kDialing);
  REQUIRE_FALSE(c.Send(10));
  c.Stop(StopMode::kGracefullyButNotWait);
  c.intake.Open({}, 1s, false);
  CHECK(c.Send(1) == Errc::kStopping);
  c.Close({.reason = CloseReason::kLocalStop, .cut = true, .unacked_bytes = 3});
  const StopReport report = c.intake.Ending(c.account);
  CHECK(report.connections == 1);
  CHECK(report.cut == 1);
  CHECK(report.unsent_bytes == 10);
  CHECK(report.unacked_bytes == 3);
}

TEST_CASE("a dial begins once, and not after a stop", "[M51][M31]") {
  OneIntake c(SendState::kResolving);
  CHECK(c.intake.BeginDial(c.channel));
  CHECK_FALSE(c.intake.BeginDial(c.channel));
  OneIntake stopped(SendState::kResolving);
  stopped.Stop(StopMode::kGracefullyButNotWait);
  CHECK_FALSE(stopped.intake.BeginDial(stopped.channel));
  CHECK_FALSE(stopped.channel.posted());
}

TEST_CASE("a pause that changes nothing posts nothing, and after the end there is none", "[M18]") {
  OneIntake c(SendState::kOpen);
  CHECK_FALSE(c.intake.Pause(false, c.channel));
  CHECK(c.intake.Pause(true, c.channel));
  c.Serve();
  CHECK_FALSE(c.intake.Pause(true, c.channel));
  CHECK(c.intake.paused());
  CHECK_FALSE(c.intake.MayDeliver());
  CHECK(c.intake.Pause(false, c.channel));  // one takes them all back
  CHECK(c.intake.MayDeliver());
  c.Serve();
  c.Close();
  CHECK_FALSE(c.intake.Pause(true, c.channel));
  CHECK_FALSE(c.intake.paused());
}

TEST_CASE("a pause before the connection is established posts nothing, and holds", "[M18]") {
  OneIntake c(SendState::kNew);
  CHECK_FALSE(c.intake.Pause(true, c.channel));
  c.intake.Open({}, 1s, false);
  CHECK(c.intake.paused());
}

TEST_CASE("a stop and a pause leave each other's notes alone", "[M18][M19]") {
  OneIntake c(SendState::kOpen);
  c.intake.Pause(true, c.channel);
  c.Stop(StopMode::kGracefullyButNotWait);
  c.intake.EndSend(c.channel);
  CHECK(c.intake.paused());
  CHECK(c.intake.stops() == Stops::kGraceful);
  c.intake.Pause(false, c.channel);
  CHECK(c.intake.stops() == Stops::kGraceful);
  CHECK(c.intake.send_ended());
  CHECK_FALSE(c.intake.MayDeliver());
}

TEST_CASE("EndSend refuses sends from then on, and counts once", "[M62]") {
  OneIntake c(SendState::kOpen);
  CHECK(c.intake.EndSend(c.channel));
  c.Serve();
  CHECK_FALSE(c.intake.EndSend(c.channel));
  CHECK(c.Send(1) == Errc::kStopping);
  CHECK_FALSE(c.intake.stop_asked());
  OneIntake before(SendState::kDialing);
  CHECK_FALSE(before.intake.EndSend(before.channel));
  CHECK(before.Send(1) == Errc::kStopping);
  before.intake.Open({}, 1s, false);
  CHECK(before.Send(1) == Errc::kStopping);
  OneIntake closed(SendState::kClosed);
  CHECK_FALSE(closed.intake.EndSend(closed.channel));
  CHECK_FALSE(closed.intake.send_ended());
}

}  // namespace
}  // namespace xtcp::internal
