// What a connection costs in memory, on a loop that accepted and dialled ones share.

#include <arpa/inet.h>
#include <sys/socket.h>
#include <unistd.h>

#include <atomic>
#include <catch2/catch.hpp>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "support/alloc_hook.h"
#include "support/deadline.h"
#include "support/raw_peer.h"
#include "support/test_group.h"
#include "support/test_protocol.h"

namespace xtcp::test {
namespace {

constexpr std::size_t kConnections = 256;

// Keeps nothing.
class Counter : public Handler {
 public:
  void OnEvent(EventType event, const ConnPtr&, PacketPtr) override {
    if (event == EventType::kAccept || event == EventType::kConnected) ++begun;
  }
  std::atomic<std::size_t> begun{0};
};

// The other ends of the connections: descriptors, which take no memory of ours.
struct Peers {
  Peers() { fds.reserve(kConnections); }
  ~Peers() {
    for (const int fd : fds) ::close(fd);
  }
  Peers(const Peers&) = delete;
  Peers& operator=(const Peers&) = delete;
  std::vector<int> fds;
};

int ConnectTo(std::uint16_t port) {
  const int fd = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_port = htons(port);
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  if (::connect(fd, reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0) return -1;
  return fd;
}

// Waits until `counter` has seen that many connections begin, and until what their beginnings
// needed is gone.
bool Settle(const TestGroup& group, const Counter& counter, std::size_t connections) {
  return WaitUntil([&] { return counter.begun == connections; }) && group.On([] {}) &&
         group.On([] {});
}

std::int64_t BytesOfAccepted() {
  TestGroup group;
  const auto counter = std::make_shared<Counter>();
  const auto server = StartServer(*group, counter);
  const std::uint16_t port = server->Addresses().at(0).Port();
  Peers peers;
  peers.fds.push_back(ConnectTo(port));  // what is allocated once
  REQUIRE(Settle(group, *counter, 1));
  const std::int64_t before = BytesInUse();
  for (std::size_t i = 1; i < kConnections; ++i) peers.fds.push_back(ConnectTo(port));
  REQUIRE(Settle(group, *counter, kConnections));
  const std::int64_t bytes = BytesInUse() - before;
  REQUIRE(group.Finish() == "");
  return bytes;
}

std::int64_t BytesOfDialled() {
  TestGroup group;
  const auto counter = std::make_shared<Counter>();
  const auto protocol = std::make_shared<TestProtocol>();
  const RawListener listener(static_cast<int>(kConnections));
  const auto dial = [&] {
    return NewConn({.handler = counter, .protocol = protocol}, group.loop())
        ->Dial(listener.address());
  };
  REQUIRE_FALSE(dial());  // what is allocated once
  REQUIRE(Settle(group, *counter, 1));
  const std::int64_t before = BytesInUse();
  for (std::size_t i = 1; i < kConnections; ++i) REQUIRE_FALSE(dial());
  REQUIRE(Settle(group, *counter, kConnections));
  const std::int64_t bytes = BytesInUse() - before;
  REQUIRE(group.Finish() == "");
  return bytes;
}

TEST_CASE("a dialled connection takes at most 512 bytes more than an accepted one", "[M54]") {
  const std::int64_t accepted = BytesOfAccepted() / static_cast<std::int64_t>(kConnections - 1);
  const std::int64_t dialled = BytesOfDialled() / static_cast<std::int64_t>(kConnections - 1);
  CAPTURE(accepted, dialled);
  CHECK(dialled - accepted <= 512);
}

}  // namespace
}  // namespace xtcp::test
