// Tasks of a loop, and the type itself.

#include <xtcp/xtcp.h>

#include <array>
#include <atomic>
#include <catch2/catch.hpp>
#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <stdexcept>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "support/alloc_hook.h"
#include "support/fault_control.h"
#include "support/log_lines.h"
#include "support/raw_peer.h"
#include "support/test_group.h"

namespace xtcp::test {
namespace {

using namespace std::chrono_literals;

TEST_CASE("a task owns what it captures, and is called once where it is", "[M46]") {
  auto owned = std::make_unique<int>(5);
  int seen = 0;
  Task task([&seen, owned = std::move(owned)] { seen += *owned; });
  REQUIRE(task);
  Task moved(std::move(task));
  REQUIRE_FALSE(task);
  REQUIRE(moved);
  moved();
  REQUIRE(seen == 5);
  const auto shared = std::make_shared<int>(1);
  Task other([&seen, shared] { seen += *shared; });
  moved = std::move(other);
  REQUIRE_FALSE(other);
  REQUIRE(shared.use_count() == 2);
  moved();
  REQUIRE(seen == 6);
  moved = Task();
  REQUIRE(shared.use_count() == 1);
  REQUIRE_FALSE(moved);
  REQUIRE_FALSE(Task());
}

TEST_CASE("a large task keeps its captures on the heap, a small one in itself", "[M46]") {
  std::array<char, 200> large{};
  large[199] = 'x';
  char seen = 0;
  std::uint64_t before = Allocations();
  Task big([large, &seen] { seen = large[199]; });
  REQUIRE(Allocations() - before >= 1);
  before = Allocations();
  Task moved(std::move(big));
  moved();
  std::array<char, 40> small{};
  Task little([small, &seen] { seen = small[0]; });
  const std::uint64_t allocated = Allocations() - before;
  REQUIRE(allocated == 0);
  REQUIRE(seen == 'x');
}

TEST_CASE("tasks run once, in order, on the loop's thread, outside connections' callbacks",
          "[M46]") {
  const std::size_t loops = GENERATE(1, 2);
  TestGroup group(loops);
  constexpr int kThreads = 4, kEach = 3000;
  const Loop loop = group.loop(loops - 1);
  std::thread::id loop_thread;
  REQUIRE(group.On(loop, [&] { loop_thread = std::this_thread::get_id(); }));
  // The loop's own: no lock.
  std::array<std::vector<int>, kThreads> ran;
  int elsewhere = 0;
  std::vector<std::thread> posters;
  std::atomic<int> refused{0};
  for (std::size_t t = 0; t < kThreads; ++t) {
    posters.emplace_back([&, t] {
      for (int i = 0; i < kEach; ++i) {
        if (loop.Post([&, t, i] {
              ran[t].push_back(i);
              if (std::this_thread::get_id() != loop_thread) ++elsewhere;
            })) {
          ++refused;
        }
      }
    });
  }
  for (std::thread& poster : posters) poster.join();
  REQUIRE(group.On(loop, [] {}));
  REQUIRE(group.Finish() == "");
  REQUIRE(refused == 0);
  REQUIRE(elsewhere == 0);
  for (const std::vector<int>& of_thread : ran) {
    REQUIRE(of_thread.size() == kEach);
    REQUIRE(std::is_sorted(of_thread.begin(), of_thread.end()));
  }
  REQUIRE(loop.Stats().tasks >= kThreads * kEach);
}

TEST_CASE("a task may be posted with locks held that it takes itself", "[M46][M27]") {
  TestGroup group;
  std::mutex mutex;
  int runs = 0;
  for (int i = 0; i < 100; ++i) {
    std::lock_guard lock(mutex);
    REQUIRE_FALSE(group.loop().Post([&] {
      std::lock_guard inside(mutex);
      ++runs;
    }));
  }
  REQUIRE(group.On([] {}));
  REQUIRE(runs == 100);
  REQUIRE(group.Finish() == "");
}

TEST_CASE("a turn runs at most 1,024 tasks, so that they keep nobody out", "[M46][R9]") {
  const FaultPlan no_faults;
  TestGroup group;
  auto events = std::make_shared<EventRecorder>();
  int ran = 0, ran_at_recv = -1, ran_at_timer = -1;
  Timer timer;
  events->on_recv = [&](const ConnPtr&, std::string_view) { ran_at_recv = ran; };
  const auto server = StartServer(*group, events);
  RawPeer peer(AddressOf(*server));
  REQUIRE(events->WaitForAccepted(1));
  bool sent = false;
  REQUIRE(group.On([&] {
    // On the loop's own thread, so that all of them are there when it looks.
    for (int i = 0; i < 5000; ++i) {
      if (group.loop().Post([&, i] {
            ++ran;
            if (i != 0) return;
            sent = peer.SendAll(Frame("x"));
            timer = group.loop().RunAfter(0ms, [&] { ran_at_timer = ran; });
          })) {
        return;
      }
    }
  }));
  REQUIRE(events->WaitForPackets(1));
  REQUIRE(group.On([] {}));
  REQUIRE(sent);
  REQUIRE(ran == 5000);
  REQUIRE(ran_at_recv == 1024);
  REQUIRE(ran_at_timer >= 1024);
  REQUIRE(ran_at_timer <= 2048);
  REQUIRE(group.On([&] { timer = Timer(); }));
  REQUIRE(group.Finish() == "");
  REQUIRE(events->Verify() == "");
}

TEST_CASE("a task that posts itself again keeps nobody out", "[M46][R9]") {
  TestGroup group;
  auto events = std::make_shared<EventRecorder>();
  events->on_recv = Echo;
  const auto server = StartServer(*group, events);
  RawPeer peer(AddressOf(*server));
  REQUIRE(events->WaitForAccepted(1));
  std::atomic<bool> over{false};
  std::uint64_t runs = 0;
  std::function<void()> again = [&] {
    ++runs;
    if (!over) static_cast<void>(group.loop().Post([&] { again(); }));
  };
  REQUIRE_FALSE(group.loop().Post([&] { again(); }));
  for (int i = 0; i < 50; ++i) {
    REQUIRE(peer.SendAll(Frame("x")));
    REQUIRE(peer.ReadFrame() == "x");
  }
  // One run a turn: what was posted after the look comes in the next.
  std::uint64_t turns_then = 0, runs_then = 0, turns = 0;
  REQUIRE(group.On([&] {
    turns_then = group.loop().Stats().turns;
    runs_then = runs;
  }));
  REQUIRE(WaitUntil([&] { return group.loop().Stats().turns > turns_then + 1000; }));
  REQUIRE(group.On([&] {
    turns = group.loop().Stats().turns - turns_then;
    runs_then = runs - runs_then;
  }));
  REQUIRE(runs_then <= turns + 2);
  over = true;
  REQUIRE(group.On([] {}));
  REQUIRE(group.Finish() == "");
  REQUIRE(events->Verify() == "");
}

TEST_CASE("a task that did not run is destroyed on its loop's thread, before Run returns",
          "[M46][M41]") {
  const std::size_t loops = GENERATE(1, 2);
  TestGroup group(loops);
  const Loop loop = group.loop(loops - 1);
  std::thread::id loop_thread;
  Signal begins, goes_on;
  REQUIRE(group.On(loop, [&] { loop_thread = std::this_thread::get_id(); }));
  std::atomic<int> destroyed{0}, elsewhere{0}, waited{0};
  std::size_t ran = 0;
  REQUIRE_FALSE(loop.Post([&] {
    begins.Set();
    goes_on.Wait();
    throw std::runtime_error("and this one throws");
  }));
  REQUIRE(begins.Wait());
  static_cast<void>(group->Stop(StopMode::kImmediately));
  std::size_t accepted = 0;
  LoopGroup idle;
  for (int i = 0; i < 3000; ++i) {
    std::shared_ptr<void> probe(nullptr, [&](void*) {
      ++destroyed;
      if (std::this_thread::get_id() != loop_thread) ++elsewhere;
      if (idle.Run() == Errc::kWouldDeadlock) ++waited;  // inside a callback
    });
    if (!loop.Post([&ran, probe = std::move(probe)] { ++ran; })) ++accepted;
  }
  REQUIRE(accepted == 3000);
  goes_on.Set();
  REQUIRE(group.WaitForEnd());
  REQUIRE(destroyed == 3000);
  REQUIRE(elsewhere == 0);
  REQUIRE(waited == 3000);
  REQUIRE(ran < 3000);
  // One that is refused is destroyed before the call returns.
  const auto probe = std::make_shared<int>();
  REQUIRE(loop.Post([probe] {}) == Errc::kStopped);
  REQUIRE(probe.use_count() == 1);
  REQUIRE(Loop().Post([probe] {}) == Errc::kNoLoop);
  REQUIRE(probe.use_count() == 1);
  REQUIRE(group.Finish() == "");
}

TEST_CASE("where nothing ever ran, a task is destroyed with its group", "[M46]") {
  const auto probe = std::make_shared<int>();
  {
    LoopGroup group(2);
    REQUIRE_FALSE(group[1].Post([probe] {}));
    REQUIRE(group[1].RunAfter(1ms, [probe] {}).armed());
    Timer kept = group[1].RunEvery(1ms, [probe] {});
    REQUIRE(probe.use_count() >= 3);
  }
  REQUIRE(probe.use_count() == 1);
}

TEST_CASE("an exception from a task is logged and counted, and the loop goes on", "[M49][M38]") {
  const LogLines lines;
  TestGroup group;
  REQUIRE_FALSE(group.loop().Post([] { throw std::runtime_error("from a task"); }));
  REQUIRE_FALSE(group.loop().Post([] { throw 42; }));
  Tally runs;
  const Timer every = group.loop().RunEvery(1ms, [&] {
    runs.Add();
    throw std::runtime_error("from a timer");
  });
  group.loop().RunAfter(0ms, [] { throw std::runtime_error("from another one"); }).Detach();
  REQUIRE(runs.WaitFor(3));
  REQUIRE(group.On([] {}));
  REQUIRE(lines.With("from a task") == 1);
  REQUIRE(lines.With("from a timer") >= 3);
  REQUIRE(lines.With("from another one") == 1);
  REQUIRE(group.loop().Stats().exceptions >= 6);
  REQUIRE(group.Finish() == "");
}

TEST_CASE("a post without memory says so, and the loop goes on", "[M46][F4]") {
  TestGroup group;
  bool refused = false;
  // The queue grows by doubling: at some post it needs memory.
  REQUIRE(group.On([&] {
    const NoMemory none;
    for (int i = 0; i < 10'000 && !refused; ++i)
      refused = group.loop().Post([] {}) == Errc::kNoMemory;
  }));
  REQUIRE(refused);
  bool empty = false;
  REQUIRE(group.On([&] {
    const NoMemory none;
    empty = !group.loop().RunAfter(1ms, [] {}).armed();
  }));
  REQUIRE(empty);
  REQUIRE(group.On([] {}));
  REQUIRE(group.Finish() == "");
}

TEST_CASE("a burst of posts to a loop that is warm allocates nothing", "[M46]") {
  TestGroup group;
  // Each burst is posted by the last task of the one before, so that it gathers in the other one of
  // the queue's two vectors: after two of them both are warm.
  constexpr int kBursts = 4;
  std::vector<std::uint64_t> allocated;
  allocated.reserve(kBursts);
  Signal done;
  std::function<void()> burst = [&] {
    const std::uint64_t before = Allocations();
    for (int i = 0; i < 999; ++i) static_cast<void>(group.loop().Post([] {}));
    const bool last = allocated.size() + 1 == kBursts;
    static_cast<void>(group.loop().Post([&, last] { last ? done.Set() : burst(); }));
    allocated.push_back(Allocations() - before);
  };
  REQUIRE_FALSE(group.loop().Post([&] { burst(); }));
  REQUIRE(done.Wait());
  REQUIRE(allocated.size() == kBursts);
  REQUIRE(allocated[0] > 0);
  REQUIRE(allocated[2] == 0);
  REQUIRE(allocated[3] == 0);
  REQUIRE(group.Finish() == "");
}

TEST_CASE("handles of loops are values", "[M45]") {
  const Loop empty;
  REQUIRE(empty == Loop());
  REQUIRE(empty.index() == 0);
  REQUIRE_FALSE(empty.IsCurrent());
  REQUIRE_FALSE(empty.RunAfter(1ms, [] {}).armed());
  REQUIRE_FALSE(empty.RunEvery(1ms, [] {}).armed());
  REQUIRE(empty.Stats().turns == 0);
  LoopGroup group(3);
  REQUIRE(group.size() == 3);
  REQUIRE(group[0] == group[0]);
  REQUIRE_FALSE(group[0] == group[1]);
  REQUIRE(group[2].index() == 2);
  std::array<int, 3> seen{};
  for (int i = 0; i < 9; ++i) ++seen.at(group.Next().index());
  REQUIRE(seen == std::array<int, 3>{3, 3, 3});
  REQUIRE(LoopGroup(0).size() >= 1);
  REQUIRE_THROWS_AS(LoopGroup(1025), std::invalid_argument);
}

}  // namespace
}  // namespace xtcp::test
