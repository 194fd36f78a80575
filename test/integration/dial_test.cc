#include <catch2/catch.hpp>
#include <cerrno>
#include <chrono>
#include <latch>
#include <memory>
#include <string>
#include <system_error>
#include <thread>

#include "support/event_recorder.h"
#include "support/raw_peer.h"
#include "support/test_client.h"
#include "support/test_protocol.h"
#include "support/test_server.h"

namespace xtcp::test {
namespace {

using std::chrono::milliseconds;

std::error_code Dial(const ConnPtr& conn, std::string_view address) {
  std::error_code result;
  WithinDeadline("a dial", [&] { result = conn->DialAndServe(address); });
  return result;
}

ConnPtr Fresh(const std::shared_ptr<EventRecorder>& events, Options options = {}) {
  return NewConn(WithDefaults(std::move(options), events));
}

std::error_code System(int error) { return {error, std::system_category()}; }

// A port of 127.0.0.1 on which nobody listens.
std::string DeadAddress() {
  RawListener listener;
  return listener.address();
}

TEST_CASE("a dial that cannot succeed says why, and has no event", "[M31][M7][M33]") {
  auto events = std::make_shared<EventRecorder>();
  struct Case {
    std::string address;
    std::error_code expected;
  };
  const Case cases[] = {
      {DeadAddress(), System(ECONNREFUSED)},  {"unix:@xtcp-test-nobody", System(ECONNREFUSED)},
      {"unix:/no/such/file", System(ENOENT)}, {"", Errc::kBadAddress},
      {"127.0.0.1", Errc::kBadAddress},       {":80", Errc::kBadAddress},
      {"127.0.0.1:0", Errc::kBadAddress},     {"127.0.0.1:65536", Errc::kBadAddress},
      {"127.0.0.1:http", Errc::kBadAddress},  {"::1:80", Errc::kBadAddress},
  };
  for (const Case& c : cases) {
    CAPTURE(c.address);
    const ConnPtr conn = Fresh(events);
    REQUIRE_FALSE(conn->Send("never sent"));
    const std::error_code error = Dial(conn, c.address);
    REQUIRE(error == c.expected);
    const ConnStats stats = conn->Stats();
    REQUIRE(stats.reason == CloseReason::kConnectFailed);
    REQUIRE(stats.error == error);
    REQUIRE(stats.accepted_bytes == 10);
    REQUIRE(stats.unsent_bytes() == 10);
    REQUIRE(conn->IsStopped());
    REQUIRE(conn->Send("x") == Errc::kClosed);
    REQUIRE(Dial(conn, c.address) == Errc::kAlreadyUsed);
  }
  REQUIRE(events->Verify() == "");
  REQUIRE(events->connections().empty());
}

TEST_CASE("what was sent before the connection stood goes first", "[M33]") {
  auto events = std::make_shared<EventRecorder>();
  events->on_connected = [](const ConnPtr& conn) { static_cast<void>(conn->Send("second")); };
  RawListener listener;
  TestClient client(events);
  REQUIRE_FALSE(client->Send("first "));
  client.Dial(listener.address());
  RawPeer peer = listener.Accept();
  std::string bytes;
  REQUIRE(peer.ReadExactly(12, &bytes) == End::kOpen);
  REQUIRE(bytes == "first second");
  REQUIRE(client.Finish() == "");
}

TEST_CASE("a connection dials once; an accepted one never", "[M31]") {
  auto events = std::make_shared<EventRecorder>();
  TestServer server(events);
  TestClient client(events, server.address());
  REQUIRE(events->WaitForAccepted(1));
  REQUIRE(events->WaitForConnected(1));
  for (const auto& connection : events->connections()) {
    REQUIRE(connection.conn->DialAndServe(server.address()) == Errc::kAlreadyUsed);
  }
  REQUIRE(client.Finish() == "");
  REQUIRE(client->DialAndServe(server.address()) == Errc::kAlreadyUsed);
  REQUIRE(server.Finish() == "");
}

TEST_CASE("a stop before the dial is remembered", "[M22][M31]") {
  auto events = std::make_shared<EventRecorder>();
  RawListener listener;
  const StopMode mode = GENERATE(StopMode::kImmediately, StopMode::kGracefullyButNotWait,
                                 StopMode::kGracefullyAndWait);
  const ConnPtr conn = Fresh(events);
  REQUIRE_FALSE(conn->Send("lost"));
  WithinDeadline("a stop", [&] { REQUIRE(conn->Stop(mode).connections == 0); });
  REQUIRE(conn->IsStopped());
  REQUIRE(conn->Send("x") == Errc::kStopping);
  REQUIRE(Dial(conn, listener.address()) == Errc::kStopped);
  REQUIRE(conn->Stats().reason == CloseReason::kConnectFailed);
  REQUIRE(conn->Stats().unsent_bytes() == 4);
  REQUIRE(events->Verify() == "");
}

TEST_CASE("a connect that hangs is ended by a stop", "[M22][M32]") {
  auto events = std::make_shared<EventRecorder>();
  const StopMode mode = GENERATE(StopMode::kImmediately, StopMode::kGracefullyButNotWait,
                                 StopMode::kGracefullyAndWait);
  // A queue that is full drops further SYNs.
  RawListener listener(0);
  RawPeer fills_it(listener.port());
  TestClient client(events, listener.address());
  REQUIRE(client.Finish(mode, Errc::kStopped) == "");
  REQUIRE(client->Stats().reason == CloseReason::kConnectFailed);
  REQUIRE(events->connections().empty());
}

TEST_CASE("a stop at each moment of a dial that begins", "[M22][S5]") {
  // It may reach the loop in the same turn as the dial itself.
  auto events = std::make_shared<EventRecorder>();
  RawListener listener(0);
  RawPeer fills_it(listener.port());
  for (int round = 0; round < 500; ++round) {
    const ConnPtr conn = Fresh(events);
    std::latch together(2);
    std::thread dialling([&] {
      together.arrive_and_wait();
      static_cast<void>(conn->DialAndServe(listener.address()));
    });
    together.arrive_and_wait();
    const auto moment =
        std::chrono::steady_clock::now() + std::chrono::microseconds(1) * (round % 500);
    while (std::chrono::steady_clock::now() < moment) {
    }
    static_cast<void>(conn->Stop(StopMode::kImmediately));
    WithinDeadline("a dial", [&] { dialling.join(); });
    REQUIRE(conn->Stats().reason == CloseReason::kConnectFailed);
  }
  REQUIRE(events->Verify() == "");
}

TEST_CASE("a connect that hangs ends at connect_timeout", "[M31][M32][R8]") {
  auto events = std::make_shared<EventRecorder>();
  RawListener listener(0);
  RawPeer fills_it(listener.port());
  Options options;
  options.connect_timeout = milliseconds(100);
  const ConnPtr conn = Fresh(events, options);
  REQUIRE(Dial(conn, listener.address()) == std::errc::timed_out);
  REQUIRE(events->Verify() == "");
}

TEST_CASE("the next address of a name is tried", "[M32][names]") {
  if (!HasLocalhost()) return;
  // "localhost" is ::1 and 127.0.0.1, or only the latter; the listener is on that one.
  auto events = std::make_shared<EventRecorder>();
  RawListener listener;
  TestClient client(events, "localhost:" + std::to_string(listener.port()));
  RawPeer peer = listener.Accept();
  REQUIRE(peer.connected());
  REQUIRE(events->WaitForConnected(1));
  REQUIRE(client->RemoteAddress().Port() == listener.port());
  REQUIRE(client.Finish() == "");
}

TEST_CASE("a dialled connection lives without its handle", "[M29]") {
  auto events = std::make_shared<EventRecorder>();
  events->hold_handles = false;
  RawListener listener;
  ConnPtr conn = Fresh(events);
  const std::weak_ptr<Conn> watch = conn;
  Conn* const raw = conn.get();
  Signal started, dropped, ended;
  std::thread thread([&] {
    started.Set();
    // The caller's handle may go while the call runs; it keeps its own.
    static_cast<void>(raw->DialAndServe(listener.address()));
    ended.Set();
  });
  RawPeer peer = listener.Accept();
  REQUIRE(events->WaitForConnected(1));
  conn.reset();
  REQUIRE_FALSE(watch.expired());
  REQUIRE(peer.SendAll(Frame("still here")));
  REQUIRE(events->WaitForPackets(1));
  peer.Close();
  REQUIRE(ended.Wait());
  thread.join();
  REQUIRE(watch.expired());
  REQUIRE(events->Verify() == "");
}

}  // namespace
}  // namespace xtcp::test
