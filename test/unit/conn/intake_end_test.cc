#include <xtcp/error.h>

#include <catch2/catch.hpp>
#include <chrono>
#include <memory>
#include <system_error>
#include <vector>

#include "conn/intake.h"
#include "socket/resolve.h"
#include "support/alloc_hook.h"
#include "unit/reactor/test_channel.h"

namespace xtcp::internal {
namespace {

using namespace std::chrono_literals;

// A connection's intake up to its end.
struct Ending {
  ~Ending() { out.Clear(context.pool()); }

  void Send(std::size_t size) {
    bool post = false;
    REQUIRE_FALSE(intake.Send(std::vector<std::byte>(size), context, channel, &post));
  }
  std::error_code Post(Task task, bool* post) {
    *post = false;
    return intake.Post(std::move(task), channel, post);
  }
  bool CloseUnopened(std::error_code error) {
    return intake.CloseUnopened(error, out, account, context.pool());
  }
  void Close(const Intake::End& end) { intake.Close(end, out, account, context.pool()); }
  ConnStats Stats() const {
    ConnStats stats;
    intake.Fill(&stats, account, 99s);
    return stats;
  }

  const std::shared_ptr<LoopContext> loop =
      std::make_shared<LoopContext>(std::weak_ptr<Group>(), std::size_t{0});
  ConnContext context{loop, nullptr, 1000};
  TestChannel channel;
  SendAccount account;
  OutboundBuffer out;
  Intake intake{SendState::kNew};
};

const std::error_code kTimedOut = std::make_error_code(std::errc::timed_out);

TEST_CASE("what waits when a connection ends is accepted, and unsent", "[B1][M11]") {
  Ending c;
  c.intake.Open({}, 10s, false);
  c.Send(30);
  c.Close({.reason = CloseReason::kReadDeadline, .error = kTimedOut, .now = 12s});
  const ConnStats stats = c.Stats();
  CHECK(stats.accepted_bytes == 30);
  CHECK(stats.accepted_sends == 1);
  CHECK(stats.written_bytes == 0);
  CHECK(stats.reason == CloseReason::kReadDeadline);
  CHECK(stats.error == kTimedOut);
  CHECK(stats.age == 2s);
  CHECK_FALSE(c.intake.has_pending());
  CHECK(c.intake.Ending(c.account).unsent_bytes == 30);
  CHECK(c.intake.Ending(c.account).connections == 0);  // no stop has found it
}

TEST_CASE("a dial that comes to nothing ends once, with its error, and counts what it was to send",
          "[M33][M31]") {
  Ending c;
  c.Send(10);
  CHECK(c.CloseUnopened(kTimedOut));
  CHECK_FALSE(c.CloseUnopened(Errc::kStopped));
  const ConnStats stats = c.Stats();
  CHECK(stats.reason == CloseReason::kConnectFailed);
  CHECK(stats.error == kTimedOut);
  CHECK(stats.accepted_bytes == 10);
  CHECK(stats.age == 0s);
}

TEST_CASE("on a Unix socket nothing is unacknowledged", "[M23][B1]") {
  const auto ends_of = [](const char* address) {
    const SocketAddress end = ResolveForDial(address).addresses.at(0);
    return ConnectionEnds(end, end);
  };
  for (const char* address : {"unix:/a", "127.0.0.1:1"}) {
    CAPTURE(address);
    Ending c;
    c.intake.Open(ends_of(address), 1s, false);
    c.Close({.reason = CloseReason::kLocalStop, .unacked_bytes = 700});
    const std::uint64_t expected = c.intake.Remote().IsUnix() ? 0 : 700;
    CHECK(c.Stats().unacked_bytes == expected);
    CHECK(c.intake.Ending(c.account).unacked_bytes == expected);
  }
}

TEST_CASE("a connection has the addresses of its ends once it is established, and keeps them",
          "[E6]") {
  Ending c;
  CHECK(c.intake.Local().ToString().empty());
  c.intake.Open(ConnectionEnds(ResolveForDial("127.0.0.1:7").addresses.at(0),
                               ResolveForDial("127.0.0.2:8").addresses.at(0)),
                1s, false);
  c.Close({.reason = CloseReason::kLocalStop});
  CHECK(c.intake.Local().ToString() == "127.0.0.1:7");
  CHECK(c.intake.Remote().ToString() == "127.0.0.2:8");
}

TEST_CASE("the first task of a burst tells the loop; before the first event none does", "[M47]") {
  Ending c;
  bool post = false;
  REQUIRE_FALSE(c.Post([] {}, &post));
  CHECK_FALSE(post);
  CHECK(c.intake.has_tasks());
  c.intake.Open({}, 1s, false);
  c.intake.TakeTasks(10);
  CHECK_FALSE(c.intake.has_tasks());
  REQUIRE_FALSE(c.Post([] {}, &post));
  CHECK(post);
  Mailbox::Next(&c.channel);
  REQUIRE_FALSE(c.Post([] {}, &post));
  CHECK_FALSE(post);
}

TEST_CASE("tasks that one turn does not take are there for the next", "[M47][R9]") {
  Ending c;
  c.intake.Open({}, 1s, false);
  int run = 0;
  bool post = false;
  for (int i = 0; i < 3; ++i) REQUIRE_FALSE(c.Post([&run] { ++run; }, &post));
  TaskChain first = c.intake.TakeTasks(2);
  CHECK(c.intake.has_tasks());
  while (!first.empty()) first.TakeFirst()->task();
  CHECK(run == 2);
  TaskChain second = c.intake.TakeTasks(2);
  CHECK_FALSE(c.intake.has_tasks());
  while (!second.empty()) second.TakeFirst()->task();
  CHECK(run == 3);
}

TEST_CASE("a task is not refused by a stop, but by the end, and then goes", "[M47]") {
  Ending c;
  c.intake.Open({}, 1s, false);
  bool post = false;
  c.intake.NoteStops(Stops::kNow);
  CHECK_FALSE(c.Post([] {}, &post));
  c.Close({.reason = CloseReason::kLocalStop});
  const auto held = std::make_shared<int>();
  CHECK(c.Post([held] {}, &post) == Errc::kClosed);
  CHECK(held.use_count() == 1);
  CHECK_FALSE(post);
}

TEST_CASE("a task of a connection without memory is kNoMemory, and tells nobody", "[M47][F4]") {
  Ending c;
  c.intake.Open({}, 1s, false);
  const auto held = std::make_shared<int>();
  bool post = false;
  std::error_code error;
  {
    const test::NoMemory none;
    error = c.Post([held] {}, &post);
  }
  CHECK(error == Errc::kNoMemory);
  CHECK(held.use_count() == 1);
  CHECK_FALSE(post);
  CHECK_FALSE(c.intake.has_tasks());
}

TEST_CASE("after the end nobody posts a connection to its loop any more", "[M45][E6]") {
  Ending c;
  CHECK_FALSE(c.intake.ClaimPost(c.channel));  // there is no loop yet
  c.intake.Open({}, 1s, false);
  CHECK(c.intake.ClaimPost(c.channel));
  Mailbox::Next(&c.channel);
  c.Close({.reason = CloseReason::kLocalStop});
  CHECK_FALSE(c.intake.ClaimPost(c.channel));
  bool post = false;
  CHECK_FALSE(c.intake.Stop(StopMode::kImmediately, c.context, c.channel, &post).was_open);
  CHECK_FALSE(post);
  CHECK_FALSE(c.channel.posted());
}

TEST_CASE("who waits for the end of what has ended does not wait", "[M20]") {
  Ending c;
  c.intake.Open({}, 1s, false);
  c.Close({.reason = CloseReason::kLocalStop});
  CHECK_FALSE(c.intake.has_ended());  // kClosed is still to come
  c.intake.ReleaseWaiters();
  CHECK(c.intake.has_ended());
  c.intake.WaitForEnd();
}

}  // namespace
}  // namespace xtcp::internal
