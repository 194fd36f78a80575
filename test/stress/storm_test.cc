// Stops in a storm of connects.

#include <atomic>
#include <catch2/catch.hpp>
#include <cstddef>
#include <memory>
#include <utility>
#include <vector>

#include "support/event_recorder.h"
#include "support/random.h"
#include "support/raw_peer.h"
#include "support/stop_books.h"
#include "support/test_server.h"

namespace xtcp::test {
namespace {

TEST_CASE("a stop in a storm of connects leaves nobody behind", "[M21][M25][S3][S6][B7][E2][R5]") {
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
  constexpr std::size_t kRounds = 50;
#else
  constexpr std::size_t kRounds = 200;
#endif
  Random random(21);
  for (std::size_t round = 0; round < kRounds; ++round) {
    INFO("round " << round);
    Options options;
    options.loops = 3;
    auto events = std::make_shared<EventRecorder>();
    TestServer server(events, options);
    std::atomic<bool> over{false};
    std::atomic<int> hanging{0};
    Threads connecting([&] { over = true; });
    for (int t = 0; t < 4; ++t) {
      connecting.Add([&] {
        std::vector<RawPeer> peers;
        while (!over && peers.size() < 40) {
          RawPeer peer(server.port());
          if (!peer.connected()) break;
          peers.push_back(std::move(peer));
        }
        for (RawPeer& peer : peers) {
          if (ReadToEnd(peer) == End::kTimeout) ++hanging;
          peer.Close();
        }
      });
    }
    REQUIRE(events->WaitForAccepted(random.Between(1, 20)));
    const StopMode mode = kModes.at(round % 3);
    StopReport first;
    WithinDeadline("a stop", [&] { first = server->Stop(mode); });
    if (mode == StopMode::kGracefullyAndWait) {
      REQUIRE(events->totals().closed == events->totals().accepted);
      REQUIRE(server->ConnectionCount() == 0);
    }
    connecting.Join();
    REQUIRE(hanging == 0);
    REQUIRE(server.Finish(StopMode::kGracefullyAndWait) == "");
    // All that were open then, also those without an event, and none that came later.
    REQUIRE(first.connections == server.report().connections);
    REQUIRE(server->Stats().accepted >= events->totals().accepted);
    REQUIRE(server.report().connections <= server->Stats().accepted);
    REQUIRE(Text(server.report()) == OnlyConnections(first.connections));
  }
}

}  // namespace
}  // namespace xtcp::test
