// Tasks of a connection: callbacks of it, in order.

#include <xtcp/xtcp.h>

#include <atomic>
#include <catch2/catch.hpp>
#include <chrono>
#include <cstddef>
#include <memory>
#include <span>
#include <stdexcept>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "support/alloc_hook.h"
#include "support/raw_peer.h"
#include "support/test_group.h"

namespace xtcp::test {
namespace {

using namespace std::chrono_literals;

// A connection of each kind: accepted or dialled on a shared loop, or served by a server of its own.
enum class Kind { kAccepted, kDialled, kOwnServer };

struct OneOf {
  explicit OneOf(Kind kind, Options options = {}) {
    if (kind != Kind::kOwnServer) group = std::make_unique<TestGroup>(2);
    if (kind == Kind::kDialled) {
      dialled = NewConn(WithDefaults(options, events), (**group)[1]);
      REQUIRE_FALSE(dialled->Dial(listener.address()));
      peer = listener.Accept();
      REQUIRE(events->WaitForConnected(1));
    } else {
      if (kind == Kind::kAccepted) {
        server = StartServer(**group, events, options);
        peer = RawPeer(AddressOf(*server));
      } else {
        own = std::make_unique<TestServer>(events, options);
        peer = RawPeer(own->address());
      }
      REQUIRE(events->WaitForAccepted(1));
    }
    conn = events->conn();
  }
  void Finish() {
    if (group != nullptr) REQUIRE(group->Finish() == "");
    if (own != nullptr) {
      REQUIRE(own->Finish() == "");
    } else {
      REQUIRE(events->Verify() == "");
    }
  }

  std::shared_ptr<EventRecorder> events = std::make_shared<EventRecorder>();
  RawListener listener;
  std::unique_ptr<TestGroup> group;
  std::unique_ptr<Server> server;
  std::unique_ptr<TestServer> own;
  ConnPtr dialled;
  ConnPtr conn;
  RawPeer peer;
};

TEST_CASE("Conn::Post runs tasks in order, as callbacks of that connection", "[M47][M6][M25]") {
  OneOf c(GENERATE(Kind::kAccepted, Kind::kDialled, Kind::kOwnServer));
  constexpr int kEach = 2000;
  std::array<std::vector<int>, 3> ran;
  std::atomic<bool> inside{false};
  std::atomic<int> overlaps{0}, elsewhere{0}, refused{0};
  const auto thread = c.events->connection().thread;
  const auto enter = [&] {
    if (inside.exchange(true)) ++overlaps;
    if (std::this_thread::get_id() != thread) ++elsewhere;
  };
  c.events->on_recv = [&](const ConnPtr& conn, std::string_view payload) {
    enter();
    Echo(conn, payload);
    inside = false;
  };
  std::vector<std::thread> posters;
  for (std::size_t t = 0; t < ran.size(); ++t) {
    posters.emplace_back([&, t] {
      for (int i = 0; i < kEach; ++i) {
        if (c.conn->Post([&, t, i] {
              enter();
              ran[t].push_back(i);
              inside = false;
            })) {
          ++refused;
        }
      }
    });
  }
  for (int i = 0; i < 100; ++i) {
    REQUIRE(c.peer.SendAll(Frame("x")));
    REQUIRE(c.peer.ReadFrame() == "x");
  }
  for (std::thread& poster : posters) poster.join();
  Signal last;
  REQUIRE_FALSE(c.conn->Post([&] { last.Set(); }));
  REQUIRE(last.Wait());
  REQUIRE(overlaps == 0);
  REQUIRE(elsewhere == 0);
  REQUIRE(refused == 0);
  for (const auto& of_thread : ran) {
    REQUIRE(of_thread.size() == kEach);
    REQUIRE(std::is_sorted(of_thread.begin(), of_thread.end()));
  }
  c.Finish();
}

TEST_CASE("a task posted before the dial comes after kConnected", "[M47]") {
  auto events = std::make_shared<EventRecorder>();
  const bool shared = GENERATE(true, false);
  RawListener listener;
  TestGroup group;
  const ConnPtr conn =
      shared ? NewConn(WithDefaults({}, events), group.loop()) : NewConn(WithDefaults({}, events));
  std::size_t connected_then = 0;
  Signal ran;
  REQUIRE_FALSE(conn->Post([&] {
    connected_then = events->totals().connected;
    ran.Set();
  }));
  std::thread dials([&] { static_cast<void>(conn->DialAndServe(listener.address())); });
  REQUIRE(ran.Wait());
  REQUIRE(connected_then == 1);
  static_cast<void>(conn->Stop(StopMode::kImmediately));
  WithinDeadline("a dial", [&] { dials.join(); });
  REQUIRE(group.Finish() == "");
  REQUIRE(events->Verify() == "");
}

// Notes its end in a list.
struct Ends {
  Ends(std::string what, std::vector<std::string>* order) : name(std::move(what)), ends(order) {}
  ~Ends() { ends->push_back(name); }
  std::string name;
  std::vector<std::string>* ends;
};

TEST_CASE("a connection that is never dialled drops its user data last", "[M28][M47]") {
  struct Decoding : TestProtocol {
    struct Decoder : Protocol::Decoder {
      explicit Decoder(std::vector<std::string>* order) : ends("decoder", order) {}
      UnpackResult Unpack(std::span<const std::byte>) override { return {}; }
      Ends ends;
    };
    std::unique_ptr<Protocol::Decoder> NewDecoder() const override {
      return std::make_unique<Decoder>(order);
    }
    std::vector<std::string>* order = nullptr;
  };
  std::vector<std::string> order;
  const auto protocol = std::make_shared<Decoding>();
  protocol->order = &order;
  ConnPtr conn = NewConn({std::make_shared<EventRecorder>(), protocol});
  conn->EmplaceData<Ends>("user data", &order);
  REQUIRE(conn->decoder() != nullptr);
  REQUIRE_FALSE(conn->Post([ends = std::make_unique<Ends>("task", &order)] {}));
  conn.reset();
  CHECK(order == std::vector<std::string>{"task", "decoder", "user data"});
}

TEST_CASE("tasks come while reading is paused, and while a stop flushes", "[M47]") {
  Options options;
  options.send_buffer_limit = 64 << 20;
  OneOf c(GENERATE(Kind::kAccepted, Kind::kDialled, Kind::kOwnServer), options);
  c.conn->PauseRecv();
  Signal paused;
  REQUIRE_FALSE(c.conn->Post([&] { paused.Set(); }));
  REQUIRE(paused.Wait());
  // It does not end before the peer reads.
  REQUIRE_FALSE(c.conn->Send(std::string(32 << 20, 'x')));
  static_cast<void>(c.conn->Stop(StopMode::kGracefullyButNotWait));
  Signal stopping;
  REQUIRE_FALSE(c.conn->Post([&] { stopping.Set(); }));
  REQUIRE(stopping.Wait());
  REQUIRE(c.conn->Stats().reason == CloseReason::kNone);
  if (c.server != nullptr) static_cast<void>(c.server->Stop(StopMode::kGracefullyButNotWait));
  Signal stopped;
  REQUIRE_FALSE(c.conn->Post([&] { stopped.Set(); }));
  REQUIRE(stopped.Wait());
  c.Finish();
}

TEST_CASE("from kClosed on tasks are refused; those that wait are destroyed after it, on the loop",
          "[M47]") {
  OneOf c(GENERATE(Kind::kAccepted, Kind::kDialled, Kind::kOwnServer));
  const auto thread = c.events->connection().thread;
  std::atomic<bool> closed_returned{false};
  std::atomic<int> ran{0}, destroyed{0}, elsewhere{0}, too_early{0};
  std::error_code inside;
  c.events->on_closed = [&](const ConnPtr& conn) {
    inside = conn->Post([] {});
    std::this_thread::yield();
    closed_returned = true;
  };
  // The first task ends the connection: the others do not run.
  Signal queued;
  REQUIRE_FALSE(c.conn->Post([&] {
    queued.Wait();
    static_cast<void>(c.conn->Stop(StopMode::kImmediately));
  }));
  for (int i = 0; i < 100; ++i) {
    std::shared_ptr<void> probe(nullptr, [&](void*) {
      ++destroyed;
      if (!closed_returned) ++too_early;
      if (std::this_thread::get_id() != thread) ++elsewhere;
    });
    REQUIRE_FALSE(c.conn->Post([&, probe = std::move(probe)] { ++ran; }));
  }
  queued.Set();
  REQUIRE(c.events->WaitForClosed(1));
  REQUIRE(WaitUntil([&] { return destroyed == 100; }));
  REQUIRE(inside == Errc::kClosed);
  REQUIRE(c.conn->Post([] {}) == Errc::kClosed);
  REQUIRE(elsewhere == 0);
  if (ran == 0) REQUIRE(too_early == 0);
  c.Finish();
}

TEST_CASE("tasks of a dial that fails are destroyed on the loop, and refused from then on",
          "[M47][M51]") {
  auto events = std::make_shared<EventRecorder>();
  TestGroup group;
  std::thread::id loop_thread;
  REQUIRE(group.On([&] { loop_thread = std::this_thread::get_id(); }));
  const ConnPtr conn = NewConn(WithDefaults({}, events), group.loop());
  std::thread::id destroyed_on;
  Signal destroyed;
  std::shared_ptr<void> probe(nullptr, [&](void*) {
    destroyed_on = std::this_thread::get_id();
    destroyed.Set();
  });
  bool ran = false;
  REQUIRE_FALSE(conn->Post([&ran, probe = std::move(probe)] { ran = true; }));
  std::error_code inside;
  events->on_dial_failed = [&](const ConnPtr& failed, std::error_code) {
    inside = failed->Post([] {});
  };
  REQUIRE_FALSE(conn->Dial("127.0.0.1:1"));
  REQUIRE(events->WaitForDialsFailed(1));
  REQUIRE(destroyed.Wait());
  REQUIRE(destroyed_on == loop_thread);
  REQUIRE_FALSE(ran);
  REQUIRE(inside == Errc::kClosed);
  REQUIRE(conn->Post([] {}) == Errc::kClosed);
  REQUIRE(group.Finish() == "");
}

TEST_CASE("an exception from a connection's task ends that connection", "[M49][M38]") {
  OneOf c(GENERATE(Kind::kAccepted, Kind::kDialled, Kind::kOwnServer));
  REQUIRE_FALSE(c.conn->Post([] { throw std::runtime_error("from a task"); }));
  REQUIRE(c.events->WaitForClosed(1));
  REQUIRE(c.conn->Stats().reason == CloseReason::kException);
  if (c.group != nullptr) REQUIRE(c.group->On([] {}));
  c.Finish();
}

TEST_CASE("what a task sends leaves with the turn's one write", "[M47][M9]") {
  OneOf c(GENERATE(Kind::kAccepted, Kind::kDialled, Kind::kOwnServer));
  REQUIRE_FALSE(c.conn->Post([&] {
    for (int i = 0; i < 10; ++i) static_cast<void>(c.conn->Send(Frame("from a task")));
  }));
  for (int i = 0; i < 10; ++i) REQUIRE(c.peer.ReadFrame() == "from a task");
  c.Finish();
}

TEST_CASE("many tasks of one connection keep no other one out", "[M47][R9]") {
  OneOf c(Kind::kAccepted);
  std::size_t ran = 0, ran_at_recv = 0;
  c.events->on_recv = [&](const ConnPtr& conn, std::string_view payload) {
    ran_at_recv = ran;
    Echo(conn, payload);
  };
  // The first server's loops deal in turn: its second connection may live on the other loop, its third
  // does not.
  RawPeer other(AddressOf(*c.server)), third(AddressOf(*c.server));
  REQUIRE(c.events->WaitForAccepted(3));
  Signal goes_on;
  bool sent = false;
  REQUIRE_FALSE(c.conn->Post([&] { goes_on.Wait(); }));
  constexpr std::size_t kTasks = 20'000;
  Signal last;
  for (std::size_t i = 0; i < kTasks; ++i) {
    REQUIRE_FALSE(c.conn->Post([&, i] {
      if (++ran == 1) sent = third.SendAll(Frame("x"));
      if (i + 1 == kTasks) last.Set();
    }));
  }
  goes_on.Set();
  REQUIRE(third.ReadFrame() == "x");
  REQUIRE(last.Wait());
  REQUIRE(sent);
  REQUIRE(ran == kTasks);
  REQUIRE(ran_at_recv < kTasks);
  c.Finish();
}

TEST_CASE("a task of a connection that is refused for want of memory is destroyed", "[M47][F4]") {
  OneOf c(GENERATE(Kind::kAccepted, Kind::kDialled, Kind::kOwnServer));
  const auto probe = std::make_shared<int>();
  Task task([probe] {});
  std::error_code error;
  {
    const NoMemory none;
    error = c.conn->Post(std::move(task));
  }
  REQUIRE(error == Errc::kNoMemory);
  REQUIRE(probe.use_count() == 1);
  c.Finish();
}

}  // namespace
}  // namespace xtcp::test
