// What holds as soon as a stop has returned, however far another one has come.

#include <atomic>
#include <catch2/catch.hpp>
#include <cstddef>
#include <memory>
#include <string>
#include <system_error>
#include <thread>
#include <vector>

#include "support/event_recorder.h"
#include "support/fault_control.h"
#include "support/raw_peer.h"
#include "support/stop_books.h"
#include "support/test_server.h"

namespace xtcp::test {
namespace {

TEST_CASE("when a second stop has returned no Send is accepted, on any loop", "[M10][S6][seen-3]") {
  constexpr std::size_t kLoops = 4;
  const StopMode first = GENERATE(StopMode::kImmediately, StopMode::kGracefullyButNotWait);
  const StopMode second = GENERATE(StopMode::kImmediately, StopMode::kGracefullyButNotWait);
  CAPTURE(Name(first), Name(second));
  FaultPlan plan;
  VirtualClock clock;
  auto events = std::make_shared<EventRecorder>();
  Options options;
  options.loops = kLoops;
  TestServer server(events, options);
  std::vector<RawPeer> peers;
  for (std::size_t i = 0; i < kLoops; ++i) peers.emplace_back(server.port());
  REQUIRE(events->WaitForAccepted(kLoops));
  const std::vector<EventRecorder::Connection> connections = events->connections();
  REQUIRE(clock.Settle());  // all loops sleep, so the first stop has to wake each

  // The first stop is about to wake a loop.
  std::vector<std::error_code> sent;
  bool stopped = false;
  plan.Add({.site = Site::kWrite, .act = [&](int) {
              std::thread([&] {
                static_cast<void>(server->Stop(second));
                stopped = server->IsStopped();
                for (const auto& connection : connections) {
                  sent.push_back(connection.conn->Send("late"));
                }
              }).join();
            }});
  static_cast<void>(server->Stop(first));
  REQUIRE(plan.injected() == 1);
  CHECK(stopped);
  REQUIRE(sent.size() == kLoops);
  for (const std::error_code& error : sent) {
    CHECK((error == Errc::kStopping || error == Errc::kClosed));
  }
  for (RawPeer& peer : peers) {
    std::string bytes;
    static_cast<void>(peer.ReadAll(&bytes));
    CHECK(bytes == "");
    peer.Close();
  }
  REQUIRE(server.Finish() == "");
}

}  // namespace
}  // namespace xtcp::test
