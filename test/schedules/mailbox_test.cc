// The schedules of those who post to a loop, and of the loop that falls asleep.

#include "reactor/mailbox.h"

#include <array>
#include <atomic>
#include <catch2/catch.hpp>
#include <cstddef>
#include <memory>
#include <string>

#include "reactor/event_loop.h"
#include "support/explorer.h"
#include "support/fault_control.h"
#include "unit/reactor/test_channel.h"

namespace xtcp::test {
namespace {

using internal::EventLoop;
using internal::Mailbox;
using internal::TestChannel;

void Post(Mailbox& mailbox, TestChannel& channel) {
  if (channel.ClaimPost()) mailbox.Push(&channel);
}

// A loop on a thread of the schedule. It ends when it has seen all that was wished for.
struct Loop {
  Loop(Schedule& schedule, std::size_t wishes) : left(wishes) {
    channel.on_posted = [this] {
      left -= wished;
      wished = 0;
      if (left == 0) loop.Quit();
    };
    if (loop.Open()) throw std::runtime_error("no loop");
    schedule.Add("loop", [this] { static_cast<void>(loop.Run()); });
  }
  ~Loop() { loop.Close(); }

  void Wish() {
    ++wished;
    Post(mailbox, channel);
  }

  Mailbox mailbox;
  internal::LoopTimes times;
  EventLoop loop{mailbox, times};
  TestChannel channel;
  std::size_t wished = 0;  // since the loop last looked
  std::size_t left;
};

TEST_CASE("schedules: no post is lost while the loop falls asleep", "[B6][M13][M25][seen-26]") {
  const FaultPlan no_faults;
  const Exploration result = Explore({.preemptions = 4}, [](Schedule& schedule) -> std::string {
    Loop loop(schedule, 2);
    schedule.Add("poster", [&] {
      loop.Wish();
      loop.Wish();
    });
    schedule.RunToEnd();
    return "";
  });
  CHECK(result.problem == "");
  CAPTURE(result.schedules);
  CHECK(result.schedules > 200);
}

TEST_CASE("schedules: posters that share a channel rely on each other's post",
          "[B6][M13][M25][seen-26]") {
  const FaultPlan no_faults;
  const Exploration result = Explore({.preemptions = 2}, [](Schedule& schedule) -> std::string {
    Loop loop(schedule, 2);
    schedule.Settle();  // the loop sleeps
    schedule.Add("poster", [&] { loop.Wish(); });
    schedule.Add("another", [&] { loop.Wish(); });
    schedule.RunToEnd();
    return "";
  });
  CHECK(result.problem == "");
  CAPTURE(result.schedules);
  CHECK(result.schedules > 200);
}

TEST_CASE("schedules: a loop that closes is not written to afterwards", "[M25][B7][seen-26]") {
  const FaultPlan no_faults;
  const Exploration result = Explore({}, [](Schedule& schedule) -> std::string {
    Mailbox mailbox;
    if (mailbox.Open()) return "no mailbox";
    TestChannel channel;
    if (!mailbox.AboutToSleep()) return "something is in an empty mailbox";
    schedule.Add("poster", [&] { Post(mailbox, channel); });
    schedule.Add("loop", [&] {
      mailbox.Awake();
      mailbox.Close();
    });
    schedule.RunToEnd();
    return mailbox.TakeAll() == &channel ? "" : "a post is lost";
  });
  CHECK(result.problem == "");  // a write to a closed descriptor is a violation
  CAPTURE(result.schedules);
  CHECK(result.schedules > 100);
}

}  // namespace
}  // namespace xtcp::test
