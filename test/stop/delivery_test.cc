// What a graceful stop delivers, and what it says of the rest.

#include <sys/ioctl.h>
#include <sys/socket.h>
#include <time.h>

#include <atomic>
#include <catch2/catch.hpp>
#include <chrono>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "support/event_recorder.h"
#include "support/random.h"
#include "support/raw_peer.h"
#include "support/test_client.h"
#include "support/test_protocol.h"
#include "support/test_server.h"

namespace xtcp::test {
namespace {

using std::chrono::milliseconds;

#if !defined(__SANITIZE_THREAD__)  // it takes a look at the library's descriptor for a race
// Waits until the kernel holds at least `size` bytes that nobody has read.
bool WaitForUnread(int fd, std::size_t size) {
  std::vector<char> buffer(size);
  return WaitUntil([&] {
    const ssize_t n = ::recv(fd, buffer.data(), size, MSG_PEEK | MSG_DONTWAIT);
    return n == static_cast<ssize_t>(size);
  });
}
#endif

TEST_CASE("unread input does not destroy output that is on its way", "[M19][M18][B2][S7]") {
  const bool server_wide = GENERATE(true, false);
  const StopMode mode = GENERATE(StopMode::kGracefullyButNotWait, StopMode::kGracefullyAndWait);
  constexpr std::size_t kOutput = 1 << 20;
  constexpr std::size_t kInput = 64 << 10;
  auto events = std::make_shared<EventRecorder>();
  std::atomic<int> descriptor{-1};
  events->on_accept = [&](const ConnPtr& conn) {
    conn->PauseRecv();
    descriptor = conn->Descriptor();
  };
  TestServer server(events);
  RawPeer peer(server.port(), 4096);
  REQUIRE(WaitUntil([&] { return descriptor >= 0; }));
  const ConnPtr conn = events->conn();
  REQUIRE(peer.SendAll(std::string(kInput, 'i')));
#if !defined(__SANITIZE_THREAD__)
  REQUIRE(WaitForUnread(descriptor, kInput / 4));  // the rest may wait in the peer's kernel
#endif
  REQUIRE_FALSE(conn->Send(std::string(kOutput, 'o')));
  std::thread stopper([&] {
    WithinDeadline("a stop",
                   [&] { static_cast<void>(server_wide ? server->Stop(mode) : conn->Stop(mode)); });
  });
  REQUIRE(WaitUntil([&] { return conn->IsStopped(); }));
  std::string received;
  REQUIRE(peer.ReadAll(&received) == End::kEof);
  REQUIRE(received == std::string(kOutput, 'o'));
  peer.Close();
  stopper.join();
  REQUIRE(server.Finish() == "");
  REQUIRE(conn->Stats().unacked_bytes == 0);
}

TEST_CASE("a peer that goes on sending gets everything, too", "[M19][B2][S7]") {
  auto events = std::make_shared<EventRecorder>();
  events->keep_payloads = false;
  TestServer server(events);
  RawPeer peer(server.port());
  REQUIRE(events->WaitForAccepted(1));
  std::atomic<bool> enough{false};
  std::thread sending([&] {
    const std::string frame = Frame(std::string(4000, 's'));
    while (!enough && peer.SendAll(frame, milliseconds(1000))) {
    }
  });
  REQUIRE(events->WaitForPackets(10));
  const ConnPtr conn = events->conn();
  REQUIRE_FALSE(conn->Send(std::string(1 << 20, 'o')));
  static_cast<void>(conn->Stop(StopMode::kGracefullyButNotWait));
  std::string received;
  REQUIRE(peer.ReadAll(&received) == End::kEof);
  REQUIRE(received.size() == 1 << 20);
  enough = true;
  sending.join();
  peer.Close();
  REQUIRE(events->WaitForClosed(1));
  REQUIRE(conn->Stats().reason == CloseReason::kLocalStop);
  REQUIRE(server.Finish() == "");
}

TEST_CASE("everything queued goes out before the FIN, in pieces of every size", "[B2][B4]") {
  const StopMode mode = GENERATE(StopMode::kGracefullyButNotWait, StopMode::kGracefullyAndWait);
  Options options;
  options.send_buffer_limit = 256 << 20;
  auto events = std::make_shared<EventRecorder>();
  TestServer server(events, options);
  RawPeer peer(server.port());
  REQUIRE(events->WaitForAccepted(1));
  const ConnPtr conn = events->conn();
  std::atomic<std::size_t> accepted{0};
  const auto send_many = [&](std::uint64_t stream) {
    Random random(stream);
    for (int i = 0; i < 50; ++i) {
      const std::string bytes(random.Between(1, random.OneIn(5) ? 1 << 20 : 5000), 'x');
      if (!conn->Send(bytes)) accepted += bytes.size();
    }
  };
  std::thread one([&] { send_many(1); }), two([&] { send_many(2); });
  one.join();
  two.join();
  std::thread stopper([&] { static_cast<void>(conn->Stop(mode)); });
  std::string received;
  REQUIRE(peer.ReadAll(&received) == End::kEof);
  REQUIRE(received.size() == accepted);
  peer.Close();
  stopper.join();
  REQUIRE(server.Finish() == "");
}

TEST_CASE("Send and then Stop on another thread: the bytes arrive", "[M10][B2][S2]") {
  const StopMode mode = GENERATE(StopMode::kGracefullyButNotWait, StopMode::kGracefullyAndWait);
  constexpr int kConnections = 200;
  auto events = std::make_shared<EventRecorder>();
  TestServer server(events, {});
  const std::string bytes(100 << 10, 'x');
  for (int i = 0; i < kConnections; ++i) {
    RawPeer peer(server.port());
    REQUIRE(events->WaitForAccepted(static_cast<std::size_t>(i) + 1));
    const ConnPtr conn = events->conn(static_cast<std::size_t>(i));
    std::thread sender([&] {
      static_cast<void>(conn->Send(bytes));
      static_cast<void>(conn->Stop(mode));
    });
    const End end = peer.ReadAll();
    const std::uint64_t received = peer.received();
    peer.Close();
    sender.join();
    REQUIRE(end == End::kEof);
    REQUIRE(received == bytes.size());
  }
  REQUIRE(server.Finish() == "");
}

TEST_CASE("a stop is a point in the order of sends", "[M10][B4]") {
  auto events = std::make_shared<EventRecorder>();
  TestServer server(events);
  for (int round = 0; round < 50; ++round) {
    RawPeer peer(server.port());
    REQUIRE(events->WaitForAccepted(static_cast<std::size_t>(round) + 1));
    const ConnPtr conn = events->conn(static_cast<std::size_t>(round));
    std::atomic<std::uint64_t> accepted{0};
    std::vector<std::thread> senders;
    for (int t = 0; t < 3; ++t) {
      senders.emplace_back([&] {
        while (!conn->Send("0123456789")) accepted += 10;
      });
    }
    REQUIRE(WaitUntil([&] { return accepted > 100; }));
    static_cast<void>(conn->Stop(StopMode::kGracefullyButNotWait));
    REQUIRE(peer.ReadAll() == End::kEof);
    for (std::thread& sender : senders) sender.join();
    REQUIRE(peer.received() == accepted);
    peer.Close();
  }
  REQUIRE(server.Finish() == "");
}

TEST_CASE("the peer's FIN: what is queued is delivered", "[M16][B1]") {
  auto events = std::make_shared<EventRecorder>();
  events->on_recv = [](const ConnPtr& conn, std::string_view) {
    static_cast<void>(conn->Send(std::string(8 << 20, 'x')));
  };
  TestServer server(events);
  RawPeer peer(server.port());
  REQUIRE(peer.SendAll(Frame("go")));
  peer.HalfClose();
  REQUIRE(events->WaitForPackets(1));
  REQUIRE(WaitUntil([&] { return events->conn()->IsStopped(); }));
  REQUIRE(events->conn()->Send("late") != std::error_code());
  REQUIRE(peer.ReadAll() == End::kEof);
  REQUIRE(peer.received() == 8 << 20);
  REQUIRE(events->WaitForClosed(1));
  REQUIRE(events->conn()->Stats().reason == CloseReason::kPeerClosed);
  REQUIRE(server.Finish() == "");
}

TEST_CASE("the peer's FIN: without progress linger_timeout ends it", "[M16][R8]") {
  Options options;
  options.linger_timeout = milliseconds(150);
  auto events = std::make_shared<EventRecorder>();
  events->on_recv = [](const ConnPtr& conn, std::string_view) {
    static_cast<void>(conn->Send(std::string(12 << 20, 'x')));
  };
  TestServer server(events, options);
  RawPeer peer(server.port(), 4096);
  REQUIRE(peer.SendAll(Frame("go")));
  peer.HalfClose();
  REQUIRE(events->WaitForClosed(1));
  const ConnStats stats = events->conn()->Stats();
  REQUIRE(stats.reason == CloseReason::kLingerTimeout);
  REQUIRE(stats.unsent_bytes() > 0);
  REQUIRE(server.Finish() == "");
  REQUIRE(server.report().cut == 0);  // no stop ran
}

TEST_CASE("a reset ends a graceful stop, and is no cut", "[M17][M19][M21]") {
  auto events = std::make_shared<EventRecorder>();
  TestServer server(events);
  RawPeer peer(server.port(), 4096);
  REQUIRE(events->WaitForAccepted(1));
  const ConnPtr conn = events->conn();
  REQUIRE_FALSE(conn->Send(std::string(12 << 20, 'x')));
  static_cast<void>(conn->Stop(StopMode::kGracefullyButNotWait));
  peer.Reset();
  StopReport report;
  WithinDeadline("a stop", [&] { report = conn->Stop(StopMode::kGracefullyAndWait); });
  REQUIRE(conn->Stats().reason == CloseReason::kPeerReset);
  REQUIRE(report.connections == 1);
  REQUIRE(report.cut == 0);
  REQUIRE(report.unsent_bytes == conn->Stats().unsent_bytes());
  REQUIRE(report.unsent_bytes > 0);
  REQUIRE(server.Finish() == "");
}

TEST_CASE("a clean stop reports zero, on Unix sockets as well", "[M21][M23][B1]") {
  const std::string address = GENERATE("127.0.0.1:0", "unix:@xtcp-test-clean-stop");
  auto events = std::make_shared<EventRecorder>();
  TestServer server(events, {}, address);
  RawPeer peer(server.address());
  REQUIRE(events->WaitForAccepted(1));
  REQUIRE_FALSE(events->conn()->Send(std::string(3 << 20, 'x')));
  std::thread reader([&] {
    static_cast<void>(peer.ReadAll());
    peer.Close();
  });
  std::string problems;
  problems = server.Finish(StopMode::kGracefullyButNotWait);
  reader.join();
  REQUIRE(problems == "");
  REQUIRE(server.report().connections == 1);
  REQUIRE(server.report().cut == 0);
  REQUIRE(server.report().unsent_bytes == 0);
  REQUIRE(server.report().unacked_bytes == 0);
  REQUIRE(peer.received() == 3 << 20);
}

TEST_CASE("unacknowledged bytes are exact: our FIN is none of them", "[M21][M23][B1]") {
  Options options;
  options.linger_timeout = milliseconds(100);
  auto events = std::make_shared<EventRecorder>();
  TestServer server(events, options);
  RawPeer peer(server.port(), 4096);
  REQUIRE(events->WaitForAccepted(1));
  const ConnPtr conn = events->conn();
  // All of it fits into the kernel, so the FIN goes out behind it; the peer's window does not take it.
  constexpr std::size_t kSize = 500'000;
  REQUIRE_FALSE(conn->Send(std::string(kSize, 'x')));
  StopReport report;
  WithinDeadline("a stop", [&] { report = conn->Stop(StopMode::kGracefullyAndWait); });
  int in_peer = 0;
  REQUIRE(::ioctl(peer.fd(), FIONREAD, &in_peer) == 0);
  REQUIRE(report.cut == 1);
  REQUIRE(conn->Stats().written_bytes == kSize);
  REQUIRE(report.unacked_bytes == kSize - static_cast<std::size_t>(in_peer));
  REQUIRE(server.Finish() == "");
}

TEST_CASE("linger_timeout 0 writes what the kernel takes at once", "[M19]") {
  Options options;
  options.linger_timeout = milliseconds(0);
  auto events = std::make_shared<EventRecorder>();
  TestServer server(events, options);
  RawPeer peer(server.port(), 4096);
  REQUIRE(events->WaitForAccepted(1));
  const ConnPtr conn = events->conn();
  REQUIRE_FALSE(conn->Send(std::string(12 << 20, 'x')));
  StopReport report;
  WithinDeadline("a stop", [&] { report = conn->Stop(StopMode::kGracefullyAndWait); });
  REQUIRE(report.cut == 1);
  REQUIRE(report.unsent_bytes > 0);
  REQUIRE(conn->Stats().written_bytes > 0);
  REQUIRE(server.Finish() == "");
}

TEST_CASE("a peer that takes no output does not make a graceful stop spin", "[R7][S7]") {
  // shutdown(SHUT_RD) on a Unix socket: our write fails with EPIPE, and no end of stream comes.
  Options options;
  options.linger_timeout = milliseconds(1000);
  auto events = std::make_shared<EventRecorder>();
  events->on_recv = [](const ConnPtr& conn, std::string_view) {
    static_cast<void>(conn->Send("answer"));
    static_cast<void>(conn->Stop(StopMode::kGracefullyButNotWait));
  };
  TestServer server(events, options, "unix:@xtcp-test-no-output");
  RawPeer peer(server.address());
  REQUIRE(events->WaitForAccepted(1));
  REQUIRE(::shutdown(peer.fd(), SHUT_RD) == 0);
  timespec begin{}, end{};
  ::clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &begin);
  REQUIRE(peer.SendAll(Frame("go")));
  REQUIRE(events->WaitForClosed(1));
  ::clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &end);
  REQUIRE(events->conn()->Stats().reason == CloseReason::kPeerReset);
  const double cpu = static_cast<double>(end.tv_sec - begin.tv_sec) +
                     static_cast<double>(end.tv_nsec - begin.tv_nsec) * 1e-9;
  REQUIRE(cpu < 0.5);
  REQUIRE(server.Finish() == "");
}

TEST_CASE("nothing is written after an immediate stop, also from OnSendReady", "[S1][M19]") {
  Options options;
  options.send_buffer_limit = 1000;
  auto events = std::make_shared<EventRecorder>();
  events->on_recv = [](const ConnPtr& conn, std::string_view) {
    static_cast<void>(conn->Send(std::string(1000, 'x')));
    static_cast<void>(conn->Send("refused"));
  };
  events->on_send_ready = [](const ConnPtr& conn) {
    static_cast<void>(conn->Send("late"));
    static_cast<void>(conn->Stop(StopMode::kImmediately));
  };
  TestServer server(events, options);
  RawPeer peer(server.port());
  REQUIRE(peer.SendAll(Frame("go")));
  REQUIRE(events->WaitForClosed(1));
  const ConnStats stats = events->conn()->Stats();
  REQUIRE(stats.accepted_bytes == 1004);
  REQUIRE(stats.written_bytes == 1000);
  REQUIRE(server.Finish() == "");
}

TEST_CASE("the linger of a stop begins with the stop, not with a long callback before it",
          "[M19][B2][R8]") {
  Options options;
  options.linger_timeout = milliseconds(1000);
  options.read_deadline = milliseconds(60'000);  // so that the turn has looked at the clock
  auto events = std::make_shared<EventRecorder>();
  events->on_recv = [](const ConnPtr& conn, std::string_view) {
    // Longer than the linger.
    static_cast<void>(WaitUntil([] { return false; }, milliseconds(1200)));
    static_cast<void>(conn->Send(std::string(12 << 20, 'x')));
    static_cast<void>(conn->Stop(StopMode::kGracefullyButNotWait));
  };
  TestServer server(events, options);
  RawPeer peer(server.port(), 4096);
  REQUIRE(peer.SendAll(Frame("go")));
  REQUIRE(peer.ReadAll() == End::kEof);
  REQUIRE(peer.received() == 12 << 20);
  peer.Close();
  REQUIRE(server.Finish() == "");
}

}  // namespace
}  // namespace xtcp::test
