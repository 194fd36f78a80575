// Servers that go away while they serve, also in their own callbacks; handles that are dropped too
// early, kept too long, or held by their own handler.

#include <xtcp/conn.h>
#include <xtcp/server.h>

#include <atomic>
#include <catch2/catch.hpp>
#include <cerrno>
#include <chrono>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <string_view>
#include <system_error>
#include <thread>
#include <utility>
#include <vector>

#include "support/event_recorder.h"
#include "support/raw_peer.h"
#include "support/stop_books.h"
#include "support/test_client.h"
#include "support/test_protocol.h"
#include "support/test_server.h"

namespace xtcp::test {
namespace {

using std::chrono::milliseconds;

// --- Servers. ------------------------------------------------------------------------------------

TEST_CASE("a server destroyed while clients transfer ends them all, and waits for it",
          "[M24][M20][S3][E6][R5]") {
  for (const std::size_t loops : {1u, 3u}) {
    for (int round = 0; round < 5; ++round) {
      Options options;
      options.loops = loops;
      auto events = std::make_shared<EventRecorder>();
      events->on_recv = Echo;
      TestServer server(events, options);
      std::atomic<bool> over{false};
      Threads clients([&] { over = true; });
      for (int i = 0; i < 6; ++i) {
        clients.Add([&] {
          RawPeer peer(server.port());
          const std::string frame = Frame(std::string(5000, 'x'));
          End end = End::kOpen;
          while (!over && end == End::kOpen && peer.SendAll(frame)) peer.ReadFrame(&end);
        });
      }
      REQUIRE(events->WaitForPackets(100));
      std::unique_ptr<Server> owned = server.Release();
      WithinDeadline("~Server", [&] { owned.reset(); });
      // No callback runs or will run: the recorder complains about one from now on.
      const auto totals = events->totals();
      REQUIRE(totals.closed == totals.accepted);
      REQUIRE(totals.closed > 0);
      REQUIRE(server.Finish() == "");
    }
  }
}

// What a handler does that has its own server: it destroys it at the first chance at a place. The
// server's inside has the handler until Serve has returned, so this is destroyed there.
class Owner final : public Handler {
 public:
  enum class Place { kAccept, kRecv, kUnpackError, kSendReady, kClosed, kUserData };

  Owner(Place place, std::atomic<int>* alive) : place_(place), alive_(alive) { ++*alive_; }
  ~Owner() override { --*alive_; }

  // Before Serve.
  void Own(std::unique_ptr<Server> server) {
    std::lock_guard lock(mutex_);
    server_ = std::move(server);
  }

  void OnEvent(EventType event, const ConnPtr& conn, PacketPtr packet) override {
    switch (event) {
      case EventType::kAccept:
        ++accepted;
        if (place_ == Place::kUserData) {
          conn->UserData() = std::make_shared<AtEnd>(AtEnd{this});
        }
        Destroy(Place::kAccept);
        break;
      case EventType::kRecv:
        if (PayloadOf(*packet) == "fill") {
          while (!conn->Send(std::string(100'000, 'x'))) {
          }
        }
        if (PayloadOf(*packet) == "x") Destroy(Place::kRecv);
        break;
      case EventType::kClosed:
        Destroy(Place::kClosed);
        ++closed;
        break;
      case EventType::kConnected:
        break;
    }
  }
  void OnUnpackError(const ConnPtr&, std::span<const std::byte>, std::error_code) override {
    Destroy(Place::kUnpackError);
  }
  void OnSendReady(const ConnPtr&) override { Destroy(Place::kSendReady); }

  std::atomic<std::size_t> accepted{0};
  std::atomic<std::size_t> closed{0};
  Signal destroyed;

 private:
  struct AtEnd {
    Owner* owner;
    ~AtEnd() {
      if (owner != nullptr) owner->Destroy(Place::kUserData);
    }
    AtEnd(Owner* of) : owner(of) {}
    AtEnd(AtEnd&& other) noexcept : owner(std::exchange(other.owner, nullptr)) {}
  };

  void Destroy(Place here) {
    if (here != place_) return;
    std::unique_ptr<Server> server;
    {
      std::lock_guard lock(mutex_);
      server = std::move(server_);
    }
    if (server == nullptr) return;  // another loop's callback was first
    server.reset();
    destroyed.Set();
  }

  const Place place_;
  std::atomic<int>* const alive_;
  std::mutex mutex_;
  std::unique_ptr<Server> server_;
};

TEST_CASE("a handler may destroy its own server in every callback", "[M24][M26][M29][E6][R5]") {
  using Place = Owner::Place;
  const auto place = GENERATE(Place::kAccept, Place::kRecv, Place::kUnpackError, Place::kSendReady,
                              Place::kClosed, Place::kUserData);
  const std::size_t loops = GENERATE(1, 3);
  CAPTURE(static_cast<int>(place), loops);
  std::atomic<int> alive{0};
  auto handler = std::make_shared<Owner>(place, &alive);
  Owner& watched = *handler;
  Options options;
  options.loops = loops;
  options.send_buffer_limit = 1 << 20;
  auto server = std::make_unique<Server>(WithDefaults(options, handler));
  Server* const raw = server.get();
  REQUIRE_FALSE(server->Listen("127.0.0.1:0"));
  const std::uint16_t port = server->Addresses().at(0).Port();
  Signal returned;
  std::error_code served = Errc::kClosed;
  handler->Own(std::move(server));
  Threads threads;
  threads.Add([&, raw] {
    served = raw->Serve();
    returned.Set();
  });
  std::vector<RawPeer> peers;
  for (int i = 0; i < 5; ++i) {
    peers.emplace_back(port);
    RawPeer& peer = peers.back();
    if (!peer.connected()) break;
    std::string frames = Frame("before");
    if (place == Place::kRecv) frames += Frame("x");
    if (place == Place::kUnpackError) frames += MarkedFrame(Marker::kBad);
    if (place == Place::kSendReady) frames += Frame("fill");
    static_cast<void>(peer.SendAll(frames));
    if (place == Place::kClosed || place == Place::kUserData) peer.HalfClose();
  }
  for (RawPeer& peer : peers) {
    if (peer.connected()) REQUIRE(ReadToEnd(peer) != End::kTimeout);
  }
  REQUIRE(watched.destroyed.Wait());
  REQUIRE(returned.Wait());
  threads.Join();
  REQUIRE_FALSE(served);
  REQUIRE(watched.closed == watched.accepted);
  REQUIRE(watched.accepted > 0);
  // Nothing of the library holds the handler any more.
  REQUIRE(handler.use_count() == 1);
  handler.reset();
  REQUIRE(alive == 0);
}

TEST_CASE("a server destroyed in another server's callback goes at once", "[M24][M26]") {
  auto events = std::make_shared<EventRecorder>();
  auto others = std::make_shared<EventRecorder>();
  TestServer other(others);
  RawPeer other_peer(other.port());
  REQUIRE(others->WaitForAccepted(1));
  std::unique_ptr<Server> owned = other.Release();
  events->on_recv = [&](const ConnPtr&, std::string_view) { owned.reset(); };
  TestServer server(events);
  RawPeer peer(server.port());
  REQUIRE(peer.SendAll(Frame("x")));
  REQUIRE(other_peer.ReadAll() == End::kEof);
  REQUIRE(other.WaitForEnd());
  REQUIRE(other.Finish() == "");
  REQUIRE(server.Finish() == "");
}

TEST_CASE("a server that never served leaves nothing", "[M24][R5]") {
  auto events = std::make_shared<EventRecorder>();
  {
    Server server(WithDefaults({}, events));
    REQUIRE_FALSE(server.Listen("127.0.0.1:0"));
    REQUIRE_FALSE(server.Listen("unix:@xtcp-test-never-served"));
  }
  REQUIRE(events->Verify() == "");
  REQUIRE(events.use_count() == 1);
}

TEST_CASE("destroying a server ends a graceful stop under way, and releases who waits",
          "[M24][M20][S5]") {
  auto events = std::make_shared<EventRecorder>();
  Options options;
  options.linger_timeout = std::chrono::minutes(1);
  TestServer server(events, options);
  RawPeer peer(server.port());
  REQUIRE(events->WaitForAccepted(1));
  std::unique_ptr<Server> owned = server.Release();
  StopReport waited;
  Threads threads;
  threads.Add([&, raw = owned.get()] { waited = raw->Stop(StopMode::kGracefullyAndWait); });
  REQUIRE(peer.ReadAll() == End::kEof);  // the stop has begun, and the waiter is inside
  WithinDeadline("~Server", [&] { owned.reset(); });
  REQUIRE(events->totals().closed == 1);
  threads.Join();
  REQUIRE(Text(waited) == Text({.connections = 1, .cut = 1}));
  REQUIRE(server.Finish() == "");
}

// --- Handles. ------------------------------------------------------------------------------------

TEST_CASE("a connection's last handle may be dropped in its own callbacks", "[M29][E6][R5]") {
  const auto where = GENERATE(EventType::kConnected, EventType::kRecv, EventType::kClosed);
  CAPTURE(static_cast<int>(where));
  auto events = std::make_shared<EventRecorder>();
  events->hold_handles = false;
  RawListener listener;
  ConnPtr conn = NewConn(WithDefaults({}, events));
  const std::weak_ptr<Conn> watch = conn;
  Signal dropped;
  const auto drop = [&](EventType event) {
    if (event != where) return;
    conn.reset();
    dropped.Set();
  };
  events->on_connected = [&](const ConnPtr&) { drop(EventType::kConnected); };
  events->on_recv = [&](const ConnPtr&, std::string_view) { drop(EventType::kRecv); };
  events->on_closed = [&](const ConnPtr&) { drop(EventType::kClosed); };
  Signal returned;
  Threads threads;
  threads.Add([&, raw = conn.get()] {
    static_cast<void>(raw->DialAndServe(listener.address()));
    returned.Set();
  });
  RawPeer peer = listener.Accept();
  REQUIRE(peer.SendAll(Frame("x")));
  REQUIRE(events->WaitForPackets(1));
  // Dropping a handle never closes a connection.
  if (where != EventType::kClosed) {
    REQUIRE(dropped.Wait());
    REQUIRE(peer.SendAll(Frame("y")));
    REQUIRE(events->WaitForPackets(2));
    REQUIRE_FALSE(watch.expired());
  }
  peer.Close();
  REQUIRE(returned.Wait());
  threads.Join();
  REQUIRE(dropped.IsSet());
  REQUIRE(watch.expired());
  REQUIRE(events->Verify() == "");
}

TEST_CASE("accepted connections live without handles, and go with the last one", "[M29][E6]") {
  auto events = std::make_shared<EventRecorder>();
  events->hold_handles = false;
  ConnPtr held;
  std::weak_ptr<Conn> watch;
  events->on_accept = [&](const ConnPtr& conn) {
    held = conn;
    watch = conn;
  };
  events->on_recv = [&](const ConnPtr&, std::string_view) { held.reset(); };
  TestServer server(events);
  RawPeer peer(server.port());
  REQUIRE(peer.SendAll(Frame("drop") + Frame("again")));
  REQUIRE(events->WaitForPackets(2));
  REQUIRE_FALSE(watch.expired());
  peer.Close();
  REQUIRE(events->WaitForClosed(1));
  REQUIRE(WaitUntil([&] { return watch.expired(); }));
  REQUIRE(server.Finish() == "");
}

TEST_CASE("a handle outlives its server, and every call on it is safe", "[M8][M20][E6][B3]") {
  const bool destroyed_in_use = GENERATE(false, true);
  auto events = std::make_shared<EventRecorder>();
  std::vector<ConnPtr> conns;
  std::atomic<bool> over{false};
  std::atomic<int> sent{0};
  Threads senders([&] { over = true; });
  {
    TestServer server(events);
    std::vector<RawPeer> peers;
    for (int i = 0; i < 4; ++i) peers.emplace_back(server.port());
    REQUIRE(events->WaitForAccepted(4));
    for (std::size_t i = 0; i < 4; ++i) conns.push_back(events->conn(i));
    if (destroyed_in_use) {
      for (int t = 0; t < 2; ++t) {
        senders.Add([&] {
          while (!over) {
            for (const ConnPtr& conn : conns) {
              static_cast<void>(conn->Send("x"));
              static_cast<void>(conn->Stats());
            }
            ++sent;
          }
        });
      }
      REQUIRE(WaitUntil([&] { return sent > 100; }));
    }
    std::unique_ptr<Server> owned = server.Release();
    WithinDeadline("~Server", [&] { owned.reset(); });
    const int then = sent;
    if (destroyed_in_use) REQUIRE(WaitUntil([&] { return sent > then + 100; }));
    REQUIRE(server.Finish() == "");
  }
  senders.Join();
  for (const ConnPtr& conn : conns) {
    const ConnStats stats = conn->Stats();
    REQUIRE(conn->Send("x") == Errc::kClosed);
    REQUIRE(conn->SendPacket(BytesPacket("x")) == Errc::kClosed);
    REQUIRE(conn->DialAndServe("127.0.0.1:1") == Errc::kAlreadyUsed);
    conn->PauseRecv();
    conn->ResumeRecv();
    REQUIRE(conn->IsStopped());
    REQUIRE(conn->Descriptor() == -1);
    REQUIRE(conn->RemoteAddress().Port() != 0);
    REQUIRE_FALSE(conn->ToString().empty());
    for (const StopMode mode : kModes) {
      StopReport report;
      WithinDeadline("a stop", [&] { report = conn->Stop(mode); });
      REQUIRE(report.connections == 1);  // the server's stop found it open
      REQUIRE_FALSE(report.error);
    }
    REQUIRE(conn->Stats().accepted_bytes == stats.accepted_bytes);
    REQUIRE(conn->Stats().refused_sends == stats.refused_sends);  // the account is final
  }
}

// Holds every connection for ever, in both ways that there are.
class Hoarder final : public Handler {
 public:
  void OnEvent(EventType event, const ConnPtr& conn, PacketPtr) override {
    if (event == EventType::kAccept || event == EventType::kConnected) {
      std::lock_guard lock(mutex_);
      conns_.push_back(conn);
      conn->UserData() = conn;
      ++opened;
    }
  }
  std::atomic<std::size_t> opened{0};

 private:
  std::mutex mutex_;
  std::vector<ConnPtr> conns_;
};

TEST_CASE("a handler that holds its connections is freed with the server", "[M29][E6]") {
  const StopMode mode = GENERATE(StopMode::kImmediately, StopMode::kGracefullyButNotWait);
  auto handler = std::make_shared<Hoarder>();
  const std::weak_ptr<Handler> watch = handler;
  {
    Server server(WithDefaults({}, handler));
    REQUIRE_FALSE(server.Listen("127.0.0.1:0"));
    Threads threads;
    threads.Add([&] { static_cast<void>(server.Serve()); });
    std::vector<RawPeer> peers;
    for (int i = 0; i < 3; ++i) peers.emplace_back(server.Addresses().at(0).Port());
    REQUIRE(WaitUntil([&] { return handler->opened == 3; }));
    static_cast<void>(server.Stop(mode));
    for (RawPeer& peer : peers) {
      REQUIRE(peer.ReadAll() == End::kEof);
      peer.Close();
    }
    WithinDeadline("Serve", [&] { threads.Join(); });
    handler.reset();
    REQUIRE_FALSE(watch.expired());  // Options has it
  }
  REQUIRE(watch.expired());
}

TEST_CASE("a handler that holds its dialled connection is freed with the dial", "[M29][E6]") {
  enum class End2 { kServed, kRefused, kStopped };
  const auto how = GENERATE(End2::kServed, End2::kRefused, End2::kStopped);
  CAPTURE(static_cast<int>(how));
  auto handler = std::make_shared<Hoarder>();
  const std::weak_ptr<Handler> watch_handler = handler;
  RawListener listener;
  ConnPtr conn = NewConn(WithDefaults({}, handler));
  const std::weak_ptr<Conn> watch_conn = conn;
  conn->UserData() = conn;
  const std::string address = listener.address();
  if (how == End2::kRefused) listener.Close();
  if (how == End2::kStopped) static_cast<void>(conn->Stop(StopMode::kImmediately));
  std::error_code dialled = Errc::kClosed;
  Threads threads;
  threads.Add([&] { dialled = conn->DialAndServe(address); });
  if (how == End2::kServed) {
    RawPeer peer = listener.Accept();
    REQUIRE(WaitUntil([&] { return handler->opened == 1; }));
    static_cast<void>(conn->Stop(StopMode::kGracefullyButNotWait));
    REQUIRE(peer.ReadAll() == End::kEof);
  }
  WithinDeadline("a dial", [&] { threads.Join(); });
  REQUIRE((how == End2::kServed) == !dialled);
  handler.reset();
  REQUIRE(watch_handler.expired());
  conn.reset();
  REQUIRE(watch_conn.expired());
}

// What becomes of user data at the end of its connection.
struct AtTheEnd {
  std::atomic<bool> gone{false};
  std::error_code of_stop, of_dial;
  std::thread::id thread;
};

// Calls what waits when it is destroyed, and takes its time.
struct WaitsAtTheEnd {
  ConnPtr conn;
  AtTheEnd* seen;
  ~WaitsAtTheEnd() {
    seen->of_stop = conn->Stop(StopMode::kGracefullyAndWait).error;
    seen->of_dial = conn->DialAndServe("127.0.0.1:1");
    seen->thread = std::this_thread::get_id();
    WaitUntil([] { return false; }, milliseconds(30));
    seen->gone = true;
  }
};

TEST_CASE("user data goes before a waiting stop returns, and what waits does not wait there",
          "[M20][M26][M29][S4]") {
  enum class How { kAccepted, kDialled, kRefused };
  const auto how = GENERATE(How::kAccepted, How::kDialled, How::kRefused);
  CAPTURE(static_cast<int>(how));
  AtTheEnd seen;
  std::thread::id served;
  auto events = std::make_shared<EventRecorder>();
  const auto give = [&](const ConnPtr& conn) {
    conn->UserData() =
        std::shared_ptr<WaitsAtTheEnd>(new WaitsAtTheEnd{.conn = conn, .seen = &seen});
  };
  events->on_accept = events->on_connected = [&](const ConnPtr& conn) {
    served = std::this_thread::get_id();
    give(conn);
  };
  std::optional<TestServer> server;
  std::optional<TestClient> client;
  RawListener listener;
  RawPeer peer;
  bool gone_at_return = false;
  if (how == How::kRefused) {
    client.emplace(events);
    give(client->conn());
    const std::string address = listener.address();
    listener.Close();
    client->Dial(address);
    REQUIRE(client->Wait() == std::errc::connection_refused);
    gone_at_return = seen.gone;
  } else {
    if (how == How::kAccepted) {
      server.emplace(events);
      peer = RawPeer(server->port());
      REQUIRE(events->WaitForAccepted(1));
    } else {
      client.emplace(events, listener.address());
      peer = listener.Accept();
      REQUIRE(events->WaitForConnected(1));
    }
    const ConnPtr conn = events->conn();
    WithinDeadline("a stop", [&] {
      static_cast<void>(conn->Stop(StopMode::kImmediately));
      static_cast<void>(conn->Stop(StopMode::kGracefullyAndWait));
      gone_at_return = seen.gone;
    });
  }
  REQUIRE(gone_at_return);
  REQUIRE(seen.of_stop == Errc::kWouldDeadlock);
  REQUIRE(seen.of_dial == Errc::kWouldDeadlock);
  if (how != How::kRefused) REQUIRE(seen.thread == served);
  const std::error_code expected = how == How::kRefused
                                       ? std::error_code(ECONNREFUSED, std::system_category())
                                       : std::error_code();
  REQUIRE((client ? client->Finish(StopMode::kImmediately, expected) : server->Finish()) == "");
}

}  // namespace
}  // namespace xtcp::test
