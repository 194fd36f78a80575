#include <pthread.h>

#include <atomic>
#include <catch2/catch.hpp>
#include <csignal>
#include <filesystem>
#include <fstream>
#include <map>
#include <memory>
#include <mutex>
#include <set>
#include <string>
#include <thread>
#include <vector>

#include "support/deadline.h"
#include "support/event_recorder.h"
#include "support/raw_peer.h"
#include "support/test_client.h"
#include "support/test_protocol.h"
#include "support/test_server.h"

namespace xtcp::test {
namespace {

TEST_CASE("connections are dealt to the loops in turn, and stay there", "[M25][E3]") {
  constexpr std::size_t kLoops = 4;
  constexpr std::size_t kConnections = 40;
  Options options;
  options.loops = kLoops;
  auto events = std::make_shared<EventRecorder>();
  TestServer server(events, options);
  std::vector<RawPeer> peers;
  for (std::size_t i = 0; i < kConnections; ++i) peers.emplace_back(server.port());
  REQUIRE(events->WaitForAccepted(kConnections));
  for (RawPeer& peer : peers) REQUIRE(peer.SendAll(Frame("x")));
  REQUIRE(events->WaitForPackets(kConnections));
  std::map<std::thread::id, std::size_t> share;
  for (const auto& connection : events->connections()) ++share[connection.thread];
  REQUIRE(share.size() == kLoops);
  for (const auto& [thread, count] : share) REQUIRE(count == kConnections / kLoops);
  REQUIRE(server.Finish() == "");
}

TEST_CASE("the serving thread runs the first loop", "[M25]") {
  auto events = std::make_shared<EventRecorder>();
  std::thread::id serving;
  Server server(WithDefaults({}, events));
  REQUIRE_FALSE(server.Listen("127.0.0.1:0"));
  std::thread thread([&] {
    serving = std::this_thread::get_id();
    static_cast<void>(server.Serve());
  });
  RawPeer peer(server.Addresses().at(0).Port());
  REQUIRE(events->WaitForAccepted(1));
  peer.Close();
  WithinDeadline("a stop", [&] { server.Stop(StopMode::kGracefullyAndWait); });
  thread.join();
  REQUIRE(events->connection().thread == serving);
  REQUIRE(events->Verify() == "");
}

TEST_CASE("threads of the library block all signals but the synchronous ones", "[M30][X7]") {
  Options options;
  options.loops = 2;
  auto events = std::make_shared<EventRecorder>();
  std::mutex mutex;
  std::vector<sigset_t> masks;
  events->on_accept = [&](const ConnPtr&) {
    sigset_t mask;
    pthread_sigmask(SIG_SETMASK, nullptr, &mask);
    std::lock_guard lock(mutex);
    masks.push_back(mask);
  };
  TestServer server(events, options);
  RawPeer one(server.port()), two(server.port());
  REQUIRE(events->WaitForAccepted(2));
  const auto serving = server.Finish();
  REQUIRE(serving == "");
  // One of the two is the serving thread, which is the test's own, with nothing blocked.
  int started = 0;
  for (const sigset_t& mask : masks) {
    if (sigismember(&mask, SIGTERM) == 0) continue;
    ++started;
    for (const int signal : {SIGINT, SIGHUP, SIGPIPE, SIGUSR1, SIGCHLD, SIGALRM}) {
      REQUIRE(sigismember(&mask, signal) == 1);
    }
    for (const int signal : {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGTRAP, SIGSYS, SIGABRT, SIGPROF}) {
      REQUIRE(sigismember(&mask, signal) == 0);
    }
  }
  REQUIRE(started == 1);
}

std::string NameOf(const std::string& thread) {
  std::string name;
  std::getline(std::ifstream("/proc/" + thread + "/comm"), name);
  return name;
}

TEST_CASE("threads of the library are named after their loop, the caller's is not", "[M25]") {
  constexpr std::size_t kLoops = 3;
  const std::string own = NameOf("thread-self");
  Options options;
  options.loops = kLoops;
  auto events = std::make_shared<EventRecorder>();
  std::mutex mutex;
  std::vector<std::string> dealt_to;
  Tally dealt;
  events->on_accept = [&](const ConnPtr&) {
    {
      std::lock_guard lock(mutex);
      dealt_to.push_back(NameOf("thread-self"));
    }
    dealt.Add();
  };
  TestServer server(events, options);
  std::vector<RawPeer> peers;
  for (std::size_t i = 0; i < kLoops; ++i) {
    peers.emplace_back(server.port());
    REQUIRE(dealt.WaitFor(i + 1));
  }
  std::lock_guard lock(mutex);
  REQUIRE(dealt_to == std::vector<std::string>{own, "xtcp-loop-1", "xtcp-loop-2"});
  std::multiset<std::string> named;
  for (const auto& task : std::filesystem::directory_iterator("/proc/self/task")) {
    const std::string name = NameOf("self/task/" + task.path().filename().string());
    if (name.starts_with("xtcp-")) named.insert(name);
  }
  REQUIRE(named == std::multiset<std::string>{"xtcp-loop-1", "xtcp-loop-2"});
  REQUIRE(server.Finish() == "");
}

TEST_CASE("no signal disposition changes", "[M30][X7][F3]") {
  std::vector<struct sigaction> before(32), after(32);
  for (int i = 1; i < 32; ++i) sigaction(i, nullptr, &before[static_cast<std::size_t>(i)]);
  auto events = std::make_shared<EventRecorder>();
  TestServer server(events);
  TestClient client(events, server.address());
  REQUIRE(events->WaitForConnected(1));
  REQUIRE(client.Finish() == "");
  REQUIRE(server.Finish() == "");
  for (int i = 1; i < 32; ++i) sigaction(i, nullptr, &after[static_cast<std::size_t>(i)]);
  for (std::size_t i = 1; i < 32; ++i) {
    REQUIRE(before[i].sa_handler == after[i].sa_handler);
    REQUIRE(before[i].sa_flags == after[i].sa_flags);
  }
}

TEST_CASE("calls that wait do not wait inside callbacks", "[M26][S4]") {
  enum class Place { kAccept, kRecv, kUnpackError, kSendReady, kClosed };
  const auto where = GENERATE(Place::kAccept, Place::kRecv, Place::kUnpackError, Place::kSendReady,
                              Place::kClosed);
  const int own = GENERATE(0, 1);  // this server's objects, or others
  CAPTURE(static_cast<int>(where), own);
  auto events = std::make_shared<EventRecorder>();
  auto idle = std::make_shared<EventRecorder>();
  Server other(WithDefaults({}, idle));
  REQUIRE_FALSE(other.Listen("127.0.0.1:0"));
  const ConnPtr fresh = NewConn(WithDefaults({}, idle));
  Server* self = nullptr;
  Signal ready;
  std::vector<std::error_code> results;
  const auto call_all = [&](Place here, const ConnPtr& conn) {
    if (here != where || !results.empty()) return;
    static_cast<void>(ready.Wait());
    if (own == 1) {
      results = {conn->Stop(StopMode::kGracefullyAndWait).error,
                 self->Stop(StopMode::kGracefullyAndWait).error, self->Serve(),
                 self->ListenAndServe("127.0.0.1:0"), conn->DialAndServe("127.0.0.1:1")};
    } else {
      results = {other.Stop(StopMode::kGracefullyAndWait).error, other.Serve(),
                 other.ListenAndServe("127.0.0.1:0"), fresh->DialAndServe("127.0.0.1:1"),
                 fresh->Stop(StopMode::kGracefullyAndWait).error};
    }
  };
  events->on_accept = [&](const ConnPtr& conn) { call_all(Place::kAccept, conn); };
  events->on_recv = [&](const ConnPtr& conn, std::string_view) {
    call_all(Place::kRecv, conn);
    // Too much, so that OnSendReady follows.
    if (where == Place::kSendReady) {
      while (!conn->Send(std::string(100'000, 'x'))) {
      }
    }
  };
  events->on_unpack_error = [&](const ConnPtr& conn, std::span<const std::byte>, std::error_code) {
    call_all(Place::kUnpackError, conn);
  };
  events->on_send_ready = [&](const ConnPtr& conn) { call_all(Place::kSendReady, conn); };
  events->on_closed = [&](const ConnPtr& conn) { call_all(Place::kClosed, conn); };
  Options options;
  options.send_buffer_limit = 1 << 20;
  TestServer server(events, options);
  self = server.operator->();
  ready.Set();
  RawPeer peer(server.port());
  const bool bad = where == Place::kUnpackError;
  REQUIRE(peer.SendAll(bad ? MarkedFrame(Marker::kBad, "bad") : Frame("x")));
  if (where == Place::kSendReady) {
    std::string some;
    REQUIRE(peer.ReadExactly(100'000, &some) == End::kOpen);
    REQUIRE(events->WaitForSendReady(1));
  }
  if (where == Place::kClosed) peer.HalfClose();
  if (own == 1) REQUIRE(peer.ReadAll() != End::kTimeout);
  peer.Close();
  REQUIRE(events->WaitForClosed(1));
  REQUIRE(server.Finish() == "");
  REQUIRE(results == std::vector<std::error_code>(5, Errc::kWouldDeadlock));
  REQUIRE(idle->Verify() == "");
}

TEST_CASE("whatever is no callback's business may be asked on any thread, at any time",
          "[M28][E6]") {
  // For the thread sanitizer, too: these threads share nothing but the objects they ask.
  constexpr int kRounds = 20;
  for (int round = 0; round < kRounds; ++round) {
    auto events = std::make_shared<EventRecorder>();
    events->on_recv = Echo;
    Options options;
    options.loops = 2;
    Server server(WithDefaults(options, events));
    const ConnPtr conn = NewConn(WithDefaults({}, events));
    std::atomic<bool> over{false};
    std::atomic<int> asked{0};
    std::atomic<int> wrong{0};
    const auto ask_conn = [&](const ConnPtr& about) {
      const ConnStats stats = about->Stats();
      if (stats.written_bytes > stats.accepted_bytes) ++wrong;
      if (stats.reason != CloseReason::kNone && !about->IsStopped()) ++wrong;
      if (about->ToString().empty()) ++wrong;
      static_cast<void>(about->LocalAddress() == about->RemoteAddress());
      about->PauseRecv();
      about->ResumeRecv();
      static_cast<void>(about->Send("x"));
    };
    const auto ask_server = [&] {
      const ServerStats stats = server.Stats();
      if (stats.closed > stats.accepted) ++wrong;
      if (stats.written_bytes > stats.accepted_bytes) ++wrong;
      if (server.ConnectionCount() > 1 || server.Addresses().size() > 2) ++wrong;
      static_cast<void>(server.IsStopped());
    };
    std::vector<std::thread> askers;
    for (int t = 0; t < 2; ++t) {
      askers.emplace_back([&] {
        while (!over) {
          ask_conn(conn);
          ask_server();
          for (const auto& connection : events->connections()) {
            // There is none while the recorder is still writing it down.
            if (connection.conn != nullptr) ask_conn(connection.conn);
          }
          ++asked;
          std::this_thread::yield();
        }
      });
    }
    const std::error_code first = server.Listen("127.0.0.1:0");
    const std::error_code second = server.Listen("127.0.0.1:0");
    const std::string address = server.Addresses().at(0).ToString();
    std::error_code served = Errc::kClosed, dialled = Errc::kClosed;
    std::thread serving([&] { served = server.Serve(); });
    std::thread dialling([&] { dialled = conn->DialAndServe(address); });
    const bool stood = events->WaitForAccepted(1) && events->WaitForConnected(1);
    const int then = asked;
    const bool busy = WaitUntil([&] { return asked > then + 10; });
    WithinDeadline("a stop", [&] {
      static_cast<void>(conn->Stop(StopMode::kImmediately));
      static_cast<void>(server.Stop(StopMode::kImmediately));
      serving.join();
      dialling.join();
    });
    over = true;
    for (std::thread& asker : askers) asker.join();
    REQUIRE_FALSE(first);
    REQUIRE_FALSE(second);
    REQUIRE_FALSE(served);
    REQUIRE_FALSE(dialled);
    REQUIRE(stood);
    REQUIRE(busy);
    REQUIRE(wrong == 0);
    REQUIRE(events->Verify() == "");
  }
}

TEST_CASE("handlers and user data may hold connections; nothing leaks", "[M29][E6]") {
  struct Keeper {
    ConnPtr conn;
    std::shared_ptr<std::atomic<std::thread::id>> destroyed_on;
    ~Keeper() {
      if (conn) *destroyed_on = std::this_thread::get_id();
    }
  };
  const auto destroyed_on = std::make_shared<std::atomic<std::thread::id>>();
  std::weak_ptr<Conn> watch;
  std::thread::id loop;
  std::weak_ptr<EventRecorder> handler;
  {
    auto events = std::make_shared<EventRecorder>();
    handler = events;
    events->hold_handles = false;
    events->on_accept = [&](const ConnPtr& conn) {
      watch = conn;
      loop = std::this_thread::get_id();
      conn->UserData() = std::make_shared<Keeper>(Keeper{conn, destroyed_on});
    };
    TestServer server(events);
    RawPeer peer(server.port());
    REQUIRE(events->WaitForAccepted(1));
    peer.Close();
    REQUIRE(events->WaitForClosed(1));
    REQUIRE(server.Finish() == "");
  }
  REQUIRE(watch.expired());
  REQUIRE(destroyed_on->load() == loop);
  REQUIRE(handler.expired());
}

TEST_CASE("a connection outlives its server, and only refuses", "[E6][M29]") {
  auto events = std::make_shared<EventRecorder>();
  ConnPtr conn;
  {
    TestServer server(events);
    RawPeer peer(server.port());
    REQUIRE(events->WaitForAccepted(1));
    conn = events->conn();
    REQUIRE(server.Finish() == "");
    static_cast<void>(server.Release());
  }
  REQUIRE(conn->Send("x") == Errc::kClosed);
  REQUIRE(conn->SendPacket(BytesPacket("x")) == Errc::kClosed);
  conn->PauseRecv();
  conn->ResumeRecv();
  REQUIRE(conn->Stop(StopMode::kGracefullyAndWait).unsent_bytes == 0);
  REQUIRE(conn->IsStopped());
  REQUIRE_FALSE(conn->ToString().empty());
}

TEST_CASE("Send and the stops that do not wait may be called with own locks held", "[M27]") {
  auto events = std::make_shared<EventRecorder>();
  std::mutex own;
  std::atomic<int> callbacks{0};
  const auto lock_it = [&](const ConnPtr&) {
    std::lock_guard lock(own);
    ++callbacks;
  };
  events->on_closed = lock_it;
  events->on_recv = [&](const ConnPtr& conn, std::string_view) { lock_it(conn); };
  TestServer server(events);
  RawPeer peer(server.port());
  REQUIRE(events->WaitForAccepted(1));
  const ConnPtr conn = events->conn();
  for (int i = 0; i < 200; ++i) {
    std::lock_guard lock(own);
    REQUIRE_FALSE(conn->Send("x"));
    conn->PauseRecv();
    conn->ResumeRecv();
  }
  REQUIRE(peer.SendAll(Frame("y")));
  REQUIRE(events->WaitForPackets(1));
  {
    std::lock_guard lock(own);
    static_cast<void>(conn->Stop(StopMode::kGracefullyButNotWait));
    static_cast<void>(server->Stop(StopMode::kImmediately));
  }
  REQUIRE(events->WaitForClosed(1));
  REQUIRE(server.Finish() == "");
  REQUIRE(callbacks == 2);
}

}  // namespace
}  // namespace xtcp::test
