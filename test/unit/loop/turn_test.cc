#include "loop/turn.h"

#include <xtcp/error.h>
#include <xtcp/options.h>

#include <array>
#include <catch2/catch.hpp>
#include <cerrno>
#include <cstddef>
#include <memory>
#include <new>
#include <stdexcept>
#include <system_error>
#include <vector>

#include "conn/conn_impl.h"
#include "support/alloc_hook.h"

namespace xtcp::internal {
namespace {

struct NoHandler final : Handler {
  void OnEvent(EventType, const ConnPtr&, PacketPtr) override {}
};

// It is never dialled, and only has a name.
struct TestConn final : ConnImpl {
  using ConnImpl::ConnImpl;
};

// Turns of one connection.
struct Turns {
  Turns() { turn.Allocate(); }
  ~Turns() {
    turn.Abandon();
    turn.Free();
  }
  void Begin() { turn.Begin(this, conn, 7, service); }
  void Gather(std::size_t bytes) {
    turn.SetCharged(bytes);
    turn.Gather(bytes);
  }

  const std::shared_ptr<LoopContext> loop =
      std::make_shared<LoopContext>(std::weak_ptr<Group>(), std::size_t{0});
  const ConnPtr conn =
      std::make_shared<TestConn>(Ref<ConnContext>::Make(loop, nullptr, 1000), SendState::kNew);
  NoHandler handler;
  LoopTotals totals;
  const Service service{.handler = &handler, .totals = &totals, .pool = &loop->pool};
  Turn turn;
};

TEST_CASE("of several causes for which a connection has to close the first counts", "[E5]") {
  Turns t;
  t.Begin();
  CHECK_FALSE(t.turn.doomed());
  t.turn.Doom(CloseReason::kPacketTooLarge, Errc::kProtocolError);
  t.turn.Doom(CloseReason::kException);
  t.turn.DoomBySocket(EPIPE);
  CHECK(t.turn.doom() == CloseReason::kPacketTooLarge);
  CHECK(t.turn.doom_error() == Errc::kProtocolError);
}

TEST_CASE("a socket error is the reason of the end, as its number says", "[E5][F2]") {
  struct Row {
    int error;
    CloseReason reason;
  };
  for (const Row& row :
       {Row{ECONNRESET, CloseReason::kPeerReset}, Row{EPIPE, CloseReason::kPeerReset},
        Row{ETIMEDOUT, CloseReason::kSystemError}, Row{EHOSTUNREACH, CloseReason::kSystemError},
        Row{ENETDOWN, CloseReason::kSystemError}, Row{ENOBUFS, CloseReason::kSystemError}}) {
    CAPTURE(row.error);
    Turns t;
    t.Begin();
    t.turn.DoomBySocket(row.error);
    CHECK(t.turn.doom() == row.reason);
    CHECK(t.turn.doom_error() == std::error_code(row.error, std::system_category()));
  }
}

TEST_CASE("whatever a callback throws dooms its connection and is counted", "[M38][F5]") {
  const std::vector<void (*)(Handler&)> throwing = {
      [](Handler&) { throw std::runtime_error("a handler's"); }, [](Handler&) { throw 42; },
      [](Handler&) { throw std::bad_alloc(); }};
  Turns t;
  for (const auto& function : throwing) {
    t.Begin();
    CHECK_NOTHROW(t.turn.Call(function));
    CHECK(t.turn.doom() == CloseReason::kException);
    t.turn.Leave();
  }
  CHECK(t.totals.exceptions.load() == throwing.size());
}

TEST_CASE("a turn inherits nothing from the one before", "[B7][E5]") {
  Turns t;
  t.Begin();
  t.turn.Doom(CloseReason::kException);
  t.turn.Starve(ENOBUFS);
  t.turn.Rest();
  t.turn.WantTimes();
  t.turn.NoteTraffic();
  while (t.turn.MayWrite()) t.turn.CountWrite();
  t.turn.SetCharged(100);
  t.turn.Leave();
  t.Begin();
  CHECK_FALSE(t.turn.doomed());
  CHECK_FALSE(t.turn.rests());
  CHECK(t.turn.starvation() == 0);
  CHECK_FALSE(t.turn.wants_times());
  CHECK_FALSE(t.turn.traffic());
  CHECK(t.turn.MayWrite());
  CHECK(t.turn.charged_room() == 0);  // it was charged to the other connection
}

TEST_CASE("a turn is of one connection and of one thread, and of none when it is left", "[B7]") {
  Turns t;
  CHECK_FALSE(t.turn.IsOf(&t));
  CHECK(Turn::Current() == nullptr);
  t.Begin();
  CHECK(Turn::Current() == &t.turn);
  CHECK(t.turn.IsOf(&t));
  CHECK_FALSE(t.turn.IsOf(&t.turn));
  CHECK(t.turn.fd() == 7);
  t.turn.Leave();
  CHECK_FALSE(t.turn.IsOf(&t));
  CHECK(Turn::Current() == nullptr);
}

TEST_CASE("a turn may write a few times", "[R9]") {
  Turns t;
  t.Begin();
  int writes = 0;
  for (; t.turn.MayWrite() && writes < 100; ++writes) t.turn.CountWrite();
  CHECK(writes == Turn::kWrites);
}

TEST_CASE("times are wanted where the service has deadlines", "[R8]") {
  Turns t;
  Service with = t.service;
  with.has_deadlines = true;
  t.turn.Begin(&t, t.conn, 7, with);
  CHECK(t.turn.wants_times());
  t.turn.Leave();
  t.Begin();
  CHECK_FALSE(t.turn.wants_times());
}

TEST_CASE("what gathers uses up room and charge, and no more is charged than there is room",
          "[R1]") {
  Turns t;
  t.Begin();
  CHECK(t.turn.room() == Turn::kGatherSize);
  t.turn.SetCharged(100);
  t.turn.Gather(60);
  t.turn.Gather(40);
  CHECK(t.turn.charged_room() == 0);
  CHECK(t.turn.gathered().size() == 100);
  CHECK(t.turn.gathered_sends() == 2);
  CHECK(t.turn.room() == Turn::kGatherSize - 100);
  t.turn.SetCharged(10 * Turn::kGatherSize);
  CHECK(t.turn.charged_room() == Turn::kGatherSize - 100);
  t.turn.ClearGathered();
  CHECK(t.turn.gathered().empty());
  CHECK(t.turn.gathered_sends() == 0);
  CHECK(t.turn.charged_room() == 0);
}

TEST_CASE("what is queued is what the account says, and what has gathered", "[M60]") {
  Turns t;
  t.Begin();
  SendAccount account;
  Add(account.accepted_bytes, 100);
  Add(account.written_bytes, 30);
  t.turn.WatchQueue(account, 50);
  CHECK(t.turn.queued() == 70);
  t.Gather(5);
  CHECK(t.turn.queued() == 75);
  CHECK(t.turn.hold_above() == 50);
}

TEST_CASE("a turn that its thread left in the middle is forgotten, with what had gathered",
          "[B7][M29]") {
  Turns t;
  t.Begin();
  t.Gather(9);
  t.turn.Abandon();
  CHECK_FALSE(t.turn.IsOf(&t));
  CHECK(Turn::Current() == nullptr);
  CHECK(t.turn.gathered().empty());
  t.Begin();
  CHECK(t.turn.charged_room() == 0);
}

TEST_CASE("owners are let go when the turn releases them, not before", "[M61]") {
  Turns t;
  t.Begin();
  const auto owner = std::make_shared<std::array<std::byte, 1000>>();
  OutboundBuffer queue;
  const std::array parts = {Part(owner)};
  REQUIRE(queue.AppendParts(parts, t.loop->pool));
  queue.Consume(owner->size(), t.loop->pool, t.turn.released());
  CHECK(queue.empty());
  t.turn.Leave();
  CHECK(owner.use_count() == 3);  // the part's, and that of the buffer
  t.turn.Release(t.loop->pool);
  CHECK(owner.use_count() == 2);
}

TEST_CASE("a turn whose buffers cannot be had throws, and may try again", "[F4]") {
  for (const std::uint64_t which : {1, 2}) {
    Turn turn;
    bool failed = false;
    try {
      const test::FailAllocations fail(which);
      turn.Allocate();
    } catch (const std::bad_alloc&) {
      failed = true;
    }
    CHECK(failed);
    CHECK_NOTHROW(turn.Allocate());
    CHECK(turn.room() == Turn::kGatherSize);
    turn.Free();
  }
}

}  // namespace
}  // namespace xtcp::internal
