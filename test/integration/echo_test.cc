#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>
#include <unistd.h>

#include <atomic>
#include <catch2/catch.hpp>
#include <cstddef>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "support/deadline.h"
#include "support/event_recorder.h"
#include "support/random.h"
#include "support/raw_peer.h"
#include "support/test_client.h"
#include "support/test_protocol.h"
#include "support/test_server.h"

namespace xtcp::test {
namespace {

constexpr std::size_t kSizes[] = {0, 1, 2, 3, 4091, 4092, 4093, 65'536, 300'000, 1 << 20};

std::shared_ptr<EventRecorder> EchoRecorder() {
  auto events = std::make_shared<EventRecorder>();
  events->on_recv = Echo;
  return events;
}

// A Unix socket's path that no other run has.
std::string SocketPath() { return "/tmp/xtcp_echo_" + std::to_string(::getpid()) + ".sock"; }

int IntOption(int fd, int level, int name) {
  int value = -1;
  socklen_t size = sizeof value;
  return ::getsockopt(fd, level, name, &value, &size) == 0 ? value : -1;
}

TEST_CASE("an echo server gives every packet back, whatever its size and address",
          "[M5][M9][M25][B1][E1]") {
  std::vector<std::string> addresses = {"127.0.0.1:0", "unix:" + SocketPath(),
                                        "unix:@xtcp_echo_" + std::to_string(::getpid())};
  if (HasIpv6()) addresses.push_back("[::1]:0");
  const std::string address = GENERATE_COPY(from_range(addresses));
  const std::size_t loops = GENERATE(1u, 3u);
  CAPTURE(address, loops);

  Options options;
  options.loops = loops;
  TestServer server(EchoRecorder(), options, address);
  auto client_events = std::make_shared<EventRecorder>();
  TestClient client(client_events, server.address());
  REQUIRE(client_events->WaitForConnected(1));
  RawPeer peer(server.address());
  REQUIRE(peer.connected());

  Random random;
  std::vector<std::string> sent;
  for (const std::size_t size : kSizes) {
    sent.push_back(random.Bytes(size));
    REQUIRE_FALSE(client->Send(Frame(sent.back())));
    REQUIRE(client_events->WaitForPackets(sent.size()));
    REQUIRE(peer.SendAll(Frame(sent.back())));
    const bool same = peer.ReadFrame() == sent.back();
    REQUIRE(same);
  }
  const bool all_same = client_events->connection().payloads == sent;
  REQUIRE(all_same);

  peer.HalfClose();
  REQUIRE(peer.ReadAll() == End::kEof);
  REQUIRE(client.Finish(StopMode::kGracefullyAndWait) == "");
  REQUIRE(server.Finish(StopMode::kGracefullyAndWait) == "");
  REQUIRE(server.events().totals().accepted == 2);
  REQUIRE(client->Stats().unsent_bytes() == 0);
  REQUIRE(client->Stats().received_bytes == client->Stats().accepted_bytes);
}

TEST_CASE("a packet of 64 MiB makes the round trip", "[M9][X4]") {
  constexpr std::size_t kSize = 64 << 20;
  Options options;
  options.max_packet_size = kSize + kHeaderSize;
  options.send_buffer_limit = kSize + kHeaderSize;
  auto events = EchoRecorder();
  events->keep_payloads = false;
  TestServer server(events, options);
  TestClient client(std::make_shared<EventRecorder>(), server.address(), options);

  Random random;
  const std::string payload = random.Bytes(kSize);
  REQUIRE_FALSE(client->Send(Frame(payload)));
  REQUIRE(client.events().WaitForPackets(1, 6 * kDeadline));
  const bool same = client.events().connection().payloads.at(0) == payload;
  REQUIRE(same);
  REQUIRE(client.Finish(StopMode::kGracefullyAndWait) == "");
  REQUIRE(server.Finish() == "");
}

TEST_CASE("many connections at once each get their own bytes", "[B7][E1][E2][M6]") {
  constexpr std::size_t kConnections = 40, kPackets = 25;
  Options options;
  options.loops = 3;
  TestServer server(EchoRecorder(), options);

  // Each thread serves some raw peers, so that their traffic mixes on the server's loops.
  std::atomic<std::size_t> good{0};
  const auto talk = [&](std::size_t first) {
    Random random(first);
    std::vector<RawPeer> peers;
    for (std::size_t i = 0; i < kConnections / 4; ++i) peers.emplace_back(server.port());
    for (std::size_t round = 0; round < kPackets; ++round) {
      std::vector<std::string> sent;
      for (RawPeer& peer : peers) {
        sent.push_back(random.Bytes(random.Between(0, 3000)));
        peer.SendAll(Frame(sent.back()));
      }
      for (std::size_t i = 0; i < peers.size(); ++i) {
        if (peers[i].ReadFrame() == sent[i]) ++good;
      }
    }
  };
  std::vector<std::thread> threads;
  for (std::size_t i = 0; i < 4; ++i) threads.emplace_back(talk, i);
  for (std::thread& thread : threads) thread.join();

  REQUIRE(good == kConnections * kPackets);
  REQUIRE(server.events().WaitForClosed(kConnections));
  REQUIRE(server.Finish() == "");
  REQUIRE(server.events().totals().accepted == kConnections);
}

TEST_CASE("two ends of the library play ping-pong for long", "[M5][M13][R6]") {
  constexpr std::size_t kRounds = 3000;
  auto client_events = std::make_shared<EventRecorder>();
  client_events->keep_payloads = false;
  std::atomic<std::size_t> rounds{0};
  client_events->on_recv = [&](const ConnPtr& conn, std::string_view payload) {
    if (++rounds < kRounds) Echo(conn, payload);
  };
  auto events = EchoRecorder();
  events->keep_payloads = false;
  TestServer server(events);
  TestClient client(client_events, server.address());
  REQUIRE_FALSE(client->Send(Frame("ping")));
  REQUIRE(client_events->WaitForPackets(kRounds));
  REQUIRE(client.Finish() == "");
  REQUIRE(server.Finish() == "");
  REQUIRE(server.events().totals().packets == kRounds);
}

TEST_CASE("each end knows both addresses, also after the end", "[M28]") {
  TestServer server(EchoRecorder());
  TestClient client(std::make_shared<EventRecorder>(), server.address());
  REQUIRE(client.events().WaitForConnected(1));
  REQUIRE(server.events().WaitForAccepted(1));
  const ConnPtr accepted = server.events().conn();

  const auto check = [&] {
    REQUIRE(client->RemoteAddress().ToString() == server.address());
    REQUIRE(client->RemoteAddress() == accepted->LocalAddress());
    REQUIRE(client->LocalAddress() == accepted->RemoteAddress());
    REQUIRE(client->LocalAddress().Host() == "127.0.0.1");
    REQUIRE(client->LocalAddress().Port() != 0);
    const std::string from = client->LocalAddress().ToString();
    REQUIRE(client->ToString() == from + " -> " + server.address());
    REQUIRE(accepted->ToString() == server.address() + " <- " + from);
  };
  check();
  REQUIRE(client.Finish() == "");
  REQUIRE(server.Finish() == "");
  check();
}

TEST_CASE("the options of TCP reach accepted and dialled sockets", "[M28]") {
  Options options;
  options.no_delay = GENERATE(true, false);
  options.keep_alive = GENERATE(true, false);
  options.keep_alive_period = std::chrono::milliseconds(6500);
  options.user_timeout = std::chrono::milliseconds(12'345);
  CAPTURE(options.no_delay, options.keep_alive);

  struct Found {
    int no_delay = -1, keep_alive = -1, idle = -1, interval = -1, user_timeout = -1;
  };
  Found accepted, dialled;
  const auto look = [](const ConnPtr& conn, Found* found) {
    const int fd = conn->Descriptor();
    found->no_delay = IntOption(fd, IPPROTO_TCP, TCP_NODELAY);
    found->keep_alive = IntOption(fd, SOL_SOCKET, SO_KEEPALIVE);
    found->idle = IntOption(fd, IPPROTO_TCP, TCP_KEEPIDLE);
    found->interval = IntOption(fd, IPPROTO_TCP, TCP_KEEPINTVL);
    found->user_timeout = IntOption(fd, IPPROTO_TCP, TCP_USER_TIMEOUT);
  };
  auto events = std::make_shared<EventRecorder>();
  events->on_accept = [&](const ConnPtr& conn) { look(conn, &accepted); };
  events->on_connected = [&](const ConnPtr& conn) { look(conn, &dialled); };
  TestServer server(events, options);
  TestClient client(events, server.address(), options);
  REQUIRE(events->WaitForAccepted(1));
  REQUIRE(events->WaitForConnected(1));
  REQUIRE(client.Finish() == "");
  REQUIRE(server.Finish() == "");

  for (const Found& found : {accepted, dialled}) {
    REQUIRE(found.no_delay == (options.no_delay ? 1 : 0));
    REQUIRE(found.keep_alive == (options.keep_alive ? 1 : 0));
    REQUIRE(found.user_timeout == 12'345);
    if (!options.keep_alive) continue;
    // A period rounds up to whole seconds.
    REQUIRE(found.idle == 7);
    REQUIRE(found.interval == 7);
  }
}

}  // namespace
}  // namespace xtcp::test
