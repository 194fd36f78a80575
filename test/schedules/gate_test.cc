// Every schedule of those who enter, leave and close a gate.

#include "base/gate.h"

#include <catch2/catch.hpp>
#include <memory>
#include <optional>
#include <string>

#include "support/explorer.h"

namespace xtcp::test {
namespace {

using internal::Gate;

TEST_CASE("schedules: those inside a gate are out when its closing ends", "[M20][M25][seen-26]") {
  const Exploration result = Explore({}, [](Schedule& schedule) -> std::string {
    Gate gate;
    int inside = 0;
    std::optional<int> at_end;
    schedule.Add("visitor", [&] {
      if (!gate.Enter()) return;
      ++inside;
      schedule.Pause();
      --inside;
      gate.Leave();
    });
    schedule.Add("closer", [&] {
      gate.CloseAndWait();
      at_end = inside;
    });
    schedule.RunToEnd();
    if (at_end != 0) return "the closing ended while somebody was inside";
    return gate.Enter() ? "a closed gate lets somebody in" : "";
  });
  CHECK(result.problem == "");
  CHECK(result.schedules > 20);
}

// The address sanitizer looks, too: the one who leaves last must not touch it any more.
TEST_CASE("schedules: a gate may be destroyed as soon as its closing ends", "[M20][M25][seen-26]") {
  const Exploration result = Explore({}, [](Schedule& schedule) -> std::string {
    auto gate = std::make_unique<Gate>();
    for (const char* name : {"one", "another"}) {
      if (!gate->Enter()) return "an open gate refuses";
      schedule.Add(name, [inside = gate.get()] { inside->Leave(); });
    }
    schedule.Add("closer", [&] {
      gate->CloseAndWait();
      gate.reset();
    });
    schedule.RunToEnd();
    return "";
  });
  CHECK(result.problem == "");
  CHECK(result.schedules > 100);
}

TEST_CASE("schedules: each of two closers waits for the last one inside", "[M20][seen-26]") {
  const Exploration result = Explore({.preemptions = 3}, [](Schedule& schedule) -> std::string {
    Gate gate;
    if (!gate.Enter()) return "an open gate refuses";
    bool inside = true;
    bool too_early = false;
    schedule.Add("visitor", [&] {
      inside = false;
      gate.Leave();
    });
    for (const char* name : {"closer", "another"}) {
      schedule.Add(name, [&] {
        gate.CloseAndWait();
        too_early = too_early || inside;
      });
    }
    schedule.RunToEnd();
    return too_early ? "the closing ended while somebody was inside" : "";
  });
  CHECK(result.problem == "");
  CHECK(result.schedules > 100);
}

}  // namespace
}  // namespace xtcp::test
