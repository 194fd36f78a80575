// Servers that go away while they serve, also in their own callbacks.

#include <atomic>
#include <catch2/catch.hpp>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "support/event_recorder.h"
#include "support/raw_peer.h"
#include "support/test_protocol.h"
#include "support/test_server.h"

namespace xtcp::test {
namespace {

TEST_CASE("destroying a server ends it, and waits", "[M24][E6][R5]") {
  for (const std::size_t loops : {1u, 3u}) {
    Options options;
    options.loops = loops;
    auto events = std::make_shared<EventRecorder>();
    events->on_recv = [](const ConnPtr& conn, std::string_view payload) {
      static_cast<void>(conn->Send(Frame(payload)));
    };
    TestServer server(events, options);
    std::atomic<bool> over{false};
    std::vector<std::thread> clients;
    for (int i = 0; i < 6; ++i) {
      clients.emplace_back([&] {
        RawPeer peer(server.port());
        const std::string frame = Frame(std::string(5000, 'x'));
        while (!over && peer.SendAll(frame) && peer.ReadFrame() != "") {
        }
      });
    }
    REQUIRE(events->WaitForPackets(100));
    std::unique_ptr<Server> owned = server.Release();
    WithinDeadline("~Server", [&] { owned.reset(); });
    const auto totals = events->totals();
    REQUIRE(totals.closed == totals.accepted);
    over = true;
    for (std::thread& client : clients) client.join();
    REQUIRE(server.Finish() == "");
  }
}

TEST_CASE("a server may be destroyed in its own callbacks", "[M24][E6]") {
  const auto where = GENERATE(EventType::kAccept, EventType::kRecv, EventType::kClosed);
  const std::size_t loops = GENERATE(1, 3);
  CAPTURE(static_cast<int>(where), loops);
  Options options;
  options.loops = loops;
  auto events = std::make_shared<EventRecorder>();
  std::unique_ptr<Server> owned;
  Signal ready;
  std::atomic<bool> destroyed{false};
  const auto destroy = [&](EventType event) {
    if (event != where || destroyed.exchange(true)) return;
    static_cast<void>(ready.Wait());
    owned.reset();
  };
  events->on_accept = [&](const ConnPtr&) { destroy(EventType::kAccept); };
  events->on_recv = [&](const ConnPtr&, std::string_view) { destroy(EventType::kRecv); };
  events->on_closed = [&](const ConnPtr&) { destroy(EventType::kClosed); };
  TestServer server(events, options);
  owned = server.Release();
  ready.Set();
  std::vector<RawPeer> peers;
  for (int i = 0; i < 5; ++i) {
    peers.emplace_back(server.port());
    if (!peers.back().connected()) continue;
    static_cast<void>(peers.back().SendAll(Frame("x")));
    if (where == EventType::kClosed) peers.back().HalfClose();
  }
  REQUIRE(server.WaitForEnd());
  REQUIRE(server.Finish() == "");
  REQUIRE(destroyed);
  REQUIRE(owned == nullptr);
}

TEST_CASE("a server that never served leaves nothing", "[M24][R5]") {
  auto events = std::make_shared<EventRecorder>();
  {
    Server server(WithDefaults({}, events));
    REQUIRE_FALSE(server.Listen("127.0.0.1:0"));
    REQUIRE_FALSE(server.Listen("unix:@xtcp-test-never-served"));
  }
  REQUIRE(events->Verify() == "");
}

}  // namespace
}  // namespace xtcp::test
