#include "reactor/mailbox.h"

#include <poll.h>
#include <unistd.h>

#include <atomic>
#include <catch2/catch.hpp>
#include <cstdint>
#include <deque>
#include <thread>
#include <vector>

#include "unit/reactor/test_channel.h"

namespace xtcp::internal {
namespace {

void Post(Mailbox& mailbox, TestChannel& channel) {
  if (channel.ClaimPost()) mailbox.Push(&channel);
}

std::vector<Channel*> TakeAll(Mailbox& mailbox) {
  std::vector<Channel*> taken;
  for (Channel* channel = mailbox.TakeAll(); channel != nullptr;) {
    taken.push_back(channel);
    channel = Mailbox::Next(channel);
  }
  return taken;
}

// How often the eventfd was written since the last time.
std::uint64_t Writes(const Mailbox& mailbox) {
  std::uint64_t count = 0;
  return ::read(mailbox.fd(), &count, sizeof count) == sizeof count ? count : 0;
}

TEST_CASE("posts come out oldest first, each channel once") {
  Mailbox mailbox;
  TestChannel a, b, c;
  Post(mailbox, a);
  Post(mailbox, b);
  Post(mailbox, a);
  Post(mailbox, c);
  CHECK(TakeAll(mailbox) == std::vector<Channel*>{&a, &b, &c});
  CHECK(TakeAll(mailbox).empty());
  CHECK_FALSE(a.posted());
  Post(mailbox, a);
  CHECK(TakeAll(mailbox) == std::vector<Channel*>{&a});
}

TEST_CASE("only a sleeping loop is woken, and once", "[B6][M13]") {
  Mailbox mailbox;
  REQUIRE_FALSE(mailbox.Open());
  std::deque<TestChannel> channels(8);
  SECTION("awake") {
    for (TestChannel& channel : channels) Post(mailbox, channel);
    CHECK(Writes(mailbox) == 0);
    CHECK_FALSE(mailbox.AboutToSleep());  // it must look first
  }
  SECTION("asleep, a burst from eight threads") {
    REQUIRE(mailbox.AboutToSleep());
    std::vector<std::thread> threads;
    for (TestChannel& channel : channels) {
      threads.emplace_back([&] { Post(mailbox, channel); });
    }
    for (std::thread& thread : threads) thread.join();
    CHECK(Writes(mailbox) == 1);
    mailbox.Awake();
  }
  CHECK(TakeAll(mailbox).size() == channels.size());
  mailbox.Close();
}

TEST_CASE("no post is lost between looking and sleeping", "[B6]") {
  constexpr int kRounds = 30'000;
  Mailbox mailbox;
  REQUIRE_FALSE(mailbox.Open());
  TestChannel channel;
  std::atomic<int> wanted{0};
  std::atomic<int> done{0};
  std::thread poster([&] {
    for (int i = 1; i <= kRounds; ++i) {
      wanted = i;
      Post(mailbox, channel);
      while (done.load() < i) std::this_thread::yield();
    }
  });
  bool lost = false;
  while (done.load() < kRounds && !lost) {
    if (mailbox.AboutToSleep()) {
      pollfd entry{.fd = mailbox.fd(), .events = POLLIN, .revents = 0};
      lost = ::poll(&entry, 1, 10'000) == 0;
      Writes(mailbox);
      mailbox.Awake();
    }
    if (!TakeAll(mailbox).empty()) done = wanted.load();
  }
  if (lost) done = kRounds;
  poster.join();
  TakeAll(mailbox);
  mailbox.Close();
  CHECK_FALSE(lost);
}

TEST_CASE("a closed mailbox is posted to without touching its descriptor") {
  Mailbox mailbox;
  REQUIRE_FALSE(mailbox.Open());
  REQUIRE(mailbox.AboutToSleep());
  mailbox.Close();
  CHECK(mailbox.fd() == -1);
  TestChannel channel;
  Post(mailbox, channel);
  CHECK(TakeAll(mailbox).size() == 1);
}

}  // namespace
}  // namespace xtcp::internal
