// Every mode of a stop, in every state of a connection, from every caller.

#include <array>
#include <atomic>
#include <catch2/catch.hpp>
#include <chrono>
#include <fstream>
#include <functional>
#include <latch>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <string_view>
#include <thread>
#include <utility>
#include <vector>

#include "support/event_recorder.h"
#include "support/leak_guard.h"
#include "support/raw_peer.h"
#include "support/stop_books.h"
#include "support/test_client.h"
#include "support/test_protocol.h"
#include "support/test_server.h"

namespace xtcp::test {
namespace {

using Clock = std::chrono::steady_clock;
using std::chrono::milliseconds;

enum class Target { kServer, kAccepted, kDialled };
enum class State {
  kIdle,
  kMidReceive,  // half a packet has come
  kMidSend,     // more is queued than the kernel takes; the peer begins to read with the stop
  kNotReading,  // the same, but the peer does not read
  kFlooding,    // the peer does not read and never stops sending
  kConnecting,  // there is no connection yet, or its first callback runs
  kInCallback,
};
enum class Caller { kLoopThread, kOtherThread, kTwoThreads };

constexpr std::array kStates = {State::kIdle,       State::kMidReceive, State::kMidSend,
                                State::kNotReading, State::kFlooding,   State::kConnecting,
                                State::kInCallback};
constexpr std::array kStateNames = {"idle",     "mid-receive", "mid-send",   "not reading",
                                    "flooding", "connecting",  "in callback"};
constexpr std::array kCallers = {Caller::kLoopThread, Caller::kOtherThread, Caller::kTwoThreads};
constexpr std::array kCallerNames = {"loop thread", "other thread", "two threads"};

struct Cell {
  Target target;
  std::size_t loops;
  State state;
  StopMode mode;
  Caller caller;

  bool graceful() const { return mode != StopMode::kImmediately; }
  bool on_loop() const { return caller == Caller::kLoopThread; }
  // A peer that never ends its stream.
  bool peer_stays() const { return state == State::kNotReading || state == State::kFlooding; }
  bool cut() const { return graceful() && peer_stays(); }
  // Who is cut is cut soon. For all others it is longer than any wait of a test: a stop that ends only
  // with it is a hang.
  milliseconds linger() const {
    return peer_stays() ? milliseconds(150) : milliseconds(std::chrono::minutes(10));
  }
};

// More than the kernel takes for a peer that does not read.
constexpr std::size_t kQueued = 12 << 20;
// Made once: under a sanitizer that costs more than to send it.
const std::string kBytes(kQueued, 'x');

// Calls stop as the cell says, and looks at what the calls return, and when.
class Callers {
 public:
  Callers(const Cell& cell, std::function<StopReport(StopMode)> stop,
          std::function<bool()> all_closed)
      : cell_(cell), stop_(std::move(stop)), all_closed_(std::move(all_closed)) {}

  // In a callback.
  void CallOnLoop() {
    Call();
    called_.Set();
  }
  bool WaitForCallOnLoop() { return called_.Wait(); }

  // On threads of their own, at once.
  void Start() {
    const int count = cell_.caller == Caller::kTwoThreads ? 2 : 1;
    together_.emplace(count);
    for (int i = 0; i < count; ++i) {
      threads_.Add([this] {
        together_->arrive_and_wait();
        WithinDeadline("a stop", [this] { Call(); });
      });
    }
  }

  // After the end, whose report is `final`: what was wrong, a line each.
  std::string Finish(const StopReport& final) {
    threads_.Join();
    std::string problems;
    std::lock_guard lock(mutex_);
    for (const Returned& call : calls_) {
      std::string expected = OnlyConnections(final.connections);
      if (cell_.mode == StopMode::kGracefullyAndWait && cell_.on_loop()) {
        expected = Text({.error = Errc::kWouldDeadlock, .connections = final.connections});
      } else if (cell_.mode == StopMode::kGracefullyAndWait) {
        expected = Text(final);
        if (!call.all_closed) problems += "S3: a waiting stop returned before the last kClosed\n";
      }
      if (Text(call.report) != expected) {
        problems += "M20: a stop reported " + Text(call.report) + ", not " + expected + "\n";
      }
    }
    const std::size_t expected_calls = cell_.caller == Caller::kTwoThreads ? 2 : 1;
    if (calls_.size() != expected_calls) problems += "not every stop returned\n";
    return problems;
  }

 private:
  struct Returned {
    StopReport report;
    bool all_closed;
  };

  void Call() {
    const StopReport report = stop_(cell_.mode);
    const bool all_closed = all_closed_();
    std::lock_guard lock(mutex_);
    calls_.push_back({report, all_closed});
  }

  const Cell cell_;
  const std::function<StopReport(StopMode)> stop_;
  const std::function<bool()> all_closed_;
  Signal called_;
  std::optional<std::latch> together_;
  std::mutex mutex_;
  std::vector<Returned> calls_;
  Threads threads_;
};

// A connection that stands, its peer, and another connection whose handler can call on a loop's
// thread. The handler does what the frames of a peer say.
class Stage {
 public:
  explicit Stage(const Cell& cell) : cell_(cell) {
    events_->keep_payloads = false;
    events_->on_recv = [this](const ConnPtr& conn, std::string_view payload) {
      OnRecv(conn, payload);
    };
    Options options;
    options.loops = cell.loops;
    options.linger_timeout = cell.linger();
    if (cell.target == Target::kDialled) {
      listener_.emplace();
      client_.emplace(events_, listener_->address(), options);
      peer_ = listener_->Accept();
      REQUIRE(events_->WaitForConnected(1));
    }
    server_.emplace(events_, options);
    if (cell.target != Target::kDialled) {
      peer_ = RawPeer(server_->port(), cell.state == State::kNotReading ? 4096 : 0);
      REQUIRE(events_->WaitForAccepted(1));
    }
    conn_ = events_->conn();
    control_ = RawPeer(server_->port());
    REQUIRE(events_->WaitForAccepted(cell.target == Target::kDialled ? 1 : 2));
    callers_.emplace(
        cell, [this](StopMode mode) { return Stop(mode); }, [this] { return AllClosed(); });
  }

  void Run() {
    Enter();
    const auto begin = Clock::now();
    if (cell_.on_loop()) {
      RawPeer& from = cell_.state == State::kInCallback ? peer_ : control_;
      REQUIRE(from.SendAll(Frame("stop")));
      REQUIRE(callers_->WaitForCallOnLoop());
    } else {
      callers_->Start();
    }
    End end = End::kOpen;
    if (!cell_.peer_stays()) {
      end = peer_.ReadAll();
      peer_.Close();
    }
    if (cell_.target == Target::kServer) {
      REQUIRE(control_.ReadAll() == End::kEof);
      control_.Close();
    }
    REQUIRE(WaitUntil([this] { return Stopped(); }));  // the stop that is tested comes first
    StopReport report;
    WithinDeadline("a stop", [&] { report = Stop(StopMode::kGracefullyAndWait); });
    const auto took = Clock::now() - begin;
    REQUIRE(callers_->Finish(report) == "");
    flood_.Join();
    if (cell_.peer_stays()) end = peer_.ReadAll();
    if (cell_.cut()) REQUIRE(took >= cell_.linger());
    REQUIRE(report.connections == (cell_.target == Target::kServer ? 2 : 1));
    Check(report, end);
    if (client_) REQUIRE(client_->Finish() == "");
    REQUIRE(server_->Finish() == "");
  }

 private:
  void OnRecv(const ConnPtr& conn, std::string_view payload) {
    if (payload == "fill") {
      static_cast<void>(conn->Send(kBytes));
    } else if (payload == "answer") {
      static_cast<void>(conn->Send(kAnswer));
    } else if (payload == "hold") {
      static_cast<void>(conn->Send(kAnswer));
      held_.Set();
      WaitUntil([this] { return Stopped(); });
    } else if (payload == "stop") {
      if (conn == conn_) static_cast<void>(conn->Send(kAnswer));
      callers_->CallOnLoop();
    }
  }

  StopReport Stop(StopMode mode) {
    return cell_.target == Target::kServer ? (*server_)->Stop(mode) : conn_->Stop(mode);
  }
  bool Stopped() const {
    return cell_.target == Target::kServer ? (*server_)->IsStopped() : conn_->IsStopped();
  }
  bool AllClosed() const {
    if (cell_.target != Target::kServer) return events_->connection().closed;
    const auto totals = events_->totals();
    return totals.closed == totals.accepted;
  }

  // Brings the connection into its state.
  void Enter() {
    switch (cell_.state) {
      case State::kIdle:
      case State::kConnecting:
        break;
      case State::kMidReceive:
        REQUIRE(peer_.SendAll(Frame("half").substr(0, 6)));
        REQUIRE(WaitUntil([this] { return conn_->Stats().received_bytes == 6; }));
        break;
      case State::kMidSend:
      case State::kNotReading:
        REQUIRE(peer_.SendAll(Frame("fill")));
        REQUIRE(WaitUntil([this] { return conn_->Stats().accepted_bytes == kQueued; }));
        break;
      case State::kFlooding:
        // What was said before the flood arrives, too.
        REQUIRE(peer_.SendAll(Frame("answer")));
        REQUIRE(WaitUntil([this] { return conn_->Stats().written_bytes == kAnswer.size(); }));
        flood_.Add([this] {
          const std::string frames = Frame(std::string(1000, 'f'));
          while (!over_ && peer_.SendAll(frames, milliseconds(100))) {
          }
        });
        REQUIRE(events_->WaitForPackets(10));
        break;
      case State::kInCallback:
        if (cell_.on_loop()) break;  // there the stop itself is inside
        REQUIRE(peer_.SendAll(Frame("hold")));
        REQUIRE(held_.Wait());
        break;
    }
  }

  // What must be true in the end, exact where the state makes it exact.
  void Check(const StopReport& report, End end) const {
    const ConnStats stats = conn_->Stats();
    const std::uint64_t got = peer_.received();
    REQUIRE(BookProblems(stats, got) == "");
    REQUIRE_FALSE(report.error);
    REQUIRE(report.cut == (cell_.cut() ? 1 : 0));
    REQUIRE(report.unsent_bytes == stats.unsent_bytes());
    REQUIRE(report.unacked_bytes == stats.unacked_bytes);
    REQUIRE(stats.reason == (cell_.cut() ? CloseReason::kLingerTimeout : CloseReason::kLocalStop));
    // Nobody left input unread, so what the kernel took arrives, and then a FIN.
    if (!cell_.peer_stays()) {
      REQUIRE(end == End::kEof);
      REQUIRE(got == stats.written_bytes);
      if (cell_.graceful()) {
        REQUIRE(Text(report) == OnlyConnections(report.connections));
        REQUIRE(got == stats.accepted_bytes);
      }
    }
    switch (cell_.state) {
      case State::kIdle:
      case State::kMidReceive:
      case State::kConnecting:
        REQUIRE(stats.accepted_bytes == 0);
        break;
      case State::kMidSend:
        REQUIRE(stats.accepted_bytes == kQueued);
        // After an immediate stop the rest is unsent, if the peer did not read everything before.
        break;
      case State::kNotReading:
        REQUIRE(stats.accepted_bytes == kQueued);
        REQUIRE(report.unsent_bytes > 0);
        break;
      case State::kFlooding:
        REQUIRE(stats.accepted_bytes == kAnswer.size());
        REQUIRE(report.unsent_bytes == 0);
        if (cell_.graceful()) REQUIRE(got == kAnswer.size());
        break;
      case State::kInCallback:
        REQUIRE(stats.accepted_bytes == kAnswer.size());
        // S1: what the callback said before is dropped, once the loop has seen the stop. A server's
        // reaches the loop a moment later.
        if (!cell_.graceful() && cell_.target != Target::kServer) {
          REQUIRE(report.unsent_bytes == kAnswer.size());
        }
        break;
    }
  }

  static constexpr std::string_view kAnswer = "an answer";

  const Cell cell_;
  const std::shared_ptr<EventRecorder> events_ = std::make_shared<EventRecorder>();
  Signal held_;  // the callback of kInCallback runs
  std::atomic<bool> over_{false};
  ConnPtr conn_;
  std::optional<RawListener> listener_;
  std::optional<TestServer> server_;
  std::optional<TestClient> client_;
  RawPeer peer_;
  RawPeer control_;
  std::optional<Callers> callers_;
  Threads flood_{[this] { over_ = true; }};
};

// --- The state "connecting". ---------------------------------------------------------------------

// A client in the listener's queue while the only loop is busy; with three loops, one that was
// accepted and is on its way to its loop, which is busy. The stop overtakes it (M25, S6).
void RunConnectingToServer(const Cell& cell) {
  auto events = std::make_shared<EventRecorder>();
  Signal held, go;
  Server* subject = nullptr;
  std::optional<Callers> callers;
  events->on_recv = [&](const ConnPtr&, std::string_view) {
    held.Set();
    static_cast<void>(go.Wait());
    if (cell.on_loop()) {
      callers->CallOnLoop();
    } else {
      WaitUntil([&] { return subject->IsStopped(); });
    }
  };
  Options options;
  options.loops = cell.loops;
  options.linger_timeout = cell.linger();
  TestServer server(events, options);
  subject = server.operator->();
  const auto all_closed = [&] { return events->totals().closed == events->totals().accepted; };
  callers.emplace(
      cell, [&](StopMode mode) { return subject->Stop(mode); }, all_closed);
  // Connections are dealt in turn. With three loops the second one keeps the second loop busy, and
  // the fifth one is on its way there.
  const std::size_t busy = cell.loops - 1 == 0 ? 0 : 1;
  const std::size_t served = cell.loops == 1 ? 1 : 4;
  std::vector<RawPeer> peers;
  while (peers.size() < served) {
    peers.emplace_back(server.port());
    REQUIRE(events->WaitForAccepted(peers.size()));
  }
  REQUIRE(peers[busy].SendAll(Frame("hold")));
  REQUIRE(held.Wait());
  peers.emplace_back(server.port());
  REQUIRE(peers.back().connected());
  if (cell.loops > 1) {
    REQUIRE(WaitUntil([&] { return server->ConnectionCount() == served + 1; }));
  }
  if (!cell.on_loop()) callers->Start();
  go.Set();
  for (RawPeer& peer : peers) {
    const End end = ReadToEnd(peer);
    if (&peer != &peers.back()) REQUIRE(end == End::kEof);
    REQUIRE(end != End::kTimeout);
    REQUIRE(peer.received() == 0);
    peer.Close();
  }
  REQUIRE(WaitUntil([&] { return server->IsStopped(); }));
  StopReport report;
  WithinDeadline("a stop", [&] { report = server->Stop(StopMode::kGracefullyAndWait); });
  REQUIRE(callers->Finish(report) == "");
  // In the queue it does not count, on its way it does; in both cases there is no event for it,
  // unless the loop was let go before the stop from another thread had reached it.
  REQUIRE(Text(report) == OnlyConnections(cell.loops == 1 ? 1 : 5));
  const std::size_t accepted = events->totals().accepted;
  REQUIRE(accepted >= served);
  REQUIRE(accepted <= served + (cell.on_loop() || cell.loops == 1 ? 0 : 1));
  REQUIRE(server.Finish() == "");
  REQUIRE(server->Stats().accepted == report.connections);
}

// A connection whose kAccept runs, with input that waits already.
void RunConnectingAccepted(const Cell& cell) {
  auto events = std::make_shared<EventRecorder>();
  Signal held;
  ConnPtr target;
  Callers callers(
      cell, [&](StopMode mode) { return target->Stop(mode); },
      [&] { return events->connection().closed; });
  events->on_accept = [&](const ConnPtr& conn) {
    target = conn;
    static_cast<void>(conn->Send("hello"));
    held.Set();
    if (cell.on_loop()) {
      callers.CallOnLoop();
    } else {
      WaitUntil([&] { return conn->IsStopped(); });
    }
  };
  Options options;
  options.loops = cell.loops;
  options.linger_timeout = cell.linger();
  TestServer server(events, options);
  RawPeer peer(server.port());
  static_cast<void>(peer.SendAll(Frame("too early")));
  REQUIRE(held.Wait());
  if (!cell.on_loop()) callers.Start();
  const End end = peer.ReadAll();
  peer.Close();
  REQUIRE(WaitUntil([&] { return target->IsStopped(); }));
  StopReport report;
  WithinDeadline("a stop", [&] { report = target->Stop(StopMode::kGracefullyAndWait); });
  REQUIRE(callers.Finish(report) == "");
  REQUIRE(events->totals().packets == 0);
  REQUIRE(events->connection().events ==
          std::vector<EventType>{EventType::kAccept, EventType::kClosed});
  const std::size_t lost = cell.graceful() ? 0 : 5;  // S1: nothing of it has been written
  REQUIRE(Text(report) == Text({.connections = 1, .unsent_bytes = lost}));
  REQUIRE(peer.received() == 5 - lost);
  REQUIRE(BookProblems(target->Stats(), peer.received()) == "");
  if (cell.graceful()) {
    REQUIRE(end == End::kEof);
  } else {
    REQUIRE(end != End::kTimeout);  // its input may have been unread: then a reset
  }
  REQUIRE(target->Stats().reason == CloseReason::kLocalStop);
  REQUIRE(server.Finish() == "");
}

// Whether a socket of this machine waits for an answer from 127.0.0.1:`port`: SYN_SENT is 2 there.
bool IsConnecting(std::uint16_t port) {
  std::array<char, 20> remote{};
  std::snprintf(remote.data(), remote.size(), " 0100007F:%04X 02 ", port);
  std::ifstream table("/proc/net/tcp");
  for (std::string line; std::getline(table, line);) {
    if (line.find(remote.data()) != std::string::npos) return true;
  }
  return false;
}

// A dial to a listener whose queue is full, which drops further SYNs.
void RunConnectingDialled(const Cell& cell) {
  auto events = std::make_shared<EventRecorder>();
  RawListener listener(0);
  RawPeer fills_it(listener.port());
  TestClient client(events, Options{});
  Callers callers(
      cell, [&](StopMode mode) { return client->Stop(mode); },
      [&] { return client->Stats().reason != CloseReason::kNone; });
  events->on_recv = [&](const ConnPtr&, std::string_view) { callers.CallOnLoop(); };
  TestServer server(events);
  RawPeer control(server.port());
  REQUIRE(events->WaitForAccepted(1));
  REQUIRE_FALSE(client->Send("queued"));
  client.Dial(listener.address());
  REQUIRE(WaitUntil([&] { return IsConnecting(listener.port()); }));
  if (cell.on_loop()) {
    REQUIRE(control.SendAll(Frame("stop")));
    REQUIRE(callers.WaitForCallOnLoop());
  } else {
    callers.Start();
  }
  REQUIRE(client.Wait() == Errc::kStopped);
  StopReport report;
  WithinDeadline("a stop", [&] { report = client->Stop(StopMode::kGracefullyAndWait); });
  REQUIRE(callers.Finish(report) == "");
  REQUIRE(report.connections == 0);
  REQUIRE(report.cut == 0);
  REQUIRE(report.unacked_bytes == 0);
  REQUIRE(events->totals().connected == 0);
  const ConnStats stats = client->Stats();
  REQUIRE(stats.reason == CloseReason::kConnectFailed);
  REQUIRE(stats.error == Errc::kStopped);
  REQUIRE(stats.accepted_bytes == 6);
  REQUIRE(stats.unsent_bytes() == 6);
  REQUIRE(client->Send("x") == Errc::kClosed);
  REQUIRE(client.Finish(cell.mode, Errc::kStopped) == "");
  REQUIRE(server.Finish() == "");
}

// --- The table. ----------------------------------------------------------------------------------

void RunCell(const Cell& cell) {
  if (cell.state != State::kConnecting) {
    Stage(cell).Run();
  } else if (cell.target == Target::kServer) {
    RunConnectingToServer(cell);
  } else if (cell.target == Target::kAccepted) {
    RunConnectingAccepted(cell);
  } else {
    RunConnectingDialled(cell);
  }
}

void RunTable(Target target, std::size_t loops) {
  for (const State state : kStates) {
    for (const StopMode mode : kModes) {
      for (const Caller caller : kCallers) {
        INFO(kStateNames.at(static_cast<std::size_t>(state))
             << ", " << Name(mode) << ", " << kCallerNames.at(static_cast<std::size_t>(caller)));
        const Holdings before = Holdings::Now();
        RunCell({target, loops, state, mode, caller});
        REQUIRE(BackTo(before));
      }
    }
  }
}

TEST_CASE("the stop matrix: a server with one loop",
          "[M19][M20][M21][M22][M23][M26][S1][S2][S3][S4][S5][S6][S7][B1][B2]") {
  RunTable(Target::kServer, 1);
}

TEST_CASE("the stop matrix: a server with three loops",
          "[M19][M20][M21][M22][M25][M26][S3][S4][S5][S6][S7][B1][B2]") {
  RunTable(Target::kServer, 3);
}

TEST_CASE("the stop matrix: an accepted connection, one loop",
          "[M19][M20][M21][M26][S1][S3][S4][S5][S7][B1][B2]") {
  RunTable(Target::kAccepted, 1);
}

TEST_CASE("the stop matrix: an accepted connection, three loops",
          "[M19][M20][M21][M26][S1][S3][S4][S5][S7][B1][B2]") {
  RunTable(Target::kAccepted, 3);
}

TEST_CASE("the stop matrix: a dialled connection",
          "[M19][M20][M21][M26][M31][S1][S3][S4][S5][S7][B1][B2]") {
  RunTable(Target::kDialled, 1);
}

// What a dialled connection shares a process with must not matter: here three loops that are not
// its own, from one of which it is stopped (M33).
TEST_CASE("the stop matrix: a dialled connection beside three loops", "[M20][M26][M33][S4]") {
  RunTable(Target::kDialled, 3);
}

}  // namespace
}  // namespace xtcp::test
