// What is left when connections have ended and somebody still holds them, and whom an end wakes.

#include <sys/resource.h>

#include <catch2/catch.hpp>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <thread>
#include <utility>
#include <vector>

#include "support/alloc_hook.h"
#include "support/event_recorder.h"
#include "support/raw_peer.h"
#include "support/test_client.h"
#include "support/test_protocol.h"
#include "support/test_server.h"

namespace xtcp::test {
namespace {

// Fills a loop's pool with nearly as much as it keeps, since what other threads send takes its
// blocks; then stops.
void UsePool(const ConnPtr& conn) {
  std::thread([&] {
    for (int i = 0; i < 30; ++i) static_cast<void>(conn->Send(std::string(16'000, 'x')));
  }).join();
  static_cast<void>(conn->Stop(StopMode::kGracefullyButNotWait));
}

// Reads all that `UsePool` sends, in spite of a graceful stop that ends the stream.
void TakeAll(RawPeer& peer) {
  static_cast<void>(peer.SendAll(Header(1 << 20) + std::string(200'000, 'x')));
  REQUIRE(peer.ReadAll() == End::kEof);
  peer.Close();
}

TEST_CASE("a dialled connection that has ended keeps no memory of its loop", "[R1][seen-25]") {
  constexpr int kConnections = 10;
  RawListener listener;
  std::vector<ConnPtr> held;
  const auto dial = [&] {
    auto events = std::make_shared<EventRecorder>();
    events->hold_handles = false;
    events->on_connected = UsePool;
    TestClient client(events, listener.address());
    RawPeer peer = listener.Accept();
    TakeAll(peer);
    REQUIRE_FALSE(client.Wait());
    held.push_back(client.conn());
    REQUIRE(client.Finish() == "");
  };
  dial();  // what is allocated once
  held.reserve(1 + kConnections);
  const std::int64_t before = BytesInUse();
  for (int i = 0; i < kConnections; ++i) dial();
  CHECK(BytesInUse() - before <= kConnections * (8 << 10));
}

TEST_CASE("connections that outlive their server keep no memory of its loops", "[R1][seen-25]") {
  constexpr std::size_t kConnections = 2;  // one on each loop
  std::vector<ConnPtr> held;
  const auto serve = [&] {
    Options options;
    options.loops = kConnections;
    auto events = std::make_shared<EventRecorder>();
    events->hold_handles = false;
    events->on_accept = UsePool;
    TestServer server(events, options);
    events->on_closed = [&](const ConnPtr& conn) { held.push_back(conn); };
    std::vector<RawPeer> peers;
    for (std::size_t i = 0; i < kConnections; ++i) {
      peers.emplace_back(server.port());
      REQUIRE(events->WaitForAccepted(i + 1));
    }
    for (RawPeer& peer : peers) TakeAll(peer);
    REQUIRE(server.Finish(StopMode::kGracefullyAndWait) == "");
  };
  serve();
  held.clear();
  held.reserve(kConnections);
  const std::int64_t before = BytesInUse();
  serve();
  CHECK(held.size() == kConnections);
  CHECK(BytesInUse() - before <= static_cast<std::int64_t>(kConnections) * (8 << 10));
}

long Switches() {
  rusage usage{};
  ::getrusage(RUSAGE_THREAD, &usage);
  return usage.ru_nvcsw;
}

TEST_CASE("who waits for one connection is not woken by the ends of others", "[M20][seen-25]") {
  constexpr std::size_t kOthers = 500;
  TestServer server(std::make_shared<EventRecorder>());
  RawPeer waited_for(server.port());
  REQUIRE(server.events().WaitForAccepted(1));
  const ConnPtr conn = server.events().conn(0);
  std::vector<RawPeer> others;
  for (std::size_t i = 0; i < kOthers; ++i) {
    others.emplace_back(server.port());
    REQUIRE(server.events().WaitForAccepted(2 + i));
  }
  long switches = 0;
  std::thread waiting([&] {
    const long before = Switches();
    static_cast<void>(conn->Stop(StopMode::kGracefullyAndWait));
    switches = Switches() - before;
  });
  const End end = waited_for.ReadAll();  // the stop is under way, and waits for this peer
  bool closed = true;
  for (std::size_t i = 0; i < kOthers && closed; ++i) {
    others[i].Close();
    closed = server.events().WaitForClosed(i + 1);
  }
  waited_for.Close();
  waiting.join();
  CHECK(end == End::kEof);
  CHECK(closed);
  CHECK(switches < 50);
  REQUIRE(server.Finish() == "");
}

}  // namespace
}  // namespace xtcp::test
