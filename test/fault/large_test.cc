// What large packets and large sends cost: bytes that are moved, allocations, system calls.

#include <sys/socket.h>

#include <algorithm>
#include <atomic>
#include <catch2/catch.hpp>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <system_error>
#include <thread>
#include <vector>

#include "support/alloc_hook.h"
#include "support/deadline.h"
#include "support/event_recorder.h"
#include "support/fault_control.h"
#include "support/one_connection.h"
#include "support/raw_peer.h"
#include "support/test_protocol.h"
#include "support/test_server.h"

namespace xtcp::test {
namespace {

constexpr std::size_t kMiB = 1 << 20;

// A frame whose bytes nobody wants.
class Nothing final : public Packet {};

// Follows the bytes of the only connection: where those that wait for the rest of their packet are
// when it is asked again.
class FollowingProtocol final : public Protocol {
 public:
  std::size_t PackSize(const Packet&) const override { return 0; }
  std::error_code PackTo(const Packet&, Writer&) const override { return Errc::kBadPacket; }
  UnpackResult Unpack(std::span<const std::byte> buf) const override {
    if (waiting_ > 0 && buf.data() != expected_) moved_ += waiting_;
    Reader in(buf);
    static_cast<void>(in.Bytes(in.U32Be()));
    if (in.failed()) {
      expected_ = buf.data();
      waiting_ = buf.size();
      return {};
    }
    waiting_ = 0;
    return {std::make_unique<Nothing>(), in.consumed(), {}};
  }

  // Bytes that lay elsewhere when they were shown again.
  std::uint64_t moved() const { return moved_; }

 private:
  mutable const std::byte* expected_ = nullptr;
  mutable std::size_t waiting_ = 0;
  mutable std::uint64_t moved_ = 0;
};

TEST_CASE("a received byte is moved once at most, however large its packet", "[X1][R6][seen-21]") {
  constexpr std::size_t kTotal = 64 * kMiB;
  for (const std::size_t size :
       {60'000, 120'000, 200'000, 300'000, 500'000, 1'000'000, 3'000'000, 8'000'000}) {
    CAPTURE(size);
    FaultPlan no_faults;
    const auto protocol = std::make_shared<FollowingProtocol>();
    Options options;
    options.protocol = protocol;
    auto events = std::make_shared<EventRecorder>();
    events->keep_payloads = false;
    OneConnection one(Kind::kAccepted, options, "127.0.0.1:0", events);
    const std::string frame = Frame(std::string(size - kHeaderSize, 'x'));
    std::size_t sent = 0;
    for (; sent < kTotal; sent += size) REQUIRE(one.peer.SendAll(frame));
    REQUIRE(events->WaitForPackets(sent / size));
    REQUIRE(one.Finish() == "");
    CHECK(protocol->moved() <= sent);
  }
}

// What a handler saw of its own sends.
struct Sent {
  std::error_code error;
  std::uint64_t calls = 0;    // system calls within it
  std::uint64_t written = 0;  // bytes taken within it
};

Sent SendNow(const ConnPtr& conn, std::string_view bytes) {
  Sent sent;
  const std::uint64_t calls = CallsOf(Site::kSend) + CallsOf(Site::kSendMsg);
  const std::uint64_t written = conn->Stats().written_bytes;
  sent.error = conn->Send(bytes);
  sent.calls = CallsOf(Site::kSend) + CallsOf(Site::kSendMsg) - calls;
  sent.written = conn->Stats().written_bytes - written;
  return sent;
}

TEST_CASE("a large Send in the connection's turn is offered to the kernel as it is",
          "[M10][M13][seen-22]") {
  const std::string small(100, 's'), below((256 << 10) - 1, 'b'), large(4 * kMiB, 'l');
  FaultPlan plan;
  plan.Add({.site = Site::kSendMsg, .max_bytes = kMiB});  // the kernel takes a part
  std::vector<Sent> sends;
  auto events = std::make_shared<EventRecorder>();
  events->on_recv = [&](const ConnPtr& conn, std::string_view) {
    for (const std::string* bytes : {&small, &below, &large, &large, &small}) {
      sends.push_back(SendNow(conn, *bytes));
    }
  };
  OneConnection one(Kind::kAccepted, {}, "127.0.0.1:0", events);
  REQUIRE(one.peer.SendAll(Frame("x")));
  std::string got;
  REQUIRE(one.peer.ReadExactly(2 * small.size() + below.size() + 2 * large.size(), &got) ==
          End::kOpen);
  REQUIRE(one.Finish() == "");
  const bool in_order = got == small + below + large + large + small;
  CHECK(in_order);
  for (const Sent& send : sends) CHECK_FALSE(send.error);
  // Smaller ones gather for the end of the turn.
  CHECK(sends[0].calls + sends[1].calls == 0);
  // One write takes what has gathered, and more.
  CHECK(sends[2].calls == 1);
  CHECK(sends[2].written > small.size() + below.size());
  // While something is queued, all is queued behind it.
  CHECK(sends[3].calls + sends[4].calls == 0);
}

// Answers each packet with the same bytes.
class Answering final : public Handler {
 public:
  void OnEvent(EventType event, const ConnPtr& conn, PacketPtr) override {
    if (event != EventType::kRecv) return;
    if (conn->Send(answer)) failed = true;
    ++answered;
  }

  const std::string answer = std::string(4 * kMiB, 'a');
  std::atomic<std::size_t> answered{0};
  std::atomic<bool> failed{false};
};

TEST_CASE("large sends, again and again, allocate nothing", "[R6][seen-22]") {
  constexpr std::size_t kRounds = 8;
  FaultPlan no_faults;
  const auto handler = std::make_shared<Answering>();
  Server server({handler, std::make_shared<FollowingProtocol>()});
  REQUIRE_FALSE(server.Listen("127.0.0.1:0"));
  std::thread serving([&] { static_cast<void>(server.Serve()); });
  RawPeer peer(server.Addresses().at(0).Port());
  const std::string question = Frame("x");
  std::vector<char> bytes(64 << 10);
  // The peer reads when the answer has been sent: most of it has to wait.
  const auto ask = [&] {
    const std::size_t before = handler->answered;
    bool good = ::send(peer.fd(), question.data(), question.size(), 0) > 0 &&
                WaitUntil([&] { return handler->answered > before; });
    for (std::size_t left = handler->answer.size(); left > 0 && good;) {
      const ssize_t n = ::recv(peer.fd(), bytes.data(), std::min(bytes.size(), left), 0);
      good = n > 0;
      if (good) left -= static_cast<std::size_t>(n);
    }
    return good;
  };
  bool good = true;
  for (std::size_t i = 0; i < kRounds; ++i) good = good && ask();
  const std::uint64_t before = Allocations();
  for (std::size_t i = 0; i < kRounds; ++i) good = good && ask();
  const std::uint64_t allocations = Allocations() - before;
  static_cast<void>(server.Stop(StopMode::kImmediately));
  serving.join();
  CHECK(good);
  CHECK_FALSE(handler->failed);
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
  CHECK(allocations <= kRounds);  // the packets
#else
  CHECK(allocations == 0);
#endif
}

}  // namespace
}  // namespace xtcp::test
