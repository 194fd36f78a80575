#include "loop/loop_core.h"

#include <xtcp/error.h>

#include <catch2/catch.hpp>
#include <cstddef>
#include <deque>
#include <functional>
#include <memory>
#include <system_error>
#include <utility>
#include <vector>

#include "support/alloc_hook.h"
#include "unit/loop/one_loop.h"

namespace xtcp::internal {
namespace {

// A service that keeps what it was told.
struct TestService final : LoopService {
  void StopByGroup(Stops stops) override {
    told.push_back(stops);
    if (on_stop) on_stop();
  }
  void Abort(std::error_code error) override {
    aborted.push_back(error);
    if (on_abort) on_abort();
  }
  std::vector<Stops> told;
  std::vector<std::error_code> aborted;
  std::function<void()> on_stop;
  std::function<void()> on_abort;
};

// A loop with services, which it loses at the end.
struct Services : OneLoop {
  explicit Services(std::size_t n) : services(n) {
    for (TestService& service : services) core.Attach(service);
  }
  ~Services() {
    for (TestService& service : services) core.Detach(service);
  }
  void Stop(Stops stops) {
    core.NoteStops(stops);
    core.Post();
  }
  std::size_t Told() const {
    std::size_t told = 0;
    for (const TestService& service : services) told += service.told.size();
    return told;
  }
  std::deque<TestService> services;
};

using Told = std::vector<Stops>;

TEST_CASE("a stop of the group is told to each service once", "[M42]") {
  Services s(3);
  s.Stop(Stops::kGraceful);
  s.Run(2);
  s.core.Post();  // for another reason
  s.Run(2);
  for (const TestService& service : s.services) CHECK(service.told == Told{Stops::kGraceful});
}

TEST_CASE("a later stop that is more immediate is told as well", "[M42][S5]") {
  Services s(2);
  s.Stop(Stops::kGraceful);
  s.Run(2);
  s.Stop(Stops::kGracefulThenNow);
  s.Run(2);
  for (const TestService& service : s.services) {
    CHECK(service.told == Told{Stops::kGraceful, Stops::kGracefulThenNow});
  }
}

TEST_CASE("a stop is told to 1,024 services in an iteration, and to all in the end",
          "[M42][R9][X5]") {
  Services s(2500);
  s.Stop(Stops::kNow);
  for (const std::size_t expected : {1024u, 2048u, 2500u, 2500u}) {
    s.Run();
    CHECK(s.Told() == expected);
  }
}

TEST_CASE("a stop that overtakes another one is told to every service last", "[M42][S5]") {
  Services s(1500);
  s.Stop(Stops::kGraceful);
  s.Run();
  s.Stop(Stops::kGracefulThenNow);
  s.Run(3);
  bool good = true;
  for (const TestService& service : s.services) {
    good = good && service.told.back() == Stops::kGracefulThenNow;
  }
  CHECK(good);
}

TEST_CASE("a service may leave while it is told, and others with it", "[M42][M45]") {
  Services s(4);
  // The list begins with the last one that was attached.
  s.services[3].on_stop = [&] {
    s.core.Detach(s.services[3]);
    s.core.Detach(s.services[2]);  // it would have been the next
  };
  s.Stop(Stops::kNow);
  s.Run(2);
  CHECK(s.services[2].told.empty());
  CHECK(s.services[1].told == Told{Stops::kNow});
  CHECK(s.services[0].told == Told{Stops::kNow});
}

TEST_CASE("a service leaves once, and may come back", "[M45]") {
  Services s(3);
  s.core.Detach(s.services[1]);
  s.core.Detach(s.services[1]);
  s.Stop(Stops::kGraceful);
  s.Run(2);
  CHECK(s.services[1].told.empty());
  CHECK(s.Told() == 2);
  s.core.Attach(s.services[1]);
  s.Stop(Stops::kGracefulThenNow);
  s.Run(2);
  CHECK(s.services[1].told == Told{Stops::kGracefulThenNow});
}

TEST_CASE("a stop that is noted is seen before the loop has been told", "[M42][M10]") {
  Services s(1);
  s.core.NoteStops(Stops::kGraceful);
  CHECK(s.context->group_stops.load() == Stops::kGraceful);
  CHECK(s.context->mailbox.empty());
  s.Run(2);
  CHECK(s.services[0].told.empty());
}

TEST_CASE("a stop of the group needs no memory", "[S8][M42]") {
  Services s(1);
  bool quits = false;
  s.services[0].told.reserve(1);
  {
    const test::NoMemory none;
    s.Stop(Stops::kNow);
    static_cast<void>(s.core.RunOnce(std::chrono::nanoseconds(0), &quits));
  }
  CHECK(s.Told() == 1);
}

TEST_CASE("a stop of the group ends its timers, and takes tasks on until the end", "[M42][M46]") {
  Services s(1);
  const auto timer = s.context->timers.Start(
      s.context, [] {}, TimerNode::Time::max(), TimerNode::Time{0});
  s.Run();
  s.Stop(Stops::kGraceful);
  s.Run(2);
  CHECK_FALSE(timer->armed());
  bool ran = false;
  REQUIRE_FALSE(s.context->tasks.Push([&] { ran = true; }));
  s.Run();
  CHECK(ran);
  s.core.Detach(s.services[0]);
  s.core.Close();
  CHECK(s.context->tasks.Push([] {}) == Errc::kStopped);
}

TEST_CASE("a loop that gets no thread aborts its services until they have left", "[M41][M34]") {
  Services s(2);
  const std::error_code error = std::make_error_code(std::errc::too_many_files_open);
  s.services[0].on_abort = [&] { s.core.Detach(s.services[0]); };
  s.services[1].on_abort = [&] {
    if (s.services[1].aborted.size() == 3) s.core.Detach(s.services[1]);
  };
  s.core.EndWithout(error);
  CHECK(s.services[0].aborted == std::vector<std::error_code>(1, error));
  CHECK(s.services[1].aborted == std::vector<std::error_code>(3, error));
  CHECK(s.context->tasks.Push([] {}) == Errc::kStopped);
}

TEST_CASE("a loop is told to quit by a post, and quits in that iteration", "[M41]") {
  OneLoop loop;
  bool quits = false;
  REQUIRE_FALSE(loop.core.RunOnce(std::chrono::nanoseconds(0), &quits));
  REQUIRE_FALSE(quits);
  loop.core.RequestQuit();
  REQUIRE_FALSE(loop.core.RunOnce(std::chrono::nanoseconds(0), &quits));
  CHECK(quits);
}

TEST_CASE("a closed loop holds no buffers", "[R1]") {
  OneLoop loop;
  const std::int64_t before = test::BytesInUse();
  loop.core.Close();
  CHECK(before - test::BytesInUse() >=
        static_cast<std::int64_t>(Turn::kReadSize + Turn::kGatherSize));
}

}  // namespace
}  // namespace xtcp::internal
