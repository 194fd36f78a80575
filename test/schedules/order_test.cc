// The schedules of sends and stops on two threads: what the order of the calls means on the wire.

#include <xtcp/error.h>

#include <catch2/catch.hpp>
#include <cstddef>
#include <deque>
#include <functional>
#include <string>
#include <string_view>

#include "schedules/served.h"
#include "support/explorer.h"
#include "support/fault_control.h"

namespace xtcp::test {
namespace {

// What was called, in the order in which the calls began. One thread runs at a time, so this needs no
// lock.
class Calls {
 public:
  struct Call {
    char letter;  // what it sends; 's': a stop
    std::size_t begin;
    std::size_t end = 0;  // 0: it has not returned
    bool accepted = false;
  };

  explicit Calls(Schedule& schedule) : schedule_(schedule) {}

  // A thread may lose its turn ahead of a call.
  void Send(Conn& conn, char letter) {
    schedule_.Pause();
    Call& call = Begin(letter);
    call.accepted = !conn.Send(std::string(1, letter));
    call.end = ++clock_;
  }
  void Stop(const std::function<void()>& stop) {
    schedule_.Pause();
    Call& call = Begin('s');
    stop();
    call.end = ++clock_;
  }

  // What is wrong when the peer has got `bytes`.
  std::string Check(std::string_view bytes) const {
    std::string accepted;
    for (const Call& call : calls_) {
      if (call.accepted) accepted += call.letter;
      if (call.accepted && bytes.find(call.letter) == std::string_view::npos) return Text(bytes);
      for (const Call& later : calls_) {
        if (call.end == 0 || call.end > later.begin || !later.accepted) continue;
        // It has returned before the other one began.
        if (call.letter == 's') return "M10: accepted after a stop had returned: " + Text(bytes);
        if (call.accepted && bytes.find(call.letter) > bytes.find(later.letter)) return Text(bytes);
      }
    }
    return accepted.size() == bytes.size() ? "" : Text(bytes);
  }

 private:
  Call& Begin(char letter) { return calls_.emplace_back(Call{letter, ++clock_}); }

  std::string Text(std::string_view bytes) const {
    std::string text = "the peer has got \"" + std::string(bytes) + "\" of";
    for (const Call& call : calls_) {
      text += std::string(" ") + call.letter + (call.accepted ? "" : " (refused)");
    }
    return text;
  }

  Schedule& schedule_;
  std::deque<Call> calls_;
  std::size_t clock_ = 0;
};

TEST_CASE("schedules: sends on two threads arrive in the order of the calls",
          "[M10][M12][B4][seen-26]") {
  const FaultPlan no_faults;
  const Exploration result = Explore({.preemptions = 2}, [](Schedule& schedule) -> std::string {
    Calls calls(schedule);
    Served served(schedule, {.on_recv = [&](const ConnPtr& conn) {
                    for (const char letter : {'1', '2'}) calls.Send(*conn, letter);
                  }});
    served.PeerSends("go");
    schedule.Add("sender", [&] {
      for (const char letter : {'a', 'b'}) calls.Send(served.conn(), letter);
    });
    schedule.Run();
    const std::string got = served.PeerReads();
    served.End();
    return calls.Check(got);
  });
  CAPTURE(result.schedules);
  CHECK(result.problem == "");
  CHECK(result.schedules > 1000);
}

// A send on the loop's thread, and a stop by another thread, of the server or of the connection.
void ExploreStop(const std::function<void(Served&)>& stop) {
  const FaultPlan no_faults;
  const Exploration result = Explore({.preemptions = 2}, [&](Schedule& schedule) -> std::string {
    Calls calls(schedule);
    Served served(schedule, {.on_recv = [&](const ConnPtr& conn) {
                    for (const char letter : {'1', '2'}) calls.Send(*conn, letter);
                  }});
    served.PeerSends("go");
    schedule.Add("stopper", [&] {
      calls.Stop([&] { stop(served); });
      calls.Send(served.conn(), 'a');
    });
    schedule.Run();
    std::string problem = calls.Check(served.PeerReads());
    if (problem.empty() && !served.PeerSawEnd()) problem = "M19: no FIN after a graceful stop";
    served.PeerCloses();
    schedule.Settle();
    if (problem.empty() && !served.closed()) problem = "M19: the peer has ended, but no kClosed";
    served.End();
    return problem;
  });
  CAPTURE(result.schedules);
  CHECK(result.problem == "");
  CHECK(result.schedules > 1000);
}

TEST_CASE("schedules: nothing is accepted after a stop of the server has returned",
          "[M10][M19][B2][B4][seen-26]") {
  ExploreStop([](Served& served) { served.server().Stop(StopMode::kGracefullyButNotWait); });
}

TEST_CASE("schedules: nothing is accepted after a stop of the connection has returned",
          "[M10][M19][B2][B4][seen-26]") {
  ExploreStop([](Served& served) { served.conn().Stop(StopMode::kGracefullyButNotWait); });
}

}  // namespace
}  // namespace xtcp::test
