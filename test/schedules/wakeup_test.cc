// The schedules of what another thread asks of a connection, and of a loop that falls asleep.

#include <catch2/catch.hpp>
#include <string>

#include "schedules/served.h"
#include "support/explorer.h"
#include "support/fault_control.h"

namespace xtcp::test {
namespace {

TEST_CASE("schedules: what another thread sends is written, whenever the loop falls asleep",
          "[M13][B6][seen-26]") {
  const FaultPlan no_faults;
  const Exploration result = Explore({.preemptions = 2}, [](Schedule& schedule) -> std::string {
    Served served(schedule, {});
    served.PeerSends("to keep the loop awake");
    bool accepted = true;
    schedule.Add("sender", [&] {
      for (const char* text : {"a", "b"}) accepted = accepted && !served.conn().Send(text);
    });
    schedule.Run();
    const std::string got = served.PeerReads();
    served.End();
    if (!accepted) return "a send was refused";
    return got == "ab" ? "" : "the peer has got \"" + got + "\", and the loop sleeps";
  });
  CAPTURE(result.schedules);
  CHECK(result.problem == "");
  CHECK(result.schedules > 500);
}

TEST_CASE("schedules: a stop on another thread is carried out, whenever the loop falls asleep",
          "[M20][B6][S2][seen-26]") {
  const FaultPlan no_faults;
  const Exploration result = Explore({.preemptions = 2}, [](Schedule& schedule) -> std::string {
    Served served(schedule, {});
    served.PeerSends("to keep the loop awake");
    schedule.Add("stopper", [&] { served.conn().Stop(StopMode::kImmediately); });
    schedule.Run();
    const bool closed = served.closed();
    served.End();
    return closed ? "" : "the connection lives, and the loop sleeps";
  });
  CAPTURE(result.schedules);
  CHECK(result.problem == "");
  CHECK(result.schedules > 500);
}

TEST_CASE("schedules: what was resumed on another thread is read, whenever the loop falls asleep",
          "[M18][B6][seen-26]") {
  const FaultPlan no_faults;
  const Exploration result = Explore({.preemptions = 2}, [](Schedule& schedule) -> std::string {
    int received = 0;
    Served served(schedule, {.on_recv = [&](const ConnPtr& conn) {
                    if (++received == 1) conn->PauseRecv();
                  }});
    served.PeerSends("one");
    served.PeerSends("two");
    schedule.Add("resumer", [&] {
      served.conn().PauseRecv();
      served.conn().ResumeRecv();
    });
    schedule.Run();
    served.conn().ResumeRecv();  // the handler may have paused it last
    schedule.Settle();
    served.End();
    return received == 2 ? "" : "a packet was not delivered, and the loop sleeps";
  });
  CAPTURE(result.schedules);
  CHECK(result.problem == "");
  CHECK(result.schedules > 500);
}

}  // namespace
}  // namespace xtcp::test
