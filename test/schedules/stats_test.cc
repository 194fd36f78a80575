// The schedules of those who look at the books, and of a loop that sends and writes.

#include <catch2/catch.hpp>
#include <string>

#include "schedules/served.h"
#include "support/explorer.h"
#include "support/fault_control.h"

namespace xtcp::test {
namespace {

template <typename Stats>
std::string Problem(const Stats& stats) {
  if (stats.written_bytes <= stats.accepted_bytes) return "";
  return std::to_string(stats.written_bytes) + " bytes written, " +
         std::to_string(stats.accepted_bytes) + " accepted";
}

TEST_CASE("schedules: no look at the books sees more written than accepted", "[M11][B1][seen-26]") {
  const FaultPlan no_faults;
  const Exploration result = Explore({.preemptions = 2}, [](Schedule& schedule) -> std::string {
    Served served(schedule, {.on_recv = [](const ConnPtr& conn) {
                    static_cast<void>(conn->Send("on the loop"));
                  }});
    served.PeerSends("go");
    std::string problem;
    schedule.Add("reader", [&] {
      problem += Problem(served.conn().Stats());
      problem += Problem(served.server().Stats());
    });
    schedule.Run();
    served.End();
    return problem;
  });
  CAPTURE(result.schedules);
  CHECK(result.problem == "");
  CHECK(result.schedules > 500);
}

TEST_CASE("schedules: the books add up while another thread sends", "[M11][B1][seen-26]") {
  const FaultPlan no_faults;
  const Exploration result = Explore({.preemptions = 1}, [](Schedule& schedule) -> std::string {
    Served served(schedule, {});
    std::string problem;
    schedule.Add("sender", [&] { static_cast<void>(served.conn().Send("elsewhere")); });
    schedule.Add("reader", [&] {
      problem += Problem(served.conn().Stats());
      problem += Problem(served.server().Stats());
    });
    schedule.Run();
    served.End();
    return problem;
  });
  CAPTURE(result.schedules);
  CHECK(result.problem == "");
  CHECK(result.schedules > 50);
}

}  // namespace
}  // namespace xtcp::test
