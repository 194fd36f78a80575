// Each place where a connection or a dial asks for memory, and there is none: it alone pays. Only the
// loop's own thread goes without, from inside its callbacks and system calls.

#include <unistd.h>
#include <xtcp/error.h>

#include <atomic>
#include <catch2/catch.hpp>
#include <cerrno>
#include <cstddef>
#include <memory>
#include <optional>
#include <string>
#include <system_error>
#include <vector>

#include "support/alloc_hook.h"
#include "support/event_recorder.h"
#include "support/fault_control.h"
#include "support/one_connection.h"
#include "support/raw_peer.h"
#include "support/test_client.h"
#include "support/test_protocol.h"
#include "support/test_server.h"

namespace xtcp::test {
namespace {

constexpr std::size_t kMiB = 1 << 20;

// Allocates nothing in its callbacks, so that memory may be short there.
class Plain final : public Handler {
 public:
  std::function<void(const ConnPtr&)> on_recv{};

  void OnEvent(EventType event, const ConnPtr& with, PacketPtr) override {
    if (event == EventType::kRecv) {
      ++packets;
      if (on_recv) on_recv(with);
    } else if (event == EventType::kClosed) {
      here.reset();
      last = with->Stats();
      ++closed;
    } else {
      conn = with;
      ++opened;
    }
  }

  // From here on the loop's thread has no memory, until its connection has closed.
  void NoMoreMemory() { here.emplace(); }

  std::atomic<std::size_t> opened{0}, packets{0}, closed{0};
  ConnPtr conn;    // of the last that opened
  ConnStats last;  // of the last that closed
  std::optional<NoMemoryHere> here;
};

// There is one at a time, for which memory is always there.
class OnlyPacket final : public Packet {
 public:
  static void* operator new(std::size_t) { return place_; }
  static void operator delete(void*) {}

 private:
  alignas(Packet) static inline std::byte place_[sizeof(Packet)];
};

class Frames final : public Protocol {
 public:
  std::size_t PackSize(const Packet&) const override { return 0; }
  std::error_code PackTo(const Packet&, Writer&) const override { return Errc::kBadPacket; }
  UnpackResult Unpack(std::span<const std::byte> buf) const override {
    Reader in(buf);
    static_cast<void>(in.Bytes(in.U32Be()));
    if (in.failed()) return {};
    return {PacketPtr(new OnlyPacket), in.consumed(), {}};
  }
};

std::string UnixAddress() { return "unix:@xtcp-no-memory-" + std::to_string(::getpid()); }

// A server with one connection, and its peer.
struct Scene {
  explicit Scene(Options options = {}, const std::string& address = "127.0.0.1:0") {
    options.handler = handler;
    options.protocol = std::make_shared<Frames>();
    server.emplace(std::move(options));
    REQUIRE_FALSE(server->Listen(address));
    thread = std::thread([this] { static_cast<void>(server->Serve()); });
    peer = Another();
    REQUIRE(WaitUntil([&] { return handler->opened == 1; }));
  }
  ~Scene() {
    WithinDeadline("a stop", [&] {
      static_cast<void>(server->Stop(StopMode::kImmediately));
      thread.join();
    });
  }

  RawPeer Another() const { return RawPeer(server->Addresses().at(0).ToString()); }

  // It has ended for lack of memory, and the next one is served. Its account.
  ConnStats MustHavePaid() {
    REQUIRE(WaitUntil([&] { return handler->closed == 1; }));
    const ConnStats paid = handler->last;
    CHECK(paid.reason == CloseReason::kNoMemory);
    CHECK(paid.error == Errc::kNoMemory);
    CHECK(paid.written_bytes <= paid.accepted_bytes);
    const RawPeer next = Another();
    CHECK(WaitUntil([&] { return handler->opened == 2; }));
    return paid;
  }

  FaultPlan plan;
  const std::shared_ptr<Plain> handler = std::make_shared<Plain>();
  std::optional<Server> server;
  std::thread thread;
  RawPeer peer;
};

TEST_CASE("no memory for the rest of a packet that comes byte by byte", "[F4][E5][B1][seen-28]") {
  // With the smallest buffer it is full sooner or later, and has to grow.
  Options options;
  options.recv_buffer_size = 1;
  Scene scene(options);
  REQUIRE(scene.peer.SendAll(Header(100'000)));
  for (std::size_t sent = kHeaderSize; scene.handler->closed == 0 && sent < 5'000; ++sent) {
    REQUIRE(WaitUntil([&] {
      return scene.handler->closed > 0 || scene.handler->conn->Stats().received_bytes == sent;
    }));
    // Memory goes ahead of the third read: those before make the beginning of a packet wait.
    if (sent == kHeaderSize + 3) {
      scene.plan.Add({.site = Site::kRecv, .act = [&](int) { scene.handler->NoMoreMemory(); }});
    }
    static_cast<void>(scene.peer.SendAll("x"));
  }
  scene.MustHavePaid();
}

TEST_CASE("no memory for what a callback sends: it is told, and the connection goes on",
          "[F4][M9][M15][seen-28]") {
  constexpr std::size_t kQueued = 12 * kMiB;  // the kernel takes less for a peer that does not read
  Scene scene;
  std::error_code large, small;
  const std::string bytes(kMiB, 'x');  // more than the pool keeps
  scene.handler->on_recv = [&](const ConnPtr& conn) {
    {
      const NoMemoryHere here;
      large = conn->Send(bytes);
    }
    small = conn->Send("small");
  };
  const ConnPtr& conn = scene.handler->conn;
  REQUIRE_FALSE(conn->Send(std::string(kQueued, 'q')));
  REQUIRE(WaitUntil([&] { return conn->Stats().written_bytes > 0; }));
  REQUIRE(scene.peer.SendAll(Frame("go")));
  REQUIRE(WaitUntil([&] { return scene.handler->packets == 1; }));
  std::string got;
  REQUIRE(scene.peer.ReadExactly(kQueued + 5, &got) == End::kOpen);
  CHECK(got.substr(kQueued - 1) == "qsmall");
  CHECK(large == Errc::kNoMemory);
  CHECK_FALSE(small);
  CHECK(conn->Stats().refused_sends == 1);
  CHECK(conn->Stats().accepted_bytes == kQueued + 5);
  // What the refused one had taken of the limit is free again.
  CHECK(WaitUntil([&] { return conn->Stats().written_bytes == kQueued + 5; }));
  CHECK_FALSE(conn->Send(std::string(Options{}.send_buffer_limit - kMiB / 2, 'y')));
}

TEST_CASE("no memory for what the kernel does not take of a turn", "[F4][E5][B1][seen-28]") {
  Scene scene;
  scene.handler->on_recv = [&](const ConnPtr& conn) {
    static_cast<void>(conn->Send("it waits"));
    scene.handler->NoMoreMemory();
  };
  scene.plan.Add({.site = Site::kSend, .error = EAGAIN, .times = Fault::kAlways});
  REQUIRE(scene.peer.SendAll(Frame("go")));
  CHECK(scene.MustHavePaid().unsent_bytes() == 8);
}

TEST_CASE("no memory for what the kernel does not take of a large send", "[F4][E5][B1][seen-28]") {
  Scene scene;
  const std::string bytes(kMiB, 'x');
  scene.handler->on_recv = [&](const ConnPtr& conn) {
    scene.handler->NoMoreMemory();
    static_cast<void>(conn->Send(bytes));
  };
  scene.plan.Add({.site = Site::kSendMsg, .error = EAGAIN});
  REQUIRE(scene.peer.SendAll(Frame("go")));
  const ConnStats paid = scene.MustHavePaid();
  CHECK(paid.accepted_bytes == kMiB);
  CHECK(paid.written_bytes == 0);
}

TEST_CASE("no memory for a turn's bytes while the socket rests", "[F4][E5][B1][seen-28]") {
  // A turn reads twice: packets, which are answered, and then the kernel has no memory either. It
  // would read once if its packets took their whole time.
  VirtualClock clock;
  Scene scene;
  scene.handler->on_recv = [&](const ConnPtr& conn) {
    if (scene.handler->packets > 1) return;
    static_cast<void>(conn->Send("it waits"));
    scene.handler->NoMoreMemory();
  };
  for (std::size_t sent = 1; sent < kHeaderSize; ++sent) {
    REQUIRE(scene.peer.SendAll(std::string(1, '\0')));
    REQUIRE(WaitUntil([&] { return scene.handler->conn->Stats().received_bytes == sent; }));
  }
  scene.plan.Add({.site = Site::kRecv, .fake = true});
  scene.plan.Add({.site = Site::kRecv, .error = ENOMEM});
  REQUIRE(scene.peer.SendAll("x"));
  CHECK(scene.MustHavePaid().unsent_bytes() == 8);
}

TEST_CASE("no memory for a connection that comes: it is refused, and the next one is not",
          "[F4][E1][R5][seen-28]") {
  // From accept4 on, for whatever that connection needs, up to the next wait. The loop's thread looks
  // at it at each accept4, so it outlives that thread.
  std::optional<NoMemoryHere> here;
  // A socket whose names need memory.
  Scene scene({}, UnixAddress());
  scene.plan.Add({.site = Site::kAccept4, .act = [&](int) { here.emplace(); }});
  scene.plan.Add(
      {.site = Site::kAccept4, .times = Fault::kAlways, .act = [&](int) { here.reset(); }});
  RawPeer refused = scene.Another();
  CHECK(refused.ReadAll() == End::kEof);
  CHECK(WaitUntil([&] { return scene.server->Stats().refused == 1; }));
  CHECK(scene.handler->opened == 1);
  const RawPeer next = scene.Another();
  CHECK(WaitUntil([&] { return scene.handler->opened == 2; }));
}

TEST_CASE("no memory for a connection that is established: the dial says so",
          "[F4][M31][R5][seen-28]") {
  // Once connected it is asked for its own name, which needs memory; there is none up to its close.
  std::optional<NoMemoryHere> here;
  FaultPlan plan;
  RawListener listener(UnixAddress());
  auto events = std::make_shared<EventRecorder>();
  TestClient client(events);
  plan.Add({.site = Site::kGetSockName, .act = [&](int) { here.emplace(); }});
  plan.Add({.site = Site::kClose, .act = [&](int) { here.reset(); }});
  client.Dial(listener.address());
  CHECK(client.Wait() == Errc::kNoMemory);
  CHECK(client->Stats().reason == CloseReason::kConnectFailed);
  CHECK(client.Finish(StopMode::kImmediately, Errc::kNoMemory) == "");
  CHECK(events->connections().empty());
}

}  // namespace
}  // namespace xtcp::test
