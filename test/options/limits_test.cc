// The limits on bytes, connections and threads.

#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sched.h>
#include <sys/resource.h>

#include <algorithm>
#include <catch2/catch.hpp>
#include <chrono>
#include <cstddef>
#include <memory>
#include <string>
#include <string_view>
#include <thread>
#include <vector>

#include "support/deadline.h"
#include "support/event_recorder.h"
#include "support/fault_control.h"
#include "support/one_connection.h"
#include "support/raw_peer.h"
#include "support/test_protocol.h"
#include "support/test_server.h"
#include "support/violations.h"

namespace xtcp::test {
namespace {

Kind EachKind() { return GENERATE(Kind::kAccepted, Kind::kDialled); }

TEST_CASE("the longest packet passes, a byte more ends the connection", "[M2][X1][X2]") {
  Options options;
  options.max_packet_size = 1000;
  options.first_packet_size = GENERATE(0u, 100u, 1000u);
  CAPTURE(options.first_packet_size);
  const std::size_t first = options.first_packet_size == 0 ? 1000 : options.first_packet_size;
  const bool in_one_piece = GENERATE(true, false);
  const auto send = [&](RawPeer& peer, std::size_t size) {
    const std::string frame = Frame(std::string(size - kHeaderSize, 'x'));
    // What comes behind the end is of no interest.
    static_cast<void>(in_one_piece ? peer.SendAll(frame) : peer.Dribble(frame, 33));
  };
  const Kind kind = EachKind();
  {
    OneConnection one(kind, options);
    send(one.peer, first);
    REQUIRE(one.events->WaitForPackets(1));
    send(one.peer, 1000);
    REQUIRE(one.events->WaitForPackets(2));
    send(one.peer, 1001);
    REQUIRE(one.events->WaitForClosed(1));
    REQUIRE(one.reason() == CloseReason::kPacketTooLarge);
    REQUIRE(one.events->totals().packets == 2);
    REQUIRE(one.Finish() == "");
  }
  OneConnection one(kind, options);
  send(one.peer, first + 1);
  REQUIRE(one.events->WaitForClosed(1));
  REQUIRE(one.reason() == CloseReason::kPacketTooLarge);
  REQUIRE(one.events->totals().packets == 0);
  REQUIRE(one.Finish() == "");
}

TEST_CASE("send_buffer_limit bounds what is queued, on both kinds", "[M9][M14]") {
  Options options;
  options.send_buffer_limit = 10'000;
  std::vector<std::error_code> results;
  auto events = std::make_shared<EventRecorder>();
  events->on_accept = events->on_connected = [&](const ConnPtr& conn) {
    // Within a callback nothing leaves, so what fits is exact.
    for (const std::size_t size : {10'001u, 6'000u, 4'001u, 4'000u, 1u}) {
      results.push_back(conn->Send(std::string(size, 'x')));
    }
  };
  OneConnection one(EachKind(), options, "127.0.0.1:0", events);
  REQUIRE(one.events->WaitForSendReady(1));
  REQUIRE(results ==
          std::vector<std::error_code>{Errc::kTooLarge, {}, Errc::kFull, {}, Errc::kFull});
  std::string bytes;
  REQUIRE(one.peer.ReadExactly(10'000, &bytes) == End::kOpen);
  REQUIRE(one.Finish() == "");
}

TEST_CASE("recv_buffer_size is the first size of the ring", "[X1]") {
  // Once a packet comes in small pieces, reads go into the ring: one fills what there is room for,
  // and the next one has to wait for it to grow.
  Options options;
  const bool roomy = GENERATE(true, false);
  options.recv_buffer_size = roomy ? 64 << 10 : 1024;
  const Kind kind = EachKind();
  FaultPlan no_faults;
  VirtualClock clock;
  OneConnection one(kind, options);
  const std::string frame = Frame(std::string(20'000, 'x'));
  REQUIRE(one.peer.SendAll(frame.substr(0, 10)));
  REQUIRE(clock.Settle());
  REQUIRE(one.peer.SendAll(frame.substr(10, 1)));
  REQUIRE(clock.Settle());
  const std::uint64_t before = CallsOf(Site::kRecv);
  REQUIRE(one.peer.SendAll(frame.substr(11)));
  REQUIRE(one.events->WaitForPackets(1));
  REQUIRE(clock.Settle());
  const std::uint64_t reads = CallsOf(Site::kRecv) - before;
  if (roomy) {
    REQUIRE(reads == 1);
  } else {
    REQUIRE(reads > 3);
  }
  REQUIRE(one.Finish() == "");
}

TEST_CASE("more connections than max_connections are closed at once, and counted", "[M25][R3]") {
  Options options;
  options.max_connections = 3;
  options.loops = GENERATE(1u, 2u);
  auto events = std::make_shared<EventRecorder>();
  TestServer server(events, options);
  std::vector<RawPeer> peers;
  for (int i = 0; i < 3; ++i) peers.emplace_back(server.port());
  REQUIRE(events->WaitForAccepted(3));
  for (std::size_t i = 1; i <= 5; ++i) {
    RawPeer one_too_many(server.port());
    REQUIRE(one_too_many.ReadAll() == End::kEof);
    REQUIRE(server->Stats().refused == i);
  }
  REQUIRE(server->ConnectionCount() == 3);
  REQUIRE(events->totals().accepted == 3);
  // A place that is free again is given away again.
  peers.pop_back();
  REQUIRE(events->WaitForClosed(1));
  REQUIRE(WaitUntil([&] { return server->ConnectionCount() == 2; }));
  peers.emplace_back(server.port());
  REQUIRE(events->WaitForAccepted(4));
  REQUIRE(server->Stats().accepted == 4);
  REQUIRE(server->Stats().refused == 5);
  REQUIRE(server.Finish() == "");
}

TEST_CASE("a place is free once its connection has closed, within one batch too", "[R3][seen-4]") {
  FaultPlan none;  // an EAGAIN from the seed would put the end off to the next batch
  Options options;
  options.max_connections = 2;
  Signal inside, go;
  auto events = std::make_shared<EventRecorder>();
  events->on_recv = [&](const ConnPtr& conn, std::string_view payload) {
    if (payload != "hold") {
      Echo(conn, payload);
      return;
    }
    inside.Set();
    if (!go.Wait()) AddViolation("nobody lets the callback go on");
  };
  Server* serving = nullptr;
  std::vector<std::size_t> counts;
  events->on_closed = [&](const ConnPtr&) { counts.push_back(serving->ConnectionCount()); };
  TestServer server(events, options);
  serving = server.operator->();
  RawPeer leaves(server.port()), holds(server.port());
  REQUIRE(events->WaitForAccepted(2));
  REQUIRE(holds.SendAll(Frame("hold")));
  REQUIRE(inside.Wait());
  // The end has to be there first: what two processors deliver may overtake each other. It can be
  // seen before epoll has been told; but who is told is told with the socket locked, and a question
  // that needs the lock waits for that.
  leaves.HalfClose();
  pollfd end{events->conn(0)->Descriptor(), POLLRDHUP, 0};
  REQUIRE(::poll(&end, 1, static_cast<int>(std::chrono::milliseconds(kDeadline).count())) == 1);
  tcp_info info{};
  socklen_t size = sizeof info;
  REQUIRE(::getsockopt(end.fd, IPPROTO_TCP, TCP_INFO, &info, &size) == 0);
  RawPeer comes(server.port());
  go.Set();
  REQUIRE(events->WaitForAccepted(3));
  REQUIRE(comes.SendAll(Frame("hello")));
  REQUIRE(comes.ReadFrame() == "hello");
  REQUIRE(server->Stats().refused == 0);
  REQUIRE(server.Finish() == "");
  // A connection that delivers kClosed does not count any more.
  REQUIRE(counts == std::vector<std::size_t>{1, 1, 0});
}

TEST_CASE("max_connections 0 is the descriptor limit when Serve starts, less a reserve",
          "[M25][R3]") {
  rlimit before{};
  REQUIRE(::getrlimit(RLIMIT_NOFILE, &before) == 0);
  const rlimit low{40, before.rlim_max};  // less than 64 + 64, so half of it is left
  const std::uint64_t asked = CallsOf(Site::kGetRlimit);
  auto events = std::make_shared<EventRecorder>();
  REQUIRE(::setrlimit(RLIMIT_NOFILE, &low) == 0);
  TestServer server(events);
  const bool started = WaitUntil([&] { return CallsOf(Site::kGetRlimit) > asked; });
  REQUIRE(::setrlimit(RLIMIT_NOFILE, &before) == 0);
  REQUIRE(started);
  std::vector<RawPeer> peers;
  for (int i = 0; i < 20; ++i) peers.emplace_back(server.port());
  REQUIRE(events->WaitForAccepted(20));
  RawPeer one_too_many(server.port());
  REQUIRE(one_too_many.ReadAll() == End::kEof);
  REQUIRE(server->Stats().refused == 1);
  REQUIRE(server.Finish() == "");
}

TEST_CASE("loops is how many threads serve; 0 is one for each processor", "[M25]") {
  cpu_set_t set;
  REQUIRE(::sched_getaffinity(0, sizeof set, &set) == 0);
  const auto processors = static_cast<std::size_t>(CPU_COUNT(&set));
  for (const std::size_t loops : {1u, 3u, 0u}) {
    Options options;
    options.loops = loops;
    const std::size_t expected = loops == 0 ? processors : loops;
    const std::uint64_t threads = CallsOf(Site::kStartThread);
    const std::uint64_t polls = CallsOf(Site::kEpollCreate);
    auto events = std::make_shared<EventRecorder>();
    TestServer server(events, options);
    std::vector<RawPeer> peers;
    for (std::size_t i = 0; i < 2 * expected; ++i) peers.emplace_back(server.port());
    REQUIRE(events->WaitForAccepted(2 * expected));
    REQUIRE(CallsOf(Site::kStartThread) - threads == expected - 1);
    REQUIRE(CallsOf(Site::kEpollCreate) - polls == expected);
    std::vector<std::thread::id> used;
    for (const auto& connection : events->connections()) used.push_back(connection.thread);
    std::sort(used.begin(), used.end());
    used.erase(std::unique(used.begin(), used.end()), used.end());
    REQUIRE(used.size() == expected);
    REQUIRE(server.Finish() == "");
  }
}

}  // namespace
}  // namespace xtcp::test
