#include "reactor/poller.h"

#include <fcntl.h>
#include <sys/socket.h>
#include <unistd.h>

#include <array>
#include <catch2/catch.hpp>
#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <set>
#include <system_error>
#include <utility>
#include <vector>

namespace xtcp::internal {
namespace {

// A pair of connected sockets; its address is its mark.
struct Pair {
  Pair() {
    std::array<int, 2> fds;
    REQUIRE(::socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, fds.data()) == 0);
    ours = UniqueFd(fds[0]);
    peer = UniqueFd(fds[1]);
  }
  void Write() { REQUIRE(::write(peer.get(), "x", 1) == 1); }
  UniqueFd ours;
  UniqueFd peer;
};

struct Event {
  void* mark;
  std::uint32_t events;
};

struct Polling {
  Polling() { REQUIRE_FALSE(poller.Open()); }

  // What is ready now, at most `most`.
  std::vector<Event> Ready(std::size_t most = 16) {
    std::vector<epoll_event> events(most);
    std::error_code error;
    const int count = poller.Wait(events, 0, &error);
    REQUIRE(count >= 0);
    REQUIRE_FALSE(error);
    events.resize(static_cast<std::size_t>(count));
    std::vector<Event> ready;
    for (const epoll_event& event : events) ready.push_back({event.data.ptr, event.events});
    return ready;
  }

  Poller poller;
};

TEST_CASE("an event carries its descriptor's mark") {
  Polling p;
  Pair one, two;
  REQUIRE_FALSE(p.poller.Add(one.ours.get(), EPOLLIN, &one));
  REQUIRE_FALSE(p.poller.Add(two.ours.get(), EPOLLIN, &two));
  CHECK(p.Ready().empty());
  two.Write();
  const std::vector<Event> ready = p.Ready();
  REQUIRE(ready.size() == 1);
  CHECK(ready.front().mark == &two);
  CHECK(ready.front().events == EPOLLIN);
}

TEST_CASE("an event is told until it is dealt with") {
  Polling p;
  Pair pair;
  pair.Write();
  REQUIRE_FALSE(p.poller.Add(pair.ours.get(), EPOLLIN, &pair));
  CHECK(p.Ready().size() == 1);
  CHECK(p.Ready().size() == 1);
  char byte;
  REQUIRE(::read(pair.ours.get(), &byte, 1) == 1);
  CHECK(p.Ready().empty());
}

TEST_CASE("interest and mark can be changed; hang-up cannot be masked") {
  Polling p;
  Pair pair;
  int other = 0;
  REQUIRE_FALSE(p.poller.Add(pair.ours.get(), 0, &pair));
  pair.Write();
  CHECK(p.Ready().empty());
  REQUIRE_FALSE(p.poller.Modify(pair.ours.get(), EPOLLIN | EPOLLOUT, &other));
  const std::vector<Event> ready = p.Ready();
  REQUIRE(ready.size() == 1);
  CHECK(ready.front().mark == &other);
  CHECK(ready.front().events == (EPOLLIN | EPOLLOUT));
  REQUIRE_FALSE(p.poller.Modify(pair.ours.get(), 0, &other));
  CHECK(p.Ready().empty());
  pair.peer.Reset();
  REQUIRE(p.Ready().size() == 1);
  CHECK(p.Ready().front().events == EPOLLHUP);
}

TEST_CASE("what was removed is told no more, and can be removed again, and added again") {
  Polling p;
  Pair pair;
  pair.Write();
  REQUIRE_FALSE(p.poller.Add(pair.ours.get(), EPOLLIN, &pair));
  p.poller.Remove(pair.ours.get());
  CHECK(p.Ready().empty());
  p.poller.Remove(pair.ours.get());
  p.poller.Remove(-1);
  REQUIRE_FALSE(p.poller.Add(pair.ours.get(), EPOLLIN, &pair));
  CHECK(p.Ready().size() == 1);
}

TEST_CASE("errors are values", "[F2]") {
  Polling p;
  Pair pair;
  const auto system = [](int code) { return std::error_code(code, std::system_category()); };
  CHECK(p.poller.Add(-1, EPOLLIN, &pair) == system(EBADF));
  CHECK(p.poller.Modify(pair.ours.get(), EPOLLIN, &pair) == system(ENOENT));
  REQUIRE_FALSE(p.poller.Add(pair.ours.get(), EPOLLIN, &pair));
  CHECK(p.poller.Add(pair.ours.get(), EPOLLIN, &pair) == system(EEXIST));
  const UniqueFd file(::open("/proc/self/exe", O_RDONLY | O_CLOEXEC));
  REQUIRE(file.valid());
  CHECK(p.poller.Add(file.get(), EPOLLIN, &pair) == system(EPERM));
  p.poller.Close();
  std::array<epoll_event, 1> events;
  std::error_code error;
  CHECK(p.poller.Wait(events, 0, &error) == -1);
  CHECK(error == system(EBADF));
}

TEST_CASE("more ready descriptors than there is room for are told in turns", "[R9]") {
  Polling p;
  std::vector<Pair> pairs(20);
  for (Pair& pair : pairs) {
    pair.Write();
    REQUIRE_FALSE(p.poller.Add(pair.ours.get(), EPOLLIN, &pair));
  }
  std::set<void*> told;
  for (int i = 0; i < 3; ++i) {
    const std::vector<Event> ready = p.Ready(8);
    CHECK(ready.size() == 8);
    for (const Event& event : ready) told.insert(event.mark);
  }
  CHECK(told.size() == pairs.size());
}

}  // namespace
}  // namespace xtcp::internal
