// Stops before and during the start of a server or a dial, and while connections come in.

#include <dlfcn.h>
#include <netdb.h>

#include <atomic>
#include <catch2/catch.hpp>
#include <chrono>
#include <cstring>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "support/event_recorder.h"
#include "support/raw_peer.h"
#include "support/stop_books.h"
#include "support/test_client.h"
#include "support/test_protocol.h"
#include "support/test_server.h"

namespace xtcp::test {
namespace {

using Clock = std::chrono::steady_clock;
using std::chrono::microseconds;
using std::chrono::milliseconds;

// While one exists, a look-up of "held.test" waits for `Release`, and then finds 127.0.0.1.
class HeldLookUp {
 public:
  HeldLookUp() { current = this; }
  ~HeldLookUp() {
    Release();
    current = nullptr;
  }
  HeldLookUp(const HeldLookUp&) = delete;
  HeldLookUp& operator=(const HeldLookUp&) = delete;

  bool WaitForBegin() { return begun_.Wait(); }
  void Release() { released_.Set(); }

  // On the thread that looks up.
  static void Hold() {
    HeldLookUp* const held = current;
    if (held == nullptr) return;
    held->begun_.Set();
    static_cast<void>(held->released_.Wait());
  }

 private:
  static std::atomic<HeldLookUp*> current;
  Signal begun_;
  Signal released_;
};
std::atomic<HeldLookUp*> HeldLookUp::current{nullptr};

}  // namespace
}  // namespace xtcp::test

// Stands in front of the C library's in this program.
extern "C" int getaddrinfo(const char* node, const char* service, const addrinfo* hints,
                           addrinfo** result) {
  static const auto real =
      reinterpret_cast<decltype(&getaddrinfo)>(::dlsym(RTLD_NEXT, "getaddrinfo"));
  if (node != nullptr && std::strcmp(node, "held.test") == 0) {
    xtcp::test::HeldLookUp::Hold();
    node = "127.0.0.1";
  }
  return real(node, service, hints, result);
}

namespace xtcp::test {
namespace {

// --- Before and during the start. ----------------------------------------------------------------

TEST_CASE("a stop before Serve is remembered, and leaves nothing open", "[M20][M22][M34]") {
  for (const StopMode mode : kModes) {
    auto events = std::make_shared<EventRecorder>();
    Server server(WithDefaults({}, events));
    REQUIRE_FALSE(server.Listen("127.0.0.1:0"));
    const std::uint16_t port = server.Addresses().at(0).Port();
    StopReport report;
    WithinDeadline("a stop", [&] { report = server.Stop(mode); });
    REQUIRE(Text(report) == OnlyConnections(0));
    REQUIRE(server.IsStopped());
    REQUIRE_FALSE(RawPeer(port).connected());
    std::error_code served = Errc::kClosed;
    WithinDeadline("Serve", [&] { served = server.Serve(); });
    REQUIRE_FALSE(served);
    REQUIRE(server.Serve() == Errc::kAlreadyUsed);
    REQUIRE(server.Addresses().size() == 1);

    // A listener that is opened after the stop does not stay open either.
    Server late(WithDefaults({}, events));
    static_cast<void>(late.Stop(mode));
    REQUIRE_FALSE(late.Listen("127.0.0.1:0"));
    served = Errc::kClosed;
    WithinDeadline("Serve", [&] { served = late.Serve(); });
    REQUIRE_FALSE(served);
    REQUIRE_FALSE(RawPeer(late.Addresses().at(0).Port()).connected());
    REQUIRE(events->Verify() == "");
  }
}

TEST_CASE("a stop before the dial is remembered; a connection dials once", "[M20][M22][M31][B3]") {
  for (const StopMode mode : kModes) {
    INFO(Name(mode));
    auto events = std::make_shared<EventRecorder>();
    RawListener listener;
    TestClient client(events, Options{});
    REQUIRE_FALSE(client->Send("lost"));
    StopReport report;
    WithinDeadline("a stop", [&] { report = client->Stop(mode); });
    REQUIRE(Text(report).substr(0, 20) == OnlyConnections(0).substr(0, 20));
    REQUIRE(client->IsStopped());
    REQUIRE(client->Send("more") == Errc::kStopping);
    client.Dial(listener.address());
    REQUIRE(client.Wait() == Errc::kStopped);
    REQUIRE(client->Send("more") == Errc::kClosed);
    REQUIRE(client->DialAndServe(listener.address()) == Errc::kAlreadyUsed);
    REQUIRE(client.Finish(mode, Errc::kStopped) == "");
    REQUIRE(client->Stats().reason == CloseReason::kConnectFailed);
    REQUIRE(client->Stats().unsent_bytes() == 4);
    REQUIRE(events->connections().empty());
  }
}

TEST_CASE("a server and a connection that have ended do not begin again", "[M22][M31][M34]") {
  for (const StopMode mode : kModes) {
    auto events = std::make_shared<EventRecorder>();
    events->on_recv = Echo;
    TestServer server(events);
    TestClient client(events, server.address());
    REQUIRE(events->WaitForConnected(1));
    REQUIRE(client.Finish(mode) == "");
    REQUIRE(client->DialAndServe(server.address()) == Errc::kAlreadyUsed);
    REQUIRE(server.Finish(mode) == "");
    REQUIRE(server->Serve() == Errc::kAlreadyUsed);
    REQUIRE(server->Listen("127.0.0.1:0") == Errc::kAlreadyUsed);
    REQUIRE(server->ListenAndServe("127.0.0.1:0") == Errc::kAlreadyUsed);
  }
}

// Waits for about `time` without giving the processor away.
void Spin(Clock::duration time) {
  const auto end = Clock::now() + time;
  while (Clock::now() < end) {
  }
}

TEST_CASE("a stop while Serve starts is not lost", "[M20][M22][S5][S6][R5]") {
  for (std::size_t round = 0; round < 300; ++round) {
    auto events = std::make_shared<EventRecorder>();
    Options options;
    options.loops = 1 + round % 3;
    Server server(WithDefaults(options, events));
    const bool listen_first = round % 2 == 0;
    if (listen_first) REQUIRE_FALSE(server.Listen("127.0.0.1:0"));
    std::error_code served = Errc::kClosed;
    std::latch together(2);
    std::thread thread([&] {
      together.arrive_and_wait();
      served = listen_first ? server.Serve() : server.ListenAndServe("127.0.0.1:0");
    });
    together.arrive_and_wait();
    Spin(microseconds(2) * round);
    WithinDeadline("a stop", [&] { static_cast<void>(server.Stop(kModes.at(round % 3))); });
    WithinDeadline("Serve", [&] { thread.join(); });
    REQUIRE_FALSE(served);
    REQUIRE(server.IsStopped());
    REQUIRE(Text(server.Stop(StopMode::kGracefullyAndWait)) == OnlyConnections(0));
    REQUIRE(events->Verify() == "");
  }
}

TEST_CASE("a stop at any moment of a dial: it never stood, or it ended in order",
          "[M20][M22][M31][S5][S6][B1]") {
  for (std::size_t round = 0; round < 300; ++round) {
    INFO("round " << round);
    RawListener listener;
    auto events = std::make_shared<EventRecorder>();
    const ConnPtr conn = NewConn(WithDefaults({}, events));
    REQUIRE_FALSE(conn->Send("first"));
    std::error_code dialled = Errc::kClosed;
    Signal ended;
    std::latch together(2);
    Threads threads;
    threads.Add([&] {
      together.arrive_and_wait();
      dialled = conn->DialAndServe(listener.address());
      ended.Set();
    });
    together.arrive_and_wait();
    const bool stands = round % 4 == 0;
    if (stands) {
      REQUIRE(events->WaitForConnected(1));
    } else {
      Spin(microseconds(1) * round);
    }
    const StopMode mode = kModes.at(round % 3);
    for (std::size_t i = 0; i <= round % 2; ++i) {
      threads.Add([&] { static_cast<void>(conn->Stop(mode)); });
    }
    RawPeer peer;
    while (!peer.connected() && !ended.IsSet()) peer = listener.Accept(milliseconds(2));
    if (peer.connected()) {
      static_cast<void>(peer.ReadAll());
      peer.Close();
    }
    WithinDeadline("a dial", [&] { threads.Join(); });
    const StopReport report = conn->Stop(StopMode::kGracefullyAndWait);
    REQUIRE(events->Verify() == "");
    const bool connected = events->totals().connected == 1;
    if (stands) REQUIRE(connected);
    const ConnStats stats = conn->Stats();
    REQUIRE(dialled == (connected ? std::error_code() : Errc::kStopped));
    REQUIRE((stats.reason == CloseReason::kConnectFailed) == !connected);
    REQUIRE(report.connections == (connected ? 1 : 0));
    REQUIRE(report.cut == 0);
    REQUIRE(stats.accepted_bytes == 5);
    REQUIRE(peer.received() <= stats.written_bytes);
    // Bytes from before the dial are written first, or counted.
    if (connected && mode != StopMode::kImmediately) REQUIRE(peer.received() == 5);
  }
}

TEST_CASE("a stop during a name look-up ends the dial when the look-up returns",
          "[M20][M22][M32][S2]") {
  const StopMode mode = GENERATE(StopMode::kImmediately, StopMode::kGracefullyButNotWait,
                                 StopMode::kGracefullyAndWait);
  CAPTURE(Name(mode));
  auto events = std::make_shared<EventRecorder>();
  RawListener listener;
  HeldLookUp look_up;
  TestClient client(events, "held.test:" + std::to_string(listener.port()));
  REQUIRE(look_up.WaitForBegin());
  StopReport report;
  WithinDeadline("a stop", [&] { report = client->Stop(mode); });
  REQUIRE(Text(report) == OnlyConnections(0));
  REQUIRE(client->IsStopped());
  REQUIRE(client->Send("late") == Errc::kStopping);
  REQUIRE(client->Stats().reason == CloseReason::kNone);  // the dial has not ended
  look_up.Release();
  REQUIRE(client.Wait() == Errc::kStopped);
  REQUIRE(client.Finish(mode, Errc::kStopped) == "");
  REQUIRE(client->Stats().reason == CloseReason::kConnectFailed);
  REQUIRE(events->connections().empty());
  REQUIRE_FALSE(listener.Accept(milliseconds(0)).connected());
}

// --- While connections come in. ------------------------------------------------------------------

}  // namespace
}  // namespace xtcp::test
