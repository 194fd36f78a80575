#include "reactor/event_loop.h"

#include <fcntl.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <catch2/catch.hpp>
#include <cerrno>
#include <chrono>
#include <cstdint>
#include <deque>
#include <memory>
#include <string>
#include <system_error>
#include <thread>
#include <utility>
#include <vector>

#include "base/callback_scope.h"
#include "support/deadline.h"
#include "sys/syscalls.h"
#include "unit/reactor/test_channel.h"

namespace xtcp::internal {
namespace {

using std::chrono::milliseconds;

struct Pair {
  Pair() {
    std::array<int, 2> fds;
    REQUIRE(::socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, fds.data()) == 0);
    ours = UniqueFd(fds[0]);
    peer = UniqueFd(fds[1]);
  }
  UniqueFd ours;
  UniqueFd peer;
};

// A loop on the test's own thread; `stop`, posted or armed, ends it.
struct Loop {
  Loop() : loop(mailbox, times) {
    REQUIRE_FALSE(loop.Open());
    for (int i = 0; i < 10; ++i) loop.AddTimer();
    stop.on_posted = [this] { loop.Quit(); };
    stop.on_timer = [this] { loop.Quit(); };
    late.on_timer = [this] {
      too_late = true;
      loop.Quit();
    };
  }
  ~Loop() { loop.Close(); }

  void Post(TestChannel& channel) {
    if (channel.ClaimPost()) mailbox.Push(&channel);
  }

  // False when the loop broke, or did not end before the deadline.
  bool Run() {
    loop.Arm(&late, sys::Now() + test::kDeadline);
    const std::error_code error = loop.Run();
    loop.Disarm(&late);
    return !error && !too_late;
  }

  Mailbox mailbox;
  LoopTimes times;
  EventLoop loop;
  TestChannel stop;
  TestChannel late;
  bool too_late = false;
};

// A channel that has an event from the beginning.
struct Ready {
  Ready() {
    channel.Take(UniqueFd(::eventfd(1, EFD_NONBLOCK | EFD_CLOEXEC)));
    REQUIRE(channel.fd().valid());
  }
  void Close(EventLoop& loop) {
    loop.Unwatch(&channel);
    channel.fd().Reset();
  }
  TestChannel channel;
};

TEST_CASE("a turn does events, timers, posts and the retired in this order") {
  Loop l;
  Ready one, two;
  std::vector<std::string> seen;
  const auto on_events = [&](Ready& ready) {
    ready.channel.on_events = [&](std::uint32_t) {
      seen.push_back("events");
      ready.Close(l.loop);
      l.loop.Retire(&ready.channel);
    };
    ready.channel.on_retired = [&] { seen.push_back("retired"); };
    REQUIRE_FALSE(l.loop.Watch(&ready.channel, EPOLLIN));
  };
  on_events(one);
  on_events(two);
  TestChannel timer, posted;
  timer.on_timer = [&] { seen.push_back("timer"); };
  posted.on_posted = [&] {
    seen.push_back("posted");
    l.loop.Quit();  // the turn goes on to its end
  };
  l.loop.Arm(&timer, sys::Now());
  l.Post(posted);
  REQUIRE(l.Run());
  CHECK(seen ==
        std::vector<std::string>{"events", "events", "timer", "posted", "retired", "retired"});
}

TEST_CASE("what is posted in a turn has its turn in it, unless it was posted by a post") {
  Loop l;
  Ready ready;
  std::vector<std::string> seen;
  TestChannel first, second;
  ready.channel.on_events = [&](std::uint32_t) {
    seen.push_back("events");
    l.Post(first);
    if (seen.size() > 3) l.loop.Quit();
  };
  first.on_posted = [&] {
    seen.push_back("first");
    l.Post(second);
  };
  second.on_posted = [&] { seen.push_back("second"); };
  REQUIRE_FALSE(l.loop.Watch(&ready.channel, EPOLLIN));
  REQUIRE(l.Run());
  REQUIRE(seen.size() >= 5);
  seen.resize(5);
  CHECK(seen == std::vector<std::string>{"events", "first", "events", "second", "first"});
  l.loop.Unwatch(&ready.channel);
}

TEST_CASE("an event for a channel that closed in the same batch reaches nobody", "[F8]") {
  Loop l;
  Pair one, two, fresh;
  TestChannel a, b, late;
  REQUIRE(::write(one.peer.get(), "x", 1) == 1);
  REQUIRE(::write(two.peer.get(), "x", 1) == 1);
  a.Take(std::move(one.ours));
  b.Take(std::move(two.ours));
  int events = 0;
  int late_events = 0;
  int number = -1;
  late.on_events = [&](std::uint32_t) { ++late_events; };
  // Whichever comes first closes the other, and its number is in use again at once, watched for
  // the same.
  const auto close_other = [&](TestChannel& other) {
    if (++events > 1) return;
    number = other.fd().get();
    l.loop.Unwatch(&other);
    other.fd().Reset();
    late.Take(UniqueFd(::fcntl(fresh.ours.get(), F_DUPFD_CLOEXEC, number)));
    if (!l.loop.Watch(&late, EPOLLIN)) l.Post(l.stop);
  };
  a.on_events = [&](std::uint32_t) { close_other(b); };
  b.on_events = [&](std::uint32_t) { close_other(a); };
  REQUIRE_FALSE(l.loop.Watch(&a, EPOLLIN));
  REQUIRE_FALSE(l.loop.Watch(&b, EPOLLIN));
  REQUIRE(l.Run());
  CHECK(events == 1);
  CHECK(late_events == 0);
  CHECK(late.fd().get() == number);
  for (TestChannel* channel : {&a, &b, &late}) l.loop.Unwatch(channel);
}

TEST_CASE("a channel retired by an earlier event is there until its batch is over", "[F8]") {
  // The retired one deletes itself; the address sanitizer sees who touches it later.
  constexpr std::size_t kChannels = 8;
  Loop l;
  std::array<std::unique_ptr<Ready>, kChannels> all;
  std::size_t events = 0;
  std::size_t retired = 0;
  std::size_t retired_at_event = 0;
  for (std::unique_ptr<Ready>& mine : all) {
    mine = std::make_unique<Ready>();
    mine->channel.on_events = [&](std::uint32_t) {
      retired_at_event += retired;
      ++events;
      for (std::unique_ptr<Ready>& other : all) {
        if (other == mine) continue;
        other->Close(l.loop);
        l.loop.Retire(&other->channel);
      }
      l.Post(l.stop);
    };
    mine->channel.on_retired = [&] {
      ++retired;
      mine.reset();
    };
    REQUIRE_FALSE(l.loop.Watch(&mine->channel, EPOLLIN));
  }
  REQUIRE(l.Run());
  CHECK(events == 1);
  CHECK(retired_at_event == 0);
  CHECK(retired == kChannels - 1);
  for (std::unique_ptr<Ready>& left : all) {
    if (left != nullptr) left->Close(l.loop);
  }
}

TEST_CASE("whoever is retired while others retire leaves in the same turn") {
  Loop l;
  TestChannel first, second;
  int retired = 0;
  first.on_retired = [&] {
    ++retired;
    l.loop.Retire(&second);
  };
  second.on_retired = [&] { ++retired; };
  l.stop.on_posted = [&] {
    l.loop.Retire(&first);
    l.loop.Quit();
  };
  l.Post(l.stop);
  REQUIRE(l.Run());
  CHECK(retired == 2);
}

TEST_CASE("timers fire in their order, none before its time", "[R8]") {
  Loop l;
  std::vector<int> seen;
  std::array<TestChannel, 3> timers;
  bool early = false;
  const auto begin = sys::Now();
  for (int i = 0; i < 3; ++i) {
    const auto due = begin + milliseconds(30 - 10 * i);
    TestChannel& timer = timers[static_cast<std::size_t>(i)];
    timer.on_timer = [&, i, due] {
      seen.push_back(i);
      early = early || sys::Now() < due;
      if (seen.size() == timers.size()) l.loop.Quit();
    };
    l.loop.Arm(&timer, due);
  }
  REQUIRE(l.Run());
  CHECK(seen == std::vector<int>{2, 1, 0});
  CHECK_FALSE(early);
}

TEST_CASE("arming no later than a time keeps an earlier one") {
  Loop l;
  TestChannel channel;
  const auto begin = sys::Now();
  int fired = 0;
  channel.on_timer = [&] {
    ++fired;
    l.loop.Quit();
  };
  l.loop.ArmNoLaterThan(&channel, begin + std::chrono::hours(1));
  l.loop.ArmNoLaterThan(&channel, begin);
  l.loop.ArmNoLaterThan(&channel, begin + std::chrono::hours(1));
  REQUIRE(l.Run());
  CHECK(fired == 1);
}

TEST_CASE("posts that never end do not keep events and timers from their turn", "[R9]") {
  Loop l;
  Ready ready;
  std::atomic<bool> over{false};
  int own_posts = 0;
  int posts_before_event = -1;
  int posts_before_timer = -1;
  TestChannel own, timer;
  std::deque<TestChannel> others(4);
  // A post that posts itself, and threads that post without pause.
  own.on_posted = [&] {
    if (++own_posts < 1'000'000) l.Post(own);
  };
  ready.channel.on_events = [&](std::uint32_t) {
    posts_before_event = own_posts;
    l.loop.Unwatch(&ready.channel);
    l.loop.Arm(&timer, sys::Now());
  };
  timer.on_timer = [&] {
    posts_before_timer = own_posts;
    l.loop.Quit();
  };
  REQUIRE_FALSE(l.loop.Watch(&ready.channel, EPOLLIN));
  l.Post(own);
  std::vector<std::thread> threads;
  for (TestChannel& other : others) {
    threads.emplace_back([&] {
      while (!over) l.Post(other);
    });
  }
  const bool good = l.Run();
  over = true;
  for (std::thread& thread : threads) thread.join();
  CHECK(good);
  CHECK(posts_before_event == 0);
  CHECK(posts_before_timer == 0);
  l.loop.RunBroken([] {});  // takes out what is posted still
}

TEST_CASE("events that never end do not keep timers and posts from their turn", "[R9]") {
  Loop l;
  Ready ready;
  int events = 0;
  TestChannel timer;
  ready.channel.on_events = [&](std::uint32_t) { ++events; };
  timer.on_timer = [&] { l.Post(l.stop); };
  l.loop.Arm(&timer, sys::Now());
  REQUIRE_FALSE(l.loop.Watch(&ready.channel, EPOLLIN));
  REQUIRE(l.Run());
  CHECK(events == 1);
  l.loop.Unwatch(&ready.channel);
}

TEST_CASE("among more ready channels than a batch holds none is left out", "[R9]") {
  constexpr std::size_t kChannels = 700;
  Loop l;
  std::deque<Ready> all(kChannels);
  std::vector<int> events(kChannels);
  std::size_t met = 0;
  std::size_t most = 0;
  for (std::size_t i = 0; i < kChannels; ++i) {
    all[i].channel.on_events = [&, i](std::uint32_t) {
      met += events[i]++ == 0;
      most = std::max<std::size_t>(most, static_cast<std::size_t>(events[i]));
      if (met == kChannels) l.loop.Quit();
    };
    REQUIRE_FALSE(l.loop.Watch(&all[i].channel, EPOLLIN));
  }
  REQUIRE(l.Run());
  CHECK(met == kChannels);
  CHECK(most <= 2);
  for (Ready& each : all) each.Close(l.loop);
}

TEST_CASE("a post from another thread ends the sleep", "[B6]") {
  Loop l;
  std::thread poster([&] { l.Post(l.stop); });
  const bool good = l.Run();
  poster.join();
  CHECK(good);
}

TEST_CASE("inside the loop is inside a callback, and on its thread", "[M26]") {
  Loop l;
  Mailbox other;
  CHECK_FALSE(EventLoop::IsCurrent(l.mailbox));
  bool current = false;
  bool current_other = true;
  bool inside = false;
  l.stop.on_posted = [&] {
    current = EventLoop::IsCurrent(l.mailbox);
    current_other = EventLoop::IsCurrent(other);
    inside = InsideCallback();
    l.loop.Quit();
  };
  l.Post(l.stop);
  REQUIRE(l.Run());
  CHECK(current);
  CHECK_FALSE(current_other);
  CHECK(inside);
  CHECK_FALSE(EventLoop::IsCurrent(l.mailbox));
  CHECK_FALSE(InsideCallback());
}

TEST_CASE("watching again what is watched changes nothing, and brings back what was unwatched") {
  Loop l;
  Pair pair;
  TestChannel channel;
  channel.Take(std::move(pair.ours));
  std::vector<std::uint32_t> seen;
  channel.on_events = [&](std::uint32_t events) {
    seen.push_back(events);
    // Of interest no more, but still watched.
    if (!l.loop.Rewatch(&channel, 0)) l.Post(l.stop);
  };
  REQUIRE_FALSE(l.loop.Rewatch(&channel, EPOLLIN));
  REQUIRE_FALSE(l.loop.Rewatch(&channel, EPOLLIN));
  l.loop.Unwatch(&channel);
  l.loop.Unwatch(&channel);
  REQUIRE_FALSE(l.loop.Rewatch(&channel, EPOLLIN | EPOLLOUT));
  REQUIRE(::write(pair.peer.get(), "x", 1) == 1);
  REQUIRE(l.Run());
  CHECK(seen == std::vector<std::uint32_t>{EPOLLIN | EPOLLOUT});
  l.loop.Unwatch(&channel);
}

TEST_CASE("what cannot be watched is an error, and not watched", "[F2]") {
  Loop l;
  TestChannel channel;
  const std::error_code bad(EBADF, std::system_category());
  CHECK(l.loop.Watch(&channel, EPOLLIN) == bad);
  CHECK(l.loop.Rewatch(&channel, EPOLLIN) == bad);
  Pair pair;
  channel.Take(std::move(pair.ours));
  REQUIRE_FALSE(l.loop.Rewatch(&channel, EPOLLIN));
  l.loop.Unwatch(&channel);
}

TEST_CASE("a loop that is broken serves posts and the retired once more", "[F2]") {
  Loop l;
  std::vector<std::string> seen;
  TestChannel channel;
  channel.on_posted = [&] {
    seen.push_back("posted");
    l.loop.Retire(&channel);
  };
  channel.on_retired = [&] { seen.push_back("retired"); };
  l.Post(channel);
  bool inside = false;
  l.loop.RunBroken([&] {
    seen.push_back("body");
    inside = EventLoop::IsCurrent(l.mailbox) && InsideCallback();
  });
  CHECK(seen == std::vector<std::string>{"body", "posted", "retired"});
  CHECK(inside);
}

}  // namespace
}  // namespace xtcp::internal
