// What a byte costs: system calls, counted at the seam, and allocations.

#include <sys/socket.h>
#include <xtcp/error.h>

#include <array>
#include <atomic>
#include <catch2/catch.hpp>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "support/alloc_hook.h"
#include "support/fault_control.h"
#include "support/raw_peer.h"
#include "support/test_protocol.h"
#include "support/test_server.h"

namespace xtcp::test {
namespace {

// A packet that is a view, as M3 allows.
class View final : public Packet {
 public:
  explicit View(std::span<const std::byte> bytes) : frame(bytes) {}
  const std::span<const std::byte> frame;
};

class ViewProtocol final : public Protocol {
 public:
  std::size_t PackSize(const Packet&) const override { return 0; }
  std::error_code PackTo(const Packet&, Writer&) const override { return Errc::kBadPacket; }
  UnpackResult Unpack(std::span<const std::byte> buf) const override {
    Reader in(buf);
    static_cast<void>(in.Bytes(in.U32Be()));
    if (in.failed()) return {};
    return {std::make_unique<View>(buf.first(in.consumed())), in.consumed(), {}};
  }
};

class Echo final : public Handler {
 public:
  void OnEvent(EventType event, const ConnPtr& conn, PacketPtr packet) override {
    if (event == EventType::kAccept) ++accepted;
    if (packet == nullptr) return;
    if (sets_timer) conn->SetTimer(std::chrono::seconds(30));
    if (conn->Send(static_cast<const View&>(*packet).frame)) failed = true;
  }
  std::atomic<int> accepted{0};
  std::atomic<bool> failed{false};
  std::atomic<bool> sets_timer{false};
};

struct EchoServer {
  EchoServer() : server(Options{handler, std::make_shared<ViewProtocol>()}) {
    REQUIRE_FALSE(server.Listen("127.0.0.1:0"));
    thread = std::thread([this] { static_cast<void>(server.Serve()); });
    peer = RawPeer(server.Addresses().at(0).Port());
    REQUIRE(WaitUntil([&] { return handler->accepted == 1; }));
  }
  ~EchoServer() {
    static_cast<void>(server.Stop(StopMode::kImmediately));
    thread.join();
  }

  // Sends all of `bytes` and reads as many back. Allocates nothing.
  bool RoundTrip(std::string_view bytes) {
    if (::send(peer.fd(), bytes.data(), bytes.size(), MSG_NOSIGNAL) !=
        static_cast<ssize_t>(bytes.size())) {
      return false;
    }
    for (std::size_t got = 0; got < bytes.size();) {
      const ssize_t n = ::recv(peer.fd(), back.data(), back.size(), 0);
      if (n <= 0) return false;
      got += static_cast<std::size_t>(n);
    }
    return true;
  }

  FaultPlan no_faults;
  std::shared_ptr<Echo> handler = std::make_shared<Echo>();
  Server server;
  std::thread thread;
  RawPeer peer;
  std::array<char, 65536> back{};
};

struct Calls {
  std::uint64_t recv = CallsOf(Site::kRecv);
  std::uint64_t send = CallsOf(Site::kSend) + CallsOf(Site::kSendMsg);
  std::uint64_t epoll_ctl = CallsOf(Site::kEpollCtl);
  std::uint64_t write = CallsOf(Site::kWrite);
};

TEST_CASE("one packet in flight: one read and one write a packet", "[M13][R7]") {
  constexpr std::uint64_t kPackets = 1000;
  EchoServer echo;
  const std::string frame = Frame(std::string(64, 'x'));
  REQUIRE(echo.RoundTrip(frame));
  const Calls before;
  for (std::uint64_t i = 0; i < kPackets; ++i) REQUIRE(echo.RoundTrip(frame));
  const Calls after;
  REQUIRE(after.recv - before.recv == kPackets);
  REQUIRE(after.send - before.send == kPackets);
  REQUIRE(after.epoll_ctl == before.epoll_ctl);
  REQUIRE(after.write == before.write);
  REQUIRE_FALSE(echo.handler->failed);
}

TEST_CASE("64 packets in one segment: one read, one write", "[M13]") {
  VirtualClock clock;  // they fit into a turn's time on any machine
  EchoServer echo;
  std::string segment;
  for (int i = 0; i < 64; ++i) segment += Frame(std::string(64, 'x'));
  REQUIRE(echo.RoundTrip(segment));
  const Calls before;
  REQUIRE(echo.RoundTrip(segment));
  const Calls after;
  REQUIRE(after.recv - before.recv == 1);
  REQUIRE(after.send - before.send == 1);
  REQUIRE(after.epoll_ctl == before.epoll_ctl);
}

// How often each call was made that a connection's life needs.
std::map<std::string, std::uint64_t> CallsOfALife() {
  return {{"accept4", CallsOf(Site::kAccept4)},
          {"setsockopt", CallsOf(Site::kSetSockOpt)},
          {"getsockname", CallsOf(Site::kGetSockName)},
          {"getpeername", CallsOf(Site::kGetPeerName)},
          {"epoll_ctl", CallsOf(Site::kEpollCtl)},
          {"recv", CallsOf(Site::kRecv)},
          {"send", CallsOf(Site::kSend)},
          {"sendmsg", CallsOf(Site::kSendMsg)},
          {"shutdown", CallsOf(Site::kShutdown)},
          {"ioctl", CallsOf(Site::kIoctlOutq)},
          {"getsockopt", CallsOf(Site::kGetSockOpt)},
          {"close", CallsOf(Site::kClose)}};
}

// docs/decisions/0021 says why each of them is made.
TEST_CASE("a short connection takes the calls that it needs", "[M13][R7][seen-23]") {
  constexpr std::uint64_t kConnections = 100;
  const bool reset = GENERATE(false, true);
  CAPTURE(reset);
  EchoServer echo;
  const std::string frame = Frame("x");
  REQUIRE(echo.RoundTrip(frame));
  const auto before = CallsOfALife();
  for (std::uint64_t i = 1; i <= kConnections; ++i) {
    RawPeer peer(echo.server.Addresses().at(0).Port());
    REQUIRE(peer.SendAll(frame));
    std::string answer;
    REQUIRE(peer.ReadExactly(frame.size(), &answer) == End::kOpen);
    REQUIRE(answer == frame);
    if (reset) {
      peer.Reset();
    } else {
      peer.Close();
    }
    REQUIRE(WaitUntil([&] { return echo.server.Stats().closed == i; }));
  }
  auto made = CallsOfALife();
  for (auto& [name, count] : made) count -= before.at(name);
  // One at a time, so that each finds the queue of connections empty after its own.
  const std::map<std::string, std::uint64_t> expected = {{"accept4", 2 * kConnections},
                                                         {"setsockopt", 0},
                                                         {"getsockname", 0},
                                                         {"getpeername", 0},
                                                         {"epoll_ctl", 2 * kConnections},
                                                         {"recv", 2 * kConnections},
                                                         {"send", kConnections},
                                                         {"sendmsg", 0},
                                                         {"shutdown", 0},
                                                         {"ioctl", kConnections},
                                                         {"getsockopt", 0},
                                                         {"close", kConnections}};
  CHECK(made == expected);
}

// Calls of all kinds, the clock's included.
std::uint64_t AllCalls() {
  std::uint64_t calls = 0;
  for (std::size_t site = 0; site < static_cast<std::size_t>(Site::kCount); ++site) {
    calls += CallsOf(static_cast<Site>(site));
  }
  return calls;
}

TEST_CASE("a timer that each packet sets anew costs none of them a call", "[M50]") {
  constexpr std::uint64_t kTurns = 200;
  VirtualClock clock;  // a segment fits into one turn's time on any machine
  EchoServer echo;
  std::string segment;
  for (int i = 0; i < 64; ++i) segment += Frame(std::string(64, 'x'));
  const auto count_calls = [&] {
    bool good = echo.RoundTrip(segment);
    const std::uint64_t before = AllCalls();
    for (std::uint64_t i = 0; i < kTurns; ++i) good = good && echo.RoundTrip(segment);
    const std::uint64_t calls = AllCalls() - before;
    REQUIRE(good);
    return calls;
  };
  const std::uint64_t without = count_calls();
  echo.handler->sets_timer = true;
  const std::uint64_t with = count_calls();
  CAPTURE(without, with);
  // For all 64 settings of a turn: when the iteration began, and how long the next one may wait.
  CHECK(with <= without + 2 * kTurns);
}

TEST_CASE("once warm the library allocates nothing", "[R6]") {
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
  constexpr int kPackets = 20'000;  // packets come from the allocator there, so only half the truth
#else
  constexpr int kPackets = 1'000'000;
#endif
  EchoServer echo;
  // Whole frames, and frames cut in the middle, whose tails wait in the buffer.
  const std::string frame = Frame(std::string(64, 'x'));
  const std::string halves = frame + frame.substr(0, 30);
  const std::string rest = frame.substr(30);
  const auto round = [&] {
    if (!echo.RoundTrip(frame)) return false;
    if (::send(echo.peer.fd(), halves.data(), halves.size(), 0) < 0) return false;
    for (std::size_t got = 0; got < frame.size();) {
      const ssize_t n = ::recv(echo.peer.fd(), echo.back.data(), echo.back.size(), 0);
      if (n <= 0) return false;
      got += static_cast<std::size_t>(n);
    }
    if (::send(echo.peer.fd(), rest.data(), rest.size(), 0) < 0) return false;
    for (std::size_t got = 0; got < frame.size();) {
      const ssize_t n = ::recv(echo.peer.fd(), echo.back.data(), echo.back.size(), 0);
      if (n <= 0) return false;
      got += static_cast<std::size_t>(n);
    }
    return true;
  };
  std::string segment;
  for (int i = 0; i < 64; ++i) segment += frame;
  for (int i = 0; i < 100; ++i) REQUIRE((round() && echo.RoundTrip(segment)));
  const std::uint64_t before = Allocations();
  bool good = true;
  // Some of them as above, most of them many at a time.
  for (int sent = 0; sent < kPackets / 50 && good; sent += 3) good = round();
  for (int sent = kPackets / 50; sent < kPackets && good; sent += 64)
    good = echo.RoundTrip(segment);
  const std::uint64_t allocations = Allocations() - before;
  REQUIRE(good);
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
  REQUIRE(allocations <= static_cast<std::uint64_t>(kPackets) + 100);  // the packets
#else
  REQUIRE(allocations == 0);
#endif
}

}  // namespace
}  // namespace xtcp::test
