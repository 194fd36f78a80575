// What a stop of a server reports, with a clock that the test moves.

#include <catch2/catch.hpp>
#include <chrono>
#include <cstddef>
#include <memory>
#include <vector>

#include "support/event_recorder.h"
#include "support/fault_control.h"
#include "support/raw_peer.h"
#include "support/stop_books.h"
#include "support/stop_pieces.h"
#include "support/test_server.h"

namespace xtcp::test {
namespace {

using namespace std::chrono_literals;

TEST_CASE("a report is the sum over connections that end in different ways", "[M21][B1]") {
  // Time stands still until those that end well have ended.
  const FaultPlan no_faults;
  VirtualClock clock;
  Options options;
  options.loops = 3;
  options.linger_timeout = 300ms;
  auto events = std::make_shared<EventRecorder>();
  TestServer server(events, options);
  std::vector<RawPeer> peers;
  for (std::size_t i = 0; i < 12; ++i) {
    peers.emplace_back(server.port(), 4096);
    REQUIRE(events->WaitForAccepted(i + 1));
    REQUIRE_FALSE(events->conn(i)->Send(Piece(0, 0, i % 2 == 0 ? 1000 : kTooMuch)));
  }
  // Two that end before the stop are none of its business.
  peers[0].Reset();
  peers[1].Reset();
  REQUIRE(events->WaitForClosed(2));
  REQUIRE(WaitUntil([&] { return server->ConnectionCount() == 10; }));
  REQUIRE(server->Stop(StopMode::kGracefullyButNotWait).connections == 10);
  // Good: 2 and 3. Reset: 4 and 5. Stopped at once by themselves: 6 and 7. The rest is cut.
  Threads readers;
  for (std::size_t i : {2, 3}) {
    readers.Add([&, i] {
      static_cast<void>(peers[i].ReadAll());
      peers[i].Close();
    });
  }
  REQUIRE(WaitUntil([&] { return events->conn(7)->IsStopped(); }));
  peers[4].Reset();
  peers[5].Reset();
  for (std::size_t i : {6, 7}) static_cast<void>(events->conn(i)->Stop(StopMode::kImmediately));
  readers.Join();
  REQUIRE(events->WaitForClosed(8));
  // The others wait for their peers, on each loop.
  REQUIRE(clock.Settle());
  clock.Advance(400ms);
  StopReport report;
  WithinDeadline("a stop", [&] { report = server->Stop(StopMode::kGracefullyAndWait); });
  StopReport sum{.connections = 10};
  std::size_t cut = 0;
  for (std::size_t i = 2; i < 12; ++i) {
    const ConnStats stats = events->conn(i)->Stats();
    INFO("connection " << i);
    sum.unsent_bytes += stats.unsent_bytes();
    sum.unacked_bytes += stats.unacked_bytes;
    const bool resets = i == 4 || i == 5;
    if (i != 2 && i != 3 && !resets) ++cut;
    if (i >= 8) REQUIRE(stats.reason == CloseReason::kLingerTimeout);
    if (i == 6 || i == 7) REQUIRE(stats.reason == CloseReason::kLocalStop);
    if (resets) REQUIRE(stats.reason == CloseReason::kPeerReset);
    if (!resets) {
      if (peers[i].connected()) static_cast<void>(peers[i].ReadAll());
      REQUIRE(BookProblems(stats, peers[i].received()) == "");
    }
  }
  REQUIRE(peers[2].received() == 1000);
  REQUIRE(peers[3].received() == kTooMuch);
  sum.cut = cut;
  REQUIRE(Text(report) == Text(sum));
  REQUIRE(server.Finish() == "");
}

}  // namespace
}  // namespace xtcp::test
