// What becomes of a dial whose server has ended the connection before our loop looks, whose socket
// is writable too early, and of names with addresses that cannot be reached.

#include <netdb.h>
#include <sys/epoll.h>
#include <sys/socket.h>

#include <atomic>
#include <catch2/catch.hpp>
#include <cerrno>
#include <chrono>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <system_error>
#include <vector>

#include "support/deadline.h"
#include "support/event_recorder.h"
#include "support/fake_names.h"
#include "support/fault_control.h"
#include "support/raw_peer.h"
#include "support/test_client.h"
#include "support/test_protocol.h"

namespace xtcp::test {
namespace {

using namespace std::chrono_literals;

using Events = std::vector<EventType>;

// A dial whose loop does not look before the server has done something: as if its thread had not
// been scheduled meanwhile.
class LateDial {
 public:
  LateDial() {
    events->on_connected = [this](const ConnPtr& conn) { sent = conn->Send("too late?"); };
    client = std::make_unique<TestClient>(events);
  }

  // Dials; `server` gets the accepted connection.
  void Dial(const std::function<void(RawPeer&)>& server) {
    plan.Add({.site = Site::kConnect, .act = [this](int) { connecting_ = true; }});
    plan.Add({.site = Site::kEpollWait, .times = Fault::kAlways, .act = [this, server](int) {
                if (!connecting_.exchange(false)) return;
                peer = listener.Accept();
                server(peer);
              }});
    client->Dial(listener.address());
    REQUIRE(events->WaitForConnected(1));
  }

  FaultPlan plan;
  RawListener listener;
  RawPeer peer;
  std::shared_ptr<EventRecorder> events = std::make_shared<EventRecorder>();
  std::unique_ptr<TestClient> client;
  std::error_code sent;  // what a Send in kConnected returned

 private:
  std::atomic<bool> connecting_{false};
};

const std::string kGreeting = Frame("too busy");

TEST_CASE("last words before a reset are delivered, however late the loop looks",
          "[M17][M31][seen-6]") {
  struct {
    const char* name;
    std::function<void(RawPeer&)> server;
    Events expected;
  } const table[] = {
      {"a greeting, then a reset",
       [](RawPeer& peer) {
         static_cast<void>(peer.SendAll(kGreeting));
         peer.Reset();
       },
       {EventType::kConnected, EventType::kRecv, EventType::kClosed}},
      {"a greeting, FIN, then a reset",
       [](RawPeer& peer) {
         static_cast<void>(peer.SendAll(kGreeting));
         peer.HalfClose();
         peer.Reset();
       },
       {EventType::kConnected, EventType::kRecv, EventType::kClosed}},
      {"half a greeting, then a reset",
       [](RawPeer& peer) {
         static_cast<void>(peer.SendAll(kGreeting.substr(0, 5)));
         peer.Reset();
       },
       {EventType::kConnected, EventType::kClosed}},
      {"a reset", [](RawPeer& peer) { peer.Reset(); }, {EventType::kConnected, EventType::kClosed}},
  };
  for (const auto& [name, server, expected] : table) {
    INFO(name);
    LateDial late;
    REQUIRE_FALSE(late.client->conn()->Send("queued"));
    late.Dial(server);
    REQUIRE_FALSE(late.client->Wait());
    CHECK(late.client->Finish() == "");
    const auto connection = late.events->connection();
    CHECK(connection.events == expected);
    CHECK(late.sent == Errc::kStopping);  // nobody would ever read it
    CHECK(connection.at_closed.reason == CloseReason::kPeerReset);
    CHECK(connection.at_closed.unsent_bytes() == 6);
  }
}

TEST_CASE("a greeting and a FIN are an ordinary connection, however late the loop looks",
          "[M16][M31][seen-6]") {
  LateDial late;
  late.Dial([](RawPeer& peer) {
    static_cast<void>(peer.SendAll(kGreeting));
    peer.HalfClose();
  });
  REQUIRE_FALSE(late.client->Wait());
  REQUIRE(late.client->Finish() == "");
  const auto connection = late.events->connection();
  CHECK(connection.payloads == std::vector<std::string>{"too busy"});
  CHECK_FALSE(late.sent);
  CHECK(connection.at_closed.reason == CloseReason::kPeerClosed);
  CHECK(connection.at_closed.unsent_bytes() == 0);
}

TEST_CASE("a dial that is paused sees the reset, and drops what was unread", "[M18][seen-6]") {
  LateDial late;
  late.client->conn()->PauseRecv();
  late.Dial([](RawPeer& peer) {
    static_cast<void>(peer.SendAll(kGreeting));
    peer.Reset();
  });
  REQUIRE_FALSE(late.client->Wait());
  REQUIRE(late.client->Finish() == "");
  const auto connection = late.events->connection();
  CHECK(connection.events == Events{EventType::kConnected, EventType::kClosed});
  CHECK(connection.at_closed.reason == CloseReason::kPeerReset);
}

TEST_CASE("a socket that is writable is not connected yet", "[M31][M32][seen-7]") {
  FaultPlan plan;
  VirtualClock clock;
  RawListener listener;
  Options options;
  options.connect_timeout = 10'500ms;  // not the default, in whose place tests take a longer one
  // No error is pending, and there is no peer: the handshake is under way.
  plan.Add({.site = Site::kGetPeerName, .error = ENOTCONN});
  auto events = std::make_shared<EventRecorder>();
  TestClient client(events, listener.address(), options);
  RawPeer peer = listener.Accept();
  REQUIRE(WaitUntil([&] { return plan.injected() == 1; }));
  REQUIRE(clock.Settle());
  const std::uint64_t waits = CallsOf(Site::kEpollWait);
  SECTION("it waits, without spinning, until its time is over") {
    clock.Advance(9s);
    REQUIRE(clock.Settle());
    REQUIRE(CallsOf(Site::kEpollWait) == waits);
    REQUIRE(events->totals().connected == 0);
    clock.Advance(2s);
    const std::error_code timed_out(ETIMEDOUT, std::system_category());
    REQUIRE(client.Wait() == timed_out);
    REQUIRE(client.Finish(StopMode::kImmediately, timed_out) == "");
    REQUIRE(events->totals().connected == 0);
  }
  SECTION("it is established when the socket says so") {
    REQUIRE(events->totals().connected == 0);
    peer.HalfClose();  // wakes whoever watches the socket
    CHECK_FALSE(client.Wait());
    CHECK(client.Finish() == "");
    CHECK(events->totals().connected == 1);
    CHECK(CallsOf(Site::kEpollWait) <= waits + 3);
  }
}

TEST_CASE("no address of a name is hidden because of what this host is connected to",
          "[M32][seen-9]") {
  FaultPlan plan;
  SECTION("names are asked for without AI_ADDRCONFIG") {
    const FakeNames names({"127.0.0.1"});
    const ConnPtr conn = NewConn(WithDefaults({}, std::make_shared<EventRecorder>()));
    plan.Add({.site = Site::kConnect, .error = ECONNREFUSED});
    REQUIRE(conn->DialAndServe("some.name:80") == std::errc::connection_refused);
    CHECK((names.flags() & AI_ADDRCONFIG) == 0);
    Server server(WithDefaults({}, std::make_shared<EventRecorder>()));
    REQUIRE_FALSE(server.Listen("some.name:0"));
    CHECK((names.flags() & AI_ADDRCONFIG) == 0);
  }
  SECTION("an address of a family that cannot be reached fails at once, and the next is tried") {
    for (const Fault& fault : {Fault{.site = Site::kSocket, .error = EAFNOSUPPORT},
                               Fault{.site = Site::kConnect, .error = ENETUNREACH},
                               Fault{.site = Site::kConnect, .error = EADDRNOTAVAIL}}) {
      CAPTURE(fault.error);
      const FakeNames names({"::1", "127.0.0.1"});
      RawListener listener;
      plan.Clear();
      plan.Add(fault);
      const std::size_t before = plan.injected();
      auto events = std::make_shared<EventRecorder>();
      TestClient client(events, "some.name:" + std::to_string(listener.port()));
      REQUIRE(events->WaitForConnected(1));
      CHECK(plan.injected() == before + 1);
      CHECK(client->RemoteAddress().ToString() == listener.address());
      CHECK(client.Finish() == "");
    }
  }
  SECTION("a name that is only ::1 is reached") {
    if (!HasIpv6()) return;
    const FakeNames names({"::1"});
    RawListener listener("[::1]:0");
    auto events = std::make_shared<EventRecorder>();
    TestClient client(events, "some.name:" + std::to_string(listener.port()));
    REQUIRE(events->WaitForConnected(1));
    CHECK(client->RemoteAddress().ToString() == listener.address());
    CHECK(client.Finish() == "");
  }
}

}  // namespace
}  // namespace xtcp::test
