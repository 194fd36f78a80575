#include "conn/outbound.h"

#include <xtcp/error.h>

#include <array>
#include <catch2/catch.hpp>
#include <cerrno>
#include <chrono>
#include <cstddef>
#include <cstring>
#include <memory>
#include <string>
#include <string_view>
#include <system_error>
#include <vector>

#include "conn/inbound.h"
#include "support/alloc_hook.h"
#include "unit/reactor/test_channel.h"

namespace xtcp::internal {
namespace {

using namespace std::chrono_literals;

constexpr std::size_t kLump = 64 << 10;  // what is charged ahead

// The way out of a connection that is open, whose socket no system call knows: each write is EBADF.
struct Way {
  explicit Way(std::size_t limit = 16 * kLump) : context(loop, nullptr, limit) {
    turn.Allocate();
    intake.Open({}, 1s, false);
  }
  ~Way() {
    turn.Abandon();
    turn.Free();
    intake.TakePending(outbound.queue(), outbound.account(), loop->pool);
    outbound.Clear(loop->pool);
  }

  void Begin() {
    turn.Begin(this, none, -1, service);
    outbound.BeginTurn(turn);
  }
  std::error_code SendInTurn(std::string_view text) {
    return outbound.SendInTurn(AsBytes(text), turn, intake, context, deadlines);
  }
  std::error_code SendElsewhere(std::string_view text) {
    return outbound.SendElsewhere(AsBytes(text), service, intake, context, deadlines);
  }
  std::error_code SendFromThread(std::string_view text) {
    bool post = false;
    return intake.Send(AsBytes(text), context, channel, &post);
  }
  void Flush() { outbound.Flush(turn, intake, deadlines); }
  // What waits to be written.
  std::string Queued() {
    std::array<iovec, 100> parts;
    const int count = outbound.queue().Gather(parts.data(), 100);
    std::string all;
    for (int i = 0; i < count; ++i) {
      const iovec& part = parts.at(static_cast<std::size_t>(i));
      all.append(static_cast<const char*>(part.iov_base), part.iov_len);
    }
    return all;
  }
  // How much of the limit could be charged now; it is charged then.
  std::size_t Free() {
    std::size_t free = context.send_buffer_limit;
    std::size_t none_ahead = 0;
    while (free > 0 && intake.Charge(free, &none_ahead, context)) --free;
    return free;
  }
  std::uint64_t Accepted() const { return outbound.account().accepted_bytes.load(); }

  const std::shared_ptr<LoopContext> loop =
      std::make_shared<LoopContext>(std::weak_ptr<Group>(), std::size_t{0});
  ConnContext context;
  TestChannel channel;
  Options options;
  LoopTotals totals;
  const Service service{.options = &options, .totals = &totals, .pool = &loop->pool};
  const ConnPtr none;
  Turn turn;
  Deadlines deadlines;
  Intake intake{SendState::kNew};
  Outbound outbound;
};

TEST_CASE("what other threads have sent before goes before a send on the loop", "[M10][B4]") {
  const bool in_turn = GENERATE(false, true);
  CAPTURE(in_turn);
  Way w;
  REQUIRE_FALSE(w.SendFromThread("one "));
  if (in_turn) {
    w.Begin();
    REQUIRE_FALSE(w.SendInTurn("two"));
    w.turn.Rest();
    w.Flush();
  } else {
    REQUIRE_FALSE(w.SendElsewhere("two"));
  }
  CHECK(w.Queued() == "one two");
  CHECK(w.Accepted() == 7);
}

TEST_CASE("what has gathered in a turn goes before what other threads send afterwards",
          "[M10][B4]") {
  Way w;
  w.Begin();
  REQUIRE_FALSE(w.SendInTurn("one "));
  REQUIRE_FALSE(w.SendFromThread("two "));
  REQUIRE_FALSE(w.SendInTurn("three"));
  w.turn.Rest();
  w.Flush();
  CHECK(w.Queued() == "one two three");
  CHECK(w.outbound.account().accepted_sends.load() == 3);
}

TEST_CASE("after a send that does not fit where others gather nothing gathers", "[M10][B4]") {
  constexpr std::size_t kLarge = Turn::kGatherSize + 1;
  Way w(64 * kLump);
  w.Begin();
  w.turn.Rest();  // so that it is not written at once
  REQUIRE_FALSE(w.SendInTurn(std::string(kLarge, 'a')));
  CHECK(w.turn.charged_room() == 0);
  if (w.turn.charged_room() > 0) std::memcpy(w.turn.Gather(1), "b", 1);  // as Conn::Send does
  REQUIRE_FALSE(w.SendInTurn("c"));
  w.Flush();
  const std::string queued = w.Queued();
  CHECK(queued.substr(0, kLarge) == std::string(kLarge, 'a'));
  CHECK(queued.substr(kLarge) == "c");
}

TEST_CASE("after parts nothing gathers, so that nothing overtakes them", "[M61][B4]") {
  Way w;
  w.Begin();
  REQUIRE_FALSE(w.SendInTurn("one "));
  const auto shared = std::make_shared<std::string>(1000, 'x');
  const std::array parts = {Part("two "), Part(shared)};
  REQUIRE_FALSE(
      w.outbound.SendParts(parts, 1004, &w.turn, w.service, w.intake, w.context, w.deadlines));
  CHECK_FALSE(Outbound::MayGather(w.turn, 1));
  REQUIRE_FALSE(w.SendInTurn(" three"));
  CHECK(w.turn.gathered().empty());
  CHECK(w.Queued() == "one two " + *shared + " three");
  CHECK(w.Accepted() == 1014);
}

TEST_CASE("parts that come first in a turn take the room that was charged for what gathers",
          "[M61][B4]") {
  Way w;
  w.Begin();
  REQUIRE_FALSE(w.SendInTurn("text"));
  w.turn.Rest();
  w.Flush();
  w.turn.Leave();
  w.outbound.Clear(w.loop->pool);  // as if it were written
  w.Begin();
  REQUIRE(Outbound::MayGather(w.turn, 1));
  const std::array parts = {Part("one ")};
  REQUIRE_FALSE(
      w.outbound.SendParts(parts, 4, &w.turn, w.service, w.intake, w.context, w.deadlines));
  CHECK_FALSE(Outbound::MayGather(w.turn, 1));
  REQUIRE_FALSE(w.SendInTurn("two"));
  CHECK(w.Queued() == "one two");
}

TEST_CASE("after an immediate stop nothing is written, and what was accepted is unsent",
          "[S1][B1]") {
  Way w;
  REQUIRE_FALSE(w.SendElsewhere("text"));
  w.intake.NoteStops(Stops::kNow);
  w.Begin();
  w.Flush();
  CHECK(w.outbound.error() == 0);  // a write would be EBADF
  CHECK(w.turn.MayWrite());
  CHECK(w.Accepted() == 4);
  CHECK(w.outbound.account().written_bytes.load() == 0);
  CHECK(w.Queued() == "text");
}

TEST_CASE("a socket that takes no bytes any more is written to once, and what waits is unsent",
          "[B1][F2]") {
  Way w;
  w.Begin();
  REQUIRE_FALSE(w.SendInTurn("gathered"));
  w.Flush();
  CHECK(w.outbound.error() == EBADF);
  CHECK_FALSE(w.turn.doomed());  // the life decides
  CHECK(w.Queued() == "gathered");
  w.outbound.Break(EPIPE);
  w.outbound.Unblock();
  w.Flush();
  CHECK(w.outbound.error() == EPIPE);  // and no new one
  CHECK(w.Accepted() == 8);
  CHECK(w.outbound.account().written_bytes.load() == 0);
}

TEST_CASE("with a large limit a lump of room is kept from turn to turn, with a small one none",
          "[M9][R6]") {
  struct Row {
    std::size_t limit;
    std::size_t kept;
  };
  for (const Row& row : {Row{16 * kLump, kLump}, Row{16 * kLump - 1, 0}}) {
    CAPTURE(row.limit);
    Way w(row.limit);
    w.Begin();
    REQUIRE_FALSE(w.SendInTurn("text"));
    w.turn.Rest();
    w.Flush();
    w.turn.Leave();
    w.outbound.Settle(w.intake, w.context);
    CHECK(w.Free() == row.limit - 4 - row.kept);
  }
}

TEST_CASE("a refused send gets the room that was kept", "[M14]") {
  Way w;
  w.Begin();
  REQUIRE_FALSE(w.SendInTurn("text"));
  w.turn.Rest();
  w.Flush();
  w.turn.Leave();
  CHECK(w.SendElsewhere(std::string(16 * kLump - 4, 'x')) == Errc::kFull);
  w.outbound.Settle(w.intake, w.context);
  CHECK(w.intake.has_refused());
  CHECK(w.Free() == 16 * kLump - 4);
}

TEST_CASE("a send on the loop that is refused queues nothing, and is counted", "[B3][M11]") {
  Way w(100);
  REQUIRE_FALSE(w.SendElsewhere(std::string(60, 'x')));
  CHECK(w.SendElsewhere(std::string(41, 'y')) == Errc::kFull);
  CHECK(w.SendElsewhere(std::string(101, 'y')) == Errc::kTooLarge);
  CHECK(w.Queued() == std::string(60, 'x'));
  CHECK(w.Accepted() == 60);
  ConnStats stats;
  w.intake.Fill(&stats, w.outbound.account(), 2s);
  CHECK(stats.refused_sends == 2);
}

TEST_CASE("a send on the loop without memory queues nothing, and its room is for the next",
          "[B3][F4]") {
  Way w(100);
  std::error_code error;
  const std::string text(100, 'x');
  {
    const test::NoMemory none;
    error = w.SendElsewhere(text);
  }
  CHECK(error == Errc::kNoMemory);
  CHECK(w.Accepted() == 0);
  w.outbound.Settle(w.intake, w.context);
  CHECK_FALSE(w.SendElsewhere(text));
  CHECK(w.Queued() == text);
}

// As when a deadline falls due: what there is is written before the connection's tasks run.
TEST_CASE("after a write that took not all nothing gathers, whoever has sent it", "[M10][B4]") {
  Way w;
  w.Begin();
  w.turn.Rest();  // so that it is not written at once
  const std::string large(15 * kLump, 'x');
  std::error_code error;
  {
    const test::NoMemory none;
    error = w.SendInTurn(large);
  }
  REQUIRE(error == Errc::kNoMemory);  // its room stays charged
  w.turn.Leave();
  w.Begin();
  REQUIRE(w.turn.charged_room() > 0);
  REQUIRE_FALSE(w.SendFromThread("a"));
  w.Flush();
  REQUIRE(w.Queued() == "a");
  CHECK(w.turn.charged_room() == 0);
}

TEST_CASE("input is held above the mark, until no more than half of it is queued", "[M60]") {
  Way w;
  w.Begin();
  w.turn.WatchQueue(w.outbound.account(), 100);
  Inbound inbound;
  SendAccount& account = w.outbound.account();
  const auto held_at = [&](std::uint64_t queued) {
    account.accepted_bytes.store(account.written_bytes.load() + queued);
    inbound.FollowHold(w.turn, w.intake);
    return inbound.held();
  };
  CHECK_FALSE(held_at(100));
  CHECK(held_at(101));
  CHECK(held_at(51));
  CHECK_FALSE(held_at(50));
  CHECK_FALSE(held_at(100));
  CHECK(held_at(101));
  account.accepted_bytes.store(account.written_bytes.load());
}

TEST_CASE("what other threads have sent counts for the hold", "[M60]") {
  Way w;
  w.Begin();
  w.turn.WatchQueue(w.outbound.account(), 5);
  Inbound inbound;
  REQUIRE_FALSE(w.SendFromThread("sixsix"));
  inbound.FollowHold(w.turn, w.intake);
  CHECK(inbound.held());
}

TEST_CASE("a protocol is asked for a connection's decoder once", "[M59]") {
  struct Counts : Protocol {
    std::unique_ptr<Decoder> NewDecoder() const override {
      ++asked;
      return nullptr;
    }
    mutable int asked = 0;
  };
  const Counts protocol;
  Inbound inbound;
  CHECK(inbound.AskDecoder(protocol) == nullptr);
  CHECK(inbound.AskDecoder(protocol) == nullptr);
  CHECK(protocol.asked == 1);
  CHECK_FALSE(inbound.has_decoder());
}

}  // namespace
}  // namespace xtcp::internal
