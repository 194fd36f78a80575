#include "reactor/event_loop.h"

#include <fcntl.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <array>
#include <catch2/catch.hpp>
#include <chrono>
#include <string>
#include <vector>

#include "base/callback_scope.h"
#include "socket/syscalls.h"
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
  Loop() : loop(mailbox) {
    REQUIRE_FALSE(loop.Open());
    loop.ReserveTimers(10);
    stop.on_posted = [this] { loop.Quit(); };
    stop.on_timer = [this] { loop.Quit(); };
  }
  ~Loop() { loop.Close(); }
  void Post(TestChannel& channel) {
    if (channel.ClaimPost()) mailbox.Push(&channel);
  }
  Mailbox mailbox;
  EventLoop loop;
  TestChannel stop;
};

TEST_CASE("a turn does events, timers, posts and the retired in this order") {
  Loop l;
  Pair pair;
  TestChannel channel;
  channel.Take(std::move(pair.ours));
  std::vector<std::string> seen;
  channel.on_events = [&](std::uint32_t) {
    seen.push_back("events");
    l.loop.Unwatch(&channel);
    l.Post(channel);
    l.loop.Retire(&channel);
  };
  channel.on_timer = [&] { seen.push_back("timer"); };
  channel.on_posted = [&] { seen.push_back("posted"); };
  channel.on_retired = [&] {
    seen.push_back("retired");
    l.Post(l.stop);
  };
  REQUIRE(::write(pair.peer.get(), "x", 1) == 1);
  REQUIRE_FALSE(l.loop.Watch(&channel, EPOLLIN));
  l.loop.Arm(&channel, sys::Now());
  REQUIRE_FALSE(l.loop.Run());
  CHECK(seen == std::vector<std::string>{"events", "timer", "posted", "retired"});
}

TEST_CASE("an event for a channel that closed in the same batch reaches nobody", "[F8]") {
  Loop l;
  Pair one, two;
  TestChannel a, b, late;
  a.Take(std::move(one.ours));
  b.Take(std::move(two.ours));
  REQUIRE(::write(one.peer.get(), "x", 1) == 1);
  REQUIRE(::write(two.peer.get(), "x", 1) == 1);
  int events = 0;
  int late_events = 0;
  late.on_events = [&](std::uint32_t) { ++late_events; };
  // Whichever comes first closes the other, and its number is in use again at once.
  const auto close_other = [&](TestChannel& other) {
    ++events;
    if (!other.fd().valid()) return;
    const int number = other.fd().get();
    l.loop.Unwatch(&other);
    other.fd().Reset();
    const int reused = ::fcntl(l.mailbox.fd(), F_DUPFD_CLOEXEC, number);
    Pair fresh;
    ::close(reused);
    REQUIRE(::dup3(fresh.ours.get(), number, O_CLOEXEC) == number);
    late.Take(UniqueFd(number));
    REQUIRE_FALSE(l.loop.Watch(&late, EPOLLIN));
    l.Post(l.stop);
  };
  a.on_events = [&](std::uint32_t) { close_other(b); };
  b.on_events = [&](std::uint32_t) { close_other(a); };
  REQUIRE_FALSE(l.loop.Watch(&a, EPOLLIN));
  REQUIRE_FALSE(l.loop.Watch(&b, EPOLLIN));
  REQUIRE_FALSE(l.loop.Run());
  CHECK(events == 1);
  CHECK(late_events <=
        1);  // its own hang-up, if the loop turned once more; never the other's input
  l.loop.Unwatch(&late);
}

TEST_CASE("a timer fires once it is due, after one wait", "[R7][R8]") {
  Loop l;
  int posts = 0;
  TestChannel counter;
  counter.on_timer = [&] { ++posts; };
  const auto begin = sys::Now();
  l.loop.Arm(&l.stop, begin + milliseconds(30));
  REQUIRE_FALSE(l.loop.Run());
  CHECK(sys::Now() - begin >= milliseconds(30));
  CHECK(posts == 0);
}

TEST_CASE("posts that never end do not keep events and timers from their turn", "[R9]") {
  Loop l;
  Pair pair;
  TestChannel flood, channel;
  flood.on_posted = [&] { l.Post(flood); };
  bool event = false;
  channel.Take(std::move(pair.ours));
  channel.on_events = [&](std::uint32_t) {
    event = true;
    l.loop.Unwatch(&channel);
    l.loop.Arm(&l.stop, sys::Now());
  };
  REQUIRE_FALSE(l.loop.Watch(&channel, EPOLLIN));
  REQUIRE(::write(pair.peer.get(), "x", 1) == 1);
  l.Post(flood);
  REQUIRE_FALSE(l.loop.Run());
  CHECK(event);
}

TEST_CASE("inside the loop is inside a callback, and on its thread", "[M26]") {
  Loop l;
  CHECK_FALSE(EventLoop::IsCurrent(l.mailbox));
  bool current = false;
  bool inside = false;
  l.stop.on_posted = [&] {
    current = EventLoop::IsCurrent(l.mailbox);
    inside = InsideCallback();
    l.loop.Quit();
  };
  l.Post(l.stop);
  REQUIRE_FALSE(l.loop.Run());
  CHECK(current);
  CHECK(inside);
  CHECK_FALSE(EventLoop::IsCurrent(l.mailbox));
  CHECK_FALSE(InsideCallback());
}

TEST_CASE("watching again what is watched costs nothing, and brings back what was unwatched") {
  Loop l;
  Pair pair;
  TestChannel channel;
  channel.Take(std::move(pair.ours));
  std::vector<std::uint32_t> seen;
  channel.on_events = [&](std::uint32_t events) {
    seen.push_back(events);
    REQUIRE_FALSE(l.loop.Rewatch(&channel, 0));
    l.Post(l.stop);
  };
  REQUIRE_FALSE(l.loop.Rewatch(&channel, EPOLLIN));
  REQUIRE_FALSE(l.loop.Rewatch(&channel, EPOLLIN));
  l.loop.Unwatch(&channel);
  l.loop.Unwatch(&channel);
  REQUIRE_FALSE(l.loop.Rewatch(&channel, EPOLLIN | EPOLLOUT));
  REQUIRE(::write(pair.peer.get(), "x", 1) == 1);
  REQUIRE_FALSE(l.loop.Run());
  REQUIRE_FALSE(seen.empty());
  CHECK(seen.front() == (EPOLLIN | EPOLLOUT));
  l.loop.Unwatch(&channel);
}

}  // namespace
}  // namespace xtcp::internal
