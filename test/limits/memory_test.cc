// What connections hold, by the allocator's own count.

#include <catch2/catch.hpp>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "support/alloc_hook.h"
#include "support/event_recorder.h"
#include "support/raw_peer.h"
#include "support/test_protocol.h"
#include "support/test_server.h"

namespace xtcp::test {
namespace {

// What a loop's pool keeps for the next connections: docs/design.md, Memory.
constexpr std::uint64_t kPool = 5'767'168;

constexpr std::size_t kMega = 1 << 20;

std::uint64_t LiveBytes() { return static_cast<std::uint64_t>(BytesInUse()); }

TEST_CASE("the buffers of a connection go when it closes, though its handle is held",
          "[M29][R1][seen-26][seen-29]") {
  constexpr std::size_t kConnections = 16;
  Options options;
  options.recv_buffer_size = 4096;
  auto events = std::make_shared<EventRecorder>();
  TestServer server(events, options);
  std::vector<RawPeer> peers;
  for (std::size_t i = 0; i < kConnections; ++i) {
    peers.emplace_back(server.port(), 4096);
    REQUIRE(peers.back().connected());
  }
  REQUIRE(events->WaitForAccepted(kConnections));
  const std::uint64_t idle = LiveBytes();

  // Half a packet of 2 MiB waits in each, and 8 MiB that the kernel does not take.
  const std::string half = Header(2 * kMega) + std::string(kMega, 'h');
  std::vector<ConnPtr> conns;
  for (std::size_t i = 0; i < kConnections; ++i) {
    const ConnPtr conn = events->conn(i);
    REQUIRE(peers[i].SendAll(half));
    REQUIRE_FALSE(conn->Send(std::string(8 * kMega, 'x')));
    conns.push_back(conn);
  }
  for (const ConnPtr& conn : conns) {
    REQUIRE(WaitUntil([&] { return conn->Stats().received_bytes == half.size(); }));
  }
  CHECK(LiveBytes() > idle + kConnections * 4 * kMega);

  SECTION("by a stop of each") {
    for (const ConnPtr& conn : conns) conn->Stop(StopMode::kImmediately);
  }
  SECTION("by a reset from each peer") {
    for (RawPeer& peer : peers) peer.Reset();
  }
  REQUIRE(events->WaitForClosed(kConnections));
  CHECK(LiveBytes() < idle + kPool + kMega);
  REQUIRE(server.Finish() == "");
}

}  // namespace
}  // namespace xtcp::test
