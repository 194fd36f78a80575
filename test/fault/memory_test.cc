// Allocations that fail, one by one: once, and from then on.

#include <netinet/in.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>
#include <xtcp/conn.h>
#include <xtcp/error.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <catch2/catch.hpp>
#include <cerrno>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <mutex>
#include <span>
#include <string>
#include <string_view>
#include <system_error>
#include <thread>

#include "support/alloc_hook.h"
#include "support/deadline.h"
#include "support/fault_control.h"
#include "support/leak_guard.h"
#include "support/raw_peer.h"
#include "support/test_protocol.h"
#include "support/violations.h"

namespace xtcp::test {
namespace {

constexpr std::uint64_t kMost = 500;  // no scenario here allocates as often

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

// Allocates nothing itself.
class EchoHandler final : public Handler {
 public:
  void OnEvent(EventType event, const ConnPtr& conn, PacketPtr packet) override {
    if (event == EventType::kAccept) {
      std::lock_guard lock(mutex);
      last = conn;
      ++accepted;
    } else if (event == EventType::kRecv) {
      static_cast<void>(conn->Send(static_cast<const View&>(*packet).frame));
    } else {
      ++closed;
      if (conn->Stats().reason == CloseReason::kNoMemory) ++no_memory;
    }
  }

  ConnPtr Last() {
    std::lock_guard lock(mutex);
    return last;
  }

  std::atomic<std::size_t> accepted{0}, closed{0}, no_memory{0};

 private:
  std::mutex mutex;
  ConnPtr last;
};

// Like RawPeer, but it allocates nothing. Its calls have a deadline.
class PlainPeer {
 public:
  explicit PlainPeer(const sockaddr_in& address) {
    fd_ = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    const timeval deadline{.tv_sec = kDeadline.count(), .tv_usec = 0};
    ::setsockopt(fd_, SOL_SOCKET, SO_RCVTIMEO, &deadline, sizeof deadline);
    ::connect(fd_, reinterpret_cast<const sockaddr*>(&address), sizeof address);
  }
  ~PlainPeer() { ::close(fd_); }
  PlainPeer(const PlainPeer&) = delete;
  PlainPeer& operator=(const PlainPeer&) = delete;

  bool Send(std::string_view bytes) {
    return ::send(fd_, bytes.data(), bytes.size(), MSG_NOSIGNAL) ==
           static_cast<ssize_t>(bytes.size());
  }
  // False at the end of the stream.
  bool Read(std::size_t size) {
    std::array<char, 4096> buffer;
    while (size > 0) {
      const ssize_t n = ::recv(fd_, buffer.data(), std::min(size, buffer.size()), 0);
      if (n <= 0) return false;
      size -= static_cast<std::size_t>(n);
    }
    return true;
  }

 private:
  int fd_ = -1;
};

sockaddr_in Loopback(std::uint16_t port) {
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_port = htons(port);
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  return address;
}

// One connection with a packet in one piece, one in two, and a send from another thread, which
// queues. What `Send` said, EIO when it did not come to that.
std::error_code Scenario(EchoHandler& handler, const sockaddr_in& address, std::string_view frame,
                         std::string_view large) {
  const std::error_code ended(EIO, std::system_category());
  const std::size_t before = handler.accepted;
  PlainPeer peer(address);
  if (!peer.Send(frame) || !peer.Read(frame.size())) return ended;
  if (!peer.Send(frame.substr(0, 100))) return ended;
  if (!peer.Send(frame.substr(100)) || !peer.Read(frame.size())) return ended;
  if (handler.accepted == before) return ended;
  const std::error_code error = handler.Last()->Send(AsBytes(large));
  return error || peer.Read(large.size()) ? error : ended;
}

// Counts the lines about refused connections; needs no memory for it.
struct RefusalCounter : Logger {
  bool Enabled(LogLevel level) const override { return level <= LogLevel::kWarn; }
  void Log(LogLevel, std::string_view text, const char*, int) override {
    if (text.starts_with("a connection was refused")) ++lines;
  }
  std::atomic<std::uint64_t> lines{0};
};

TEST_CASE("an allocation that fails costs at most its own connection", "[F4][E2][B1]") {
  const std::size_t loops = GENERATE(1u, 2u);
  const std::uint64_t times = GENERATE(std::uint64_t{1}, FailAllocations::kAlways);
  CAPTURE(loops, times);
  FaultPlan plan;
  const std::string frame = Frame(std::string(60'000, 'f'));
  const std::string large(300'000, 'l');
  std::size_t refused_sends = 0, no_memory = 0;
  std::uint64_t refused = 0, n = 0;
  for (bool failed = true; failed && n < kMost;) {
    CAPTURE(++n);
    auto log = std::make_shared<RefusalCounter>();
    SetLogger(log);
    auto handler = std::make_shared<EchoHandler>();
    Options options{handler, std::make_shared<ViewProtocol>()};
    options.loops = loops;
    Server server(options);
    REQUIRE_FALSE(server.Listen("127.0.0.1:0"));
    std::thread thread([&] { static_cast<void>(server.Serve()); });
    const sockaddr_in address = Loopback(server.Addresses().at(0).Port());
    PlainPeer bystander(address);
    const bool stands = bystander.Send(frame) && bystander.Read(frame.size());
    std::error_code sent;
    // No read brings a whole frame, so that the connection needs memory for its beginning.
    plan.Add({.site = Site::kRecv, .times = Fault::kAlways, .max_bytes = 40'000});
    {
      const FailAllocations fail(n, times);
      sent = Scenario(*handler, address, frame, large);
      failed = fail.failed();
    }
    plan.Clear();
    const bool unaffected = bystander.Send(frame) && bystander.Read(frame.size());
    const std::error_code sent_then = Scenario(*handler, address, frame, large);
    WithinDeadline("a stop", [&] {
      static_cast<void>(server.Stop(StopMode::kImmediately));
      thread.join();
    });
    SetLogger(nullptr);
    CHECK(stands);
    CHECK(unaffected);
    CHECK_FALSE(sent_then);
    const bool expected =
        !sent || sent == Errc::kNoMemory || sent == Errc::kClosed || sent == std::errc::io_error;
    CHECK(expected);
    const ServerStats stats = server.Stats();
    CHECK(stats.accepted == stats.closed);
    CHECK(stats.accepted_bytes == stats.written_bytes + stats.unsent_bytes);
    CHECK(handler->accepted == handler->closed);
    CHECK(log->lines == stats.refused);
    refused_sends += sent == Errc::kNoMemory;
    refused += stats.refused;
    no_memory += handler->no_memory;
  }
  CHECK(n > 3);
  CHECK(n < kMost);
  CHECK(refused_sends > 0);
  CHECK(refused > 0);
  CHECK(no_memory > 0);
}

TEST_CASE("a start without memory says so, and leaves nothing", "[F4][R5]") {
  const std::uint64_t times = GENERATE(std::uint64_t{1}, FailAllocations::kAlways);
  const FaultPlan no_faults;
  std::size_t refusals = 0;
  std::uint64_t n = 0;
  for (bool failed = true; failed && n < kMost;) {
    CAPTURE(++n);
    auto handler = std::make_shared<EchoHandler>();
    Options options{handler, std::make_shared<ViewProtocol>()};
    options.loops = 2;
    Server server(options);
    Signal served;
    std::atomic<bool> go{false};
    std::error_code listened, error;
    std::thread thread([&] {
      while (!go) std::this_thread::yield();
      listened = server.Listen("127.0.0.1:0");
      if (!listened) error = server.Serve();
      served.Set();
    });
    {
      const FailAllocations fail(n, times);
      // A start that works ends with two loops that wait, and goes on until it is stopped.
      const std::uint64_t waits = CallsOf(Site::kEpollWait) + options.loops;
      go = true;
      const bool over =
          WaitUntil([&] { return served.IsSet() || CallsOf(Site::kEpollWait) >= waits; });
      if (!over) Die("a start neither fails nor serves");
      failed = fail.failed();
    }
    WithinDeadline("a stop", [&] {
      static_cast<void>(server.Stop(StopMode::kImmediately));
      thread.join();
    });
    const std::error_code outcome = listened ? listened : error;
    const bool expected =
        !outcome || outcome == Errc::kNoMemory || outcome == std::errc::not_enough_memory;
    CHECK(expected);
    refusals += bool(outcome);
  }
  CHECK(n < kMost);
  CHECK(refusals > 3);
}

// Ends its connection as soon as it stands, and allocates nothing itself.
class StoppingHandler final : public Handler {
 public:
  void OnEvent(EventType event, const ConnPtr& conn, PacketPtr) override {
    if (event == EventType::kConnected) {
      ++connected;
      static_cast<void>(conn->Stop(StopMode::kImmediately));
    } else {
      ++closed;
    }
  }

  std::size_t connected = 0, closed = 0;
};

TEST_CASE("a dial without memory says so, and leaves nothing", "[F4][M29][M31][R5]") {
  const std::uint64_t times = GENERATE(std::uint64_t{1}, FailAllocations::kAlways);
  const bool by_name = GENERATE(false, true);
  if (by_name && !HasLocalhost()) return;
  CAPTURE(times, by_name);
  const FaultPlan no_faults;
  RawListener listener;
  const std::string address =
      by_name ? "localhost:" + std::to_string(listener.port()) : listener.address();
  std::size_t refusals = 0;
  std::uint64_t n = 0;
  for (bool failed = true; failed && n < kMost;) {
    CAPTURE(++n);
    const std::size_t descriptors = Holdings::Now().descriptors;
    auto handler = std::make_shared<StoppingHandler>();
    const ConnPtr conn = NewConn({handler, std::make_shared<ViewProtocol>()});
    REQUIRE_FALSE(conn->Send("lost"));
    std::error_code error;
    bool threw = false;
    WithinDeadline("a dial", [&] {
      const FailAllocations fail(n, times);
      try {
        error = conn->DialAndServe(address);
      } catch (...) {
        threw = true;
      }
      failed = fail.failed();
    });
    CHECK_FALSE(threw);
    const ConnStats stats = conn->Stats();
    if (error) {
      const bool expected = error == Errc::kNoMemory || error == std::errc::not_enough_memory;
      CHECK(expected);
      CHECK(handler->connected == 0);
      CHECK(stats.reason == CloseReason::kConnectFailed);
      CHECK(stats.error == error);
      ++refusals;
    } else {
      CHECK(handler->connected == 1);
      CHECK(stats.reason == CloseReason::kLocalStop);
    }
    CHECK(handler->closed == handler->connected);
    CHECK(stats.unsent_bytes() == 4);
    CHECK(conn->Send("x") == Errc::kClosed);
    CHECK(handler.use_count() == 1);
    CHECK(Holdings::Now().descriptors == descriptors);
    static_cast<void>(listener.Accept(std::chrono::milliseconds(0)));
  }
  CHECK(n < kMost);
  CHECK(refusals > 3);
}

// User data that takes its time to go.
struct Slow {
  std::atomic<bool>* gone;
  ~Slow() {
    WaitUntil([] { return false; }, std::chrono::milliseconds(30));
    *gone = true;
  }
};

TEST_CASE("no stop of a dial that hangs needs memory, and none returns early",
          "[S8][M20][M22][M29][M32]") {
  const StopMode mode = GENERATE(StopMode::kImmediately, StopMode::kGracefullyButNotWait,
                                 StopMode::kGracefullyAndWait);
  const FaultPlan no_faults;
  // A queue that is full drops further SYNs.
  RawListener listener(0);
  RawPeer fills_it(listener.port());
  const std::string address = listener.address();
  auto handler = std::make_shared<StoppingHandler>();
  const ConnPtr conn = NewConn({handler, std::make_shared<ViewProtocol>()});
  std::atomic<bool> gone{false};
  conn->UserData() = std::shared_ptr<Slow>(new Slow{&gone});
  const std::uint64_t connects = CallsOf(Site::kConnect);
  std::error_code error;
  Signal ended;
  std::thread dialling([&] {
    error = conn->DialAndServe(address);
    ended.Set();
  });
  const bool hangs = WaitUntil([&] { return CallsOf(Site::kConnect) > connects; });
  std::atomic<bool> go{false};
  bool gone_at_return = false;
  long held_at_return = 0;
  Signal stopped;
  std::thread stopping([&] {
    WaitUntil([&] { return go.load(); });
    static_cast<void>(conn->Stop(mode));
    gone_at_return = gone;
    held_at_return = handler.use_count();
    stopped.Set();
  });
  {
    const NoMemory none;
    go = true;
    static_cast<void>(WaitUntil([&] { return stopped.IsSet() && ended.IsSet(); }));
  }
  if (!stopped.IsSet() || !ended.IsSet()) Die("a dial does not end");
  stopping.join();
  dialling.join();
  CHECK(hangs);
  CHECK(error == Errc::kStopped);
  CHECK(conn->Stats().reason == CloseReason::kConnectFailed);
  CHECK(handler->connected + handler->closed == 0);
  CHECK(gone);
  if (mode == StopMode::kGracefullyAndWait) {
    CHECK(gone_at_return);
    CHECK(held_at_return == 1);
  }
}

}  // namespace
}  // namespace xtcp::test
