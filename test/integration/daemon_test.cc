// What signals do to a server and to a group. They are SIGUSR1 and SIGUSR2, because the test
// framework has handlers of its own for those that end a program.

#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>
#include <xtcp/daemon.h>
#include <xtcp/error.h>

#include <atomic>
#include <catch2/catch.hpp>
#include <cerrno>
#include <functional>
#include <memory>
#include <string>
#include <system_error>
#include <thread>
#include <utility>
#include <vector>

#include "support/deadline.h"
#include "support/event_recorder.h"
#include "support/leak_guard.h"
#include "support/raw_peer.h"
#include "support/test_group.h"
#include "support/test_server.h"
#include "support/violations.h"

namespace xtcp::test {
namespace {

using namespace std::chrono_literals;

const SignalPlan kPlan{.signals = {SIGUSR1, SIGUSR2}};

void Send(int signal) { REQUIRE(::kill(::getpid(), signal) == 0); }

sigset_t UserSignals() {
  sigset_t set;
  sigemptyset(&set);
  sigaddset(&set, SIGUSR1);
  sigaddset(&set, SIGUSR2);
  return set;
}

// Blocks SIGUSR1 and SIGUSR2 in this thread.
class Blocked {
 public:
  Blocked() {
    const sigset_t set = UserSignals();
    pthread_sigmask(SIG_BLOCK, &set, &before_);
  }
  ~Blocked() { pthread_sigmask(SIG_SETMASK, &before_, nullptr); }
  Blocked(const Blocked&) = delete;
  Blocked& operator=(const Blocked&) = delete;

 private:
  sigset_t before_;
};

bool IsBlocked(int signal) {
  sigset_t set;
  pthread_sigmask(SIG_BLOCK, nullptr, &set);
  return sigismember(&set, signal) == 1;
}

struct sigaction ActionOf(int signal) {
  struct sigaction action {};
  ::sigaction(signal, nullptr, &action);
  return action;
}

// Sets what the process does at a signal, for as long as it lives.
class Disposition {
 public:
  Disposition(int signal, void (*handler)(int)) : signal_(signal) {
    struct sigaction action {};
    action.sa_handler = handler;
    ::sigaction(signal, &action, &before_);
  }
  ~Disposition() { ::sigaction(signal_, &before_, nullptr); }
  Disposition(const Disposition&) = delete;
  Disposition& operator=(const Disposition&) = delete;

 private:
  int signal_;
  struct sigaction before_ {};
};

// Serves on a thread of its own, in which the signals are blocked, and looks whether everything is
// as before when that returns.
class DaemonThread {
 public:
  using Run = std::function<std::error_code(StopReport*)>;

  explicit DaemonThread(Run run)
      : thread_([this, run = std::move(run)] {
          const Blocked blocked;
          const auto first = ActionOf(SIGUSR1).sa_handler;
          const auto second = ActionOf(SIGUSR2).sa_handler;
          error_ = run(&report_);
          as_before_ = IsBlocked(SIGUSR1) && IsBlocked(SIGUSR2) &&
                       ActionOf(SIGUSR1).sa_handler == first &&
                       ActionOf(SIGUSR2).sa_handler == second;
          ended_.Set();
        }) {}
  explicit DaemonThread(Server& server, const SignalPlan& plan = kPlan)
      : DaemonThread([&server, plan](StopReport* report) {
          return ServeUntilSignal(server, plan, report);
        }) {}
  ~DaemonThread() {
    if (thread_.joinable()) Join();
  }

  bool ended() const { return ended_.IsSet(); }

  // Waits for the end. Returns what was wrong.
  std::string Join(std::error_code expected = {}) {
    if (!ended_.Wait(3 * kDeadline)) Die("ServeUntilSignal does not return");
    thread_.join();
    std::string problems;
    if (error_ != expected) problems += "it returned " + error_.message() + "\n";
    if (!as_before_) problems += "handlers or mask are not as they were\n";
    return problems;
  }
  const StopReport& report() const { return report_; }

 private:
  Signal ended_;
  std::error_code error_;
  StopReport report_{.connections = 99};  // as nothing leaves it
  bool as_before_ = false;
  std::thread thread_;
};

// A server that echoes, and is ready for `ServeUntilSignal`.
struct EchoServer {
  explicit EchoServer(std::size_t loops = 1) : events(std::make_shared<EventRecorder>()) {
    events->on_recv = Echo;
    Options options;
    options.loops = loops;
    server = std::make_unique<Server>(WithDefaults(std::move(options), events));
    REQUIRE_FALSE(server->Listen("127.0.0.1:0"));
    port = server->Addresses().at(0).Port();
  }
  std::shared_ptr<EventRecorder> events;
  std::unique_ptr<Server> server;
  std::uint16_t port = 0;
};

bool Echoes(RawPeer& peer) { return peer.SendAll(Frame("hello")) && peer.ReadFrame() == "hello"; }

TEST_CASE("the first signal stops gracefully, and the handlers are gone then", "[M64]") {
  for (const std::size_t loops : {1U, 3U}) {
    for (const int signal : {SIGUSR1, SIGUSR2}) {
      EchoServer echo(loops);
      DaemonThread daemon(*echo.server);
      RawPeer peer(echo.port);
      REQUIRE(Echoes(peer));
      CHECK((ActionOf(signal).sa_flags & SA_RESTART) != 0);
      Send(signal);
      CHECK(peer.ReadAll() == End::kEof);
      CHECK_FALSE(daemon.ended());  // it waits for the peer's end
      peer.Close();
      CHECK(daemon.Join() == "");
      CHECK(daemon.report().connections == 1);
      CHECK(daemon.report().cut == 0);
      CHECK(echo.events->Verify() == "");
    }
  }
}

TEST_CASE("a second signal stops immediately", "[M64]") {
  for (const auto drain : {0ms, 60'000ms}) {
    EchoServer echo;
    DaemonThread daemon(*echo.server, {kPlan.signals, drain});
    RawPeer peer(echo.port);
    REQUIRE(Echoes(peer));
    Send(SIGUSR1);
    if (drain.count() == 0) REQUIRE(peer.ReadAll() == End::kEof);
    Send(SIGUSR1);
    CHECK(daemon.Join() == "");  // although the peer is there
    CHECK(daemon.report().connections == 1);
    CHECK(daemon.report().cut == (drain.count() == 0 ? 1 : 0));  // of graceful stops
    CHECK(echo.events->connection().at_closed.reason == CloseReason::kLocalStop);
    CHECK(echo.events->Verify() == "");
  }
}

TEST_CASE("a drain ends with the last connection, or with its time", "[M64]") {
  EchoServer echo;
  SECTION("the last connection ends") {
    DaemonThread daemon(*echo.server, {kPlan.signals, 600'000ms});
    RawPeer peer(echo.port);
    REQUIRE(Echoes(peer));
    Send(SIGUSR1);
    for (int i = 0; i < 20; ++i) REQUIRE(Echoes(peer));
    CHECK_FALSE(echo.server->IsStopped());
    peer.Close();
    CHECK(daemon.Join() == "");
    CHECK(daemon.report().cut == 0);
  }
  SECTION("the time ends") {
    DaemonThread daemon(*echo.server, {kPlan.signals, 50ms});
    RawPeer peer(echo.port);
    REQUIRE(Echoes(peer));
    Send(SIGUSR1);
    CHECK(peer.ReadAll() == End::kEof);
    peer.Close();
    CHECK(daemon.Join() == "");
    CHECK(daemon.report().connections == 1);
    CHECK(daemon.report().cut == 0);
  }
  CHECK(echo.events->Verify() == "");
}

TEST_CASE("a signal that was blocked and pending counts as the first", "[M64]") {
  const Blocked blocked;  // so that no thread takes it before
  EchoServer echo;
  Send(SIGUSR1);
  DaemonThread daemon(*echo.server);
  CHECK(daemon.Join() == "");
  CHECK(echo.server->IsStopped());
  CHECK(daemon.report().connections == 0);
  CHECK(echo.events->Verify() == "");
}

TEST_CASE("a signal counts on whatever thread it comes", "[M64]") {
  EchoServer echo(2);
  Signal go;
  std::thread before([&] {
    if (go.Wait()) ::raise(SIGUSR1);
  });
  DaemonThread daemon(*echo.server);
  RawPeer peer(echo.port);
  REQUIRE(Echoes(peer));
  go.Set();
  before.join();
  CHECK(peer.ReadAll() == End::kEof);
  std::thread after([] { ::raise(SIGUSR2); });
  after.join();
  CHECK(daemon.Join() == "");
  CHECK(daemon.report().cut == 1);
  CHECK(echo.events->Verify() == "");
}

TEST_CASE("only the calling thread takes the signals, and none is started", "[M64][M30]") {
  EchoServer echo;
  std::atomic<bool> open{false};
  std::atomic<std::size_t> threads{0};
  echo.events->on_accept = [&](const ConnPtr&) {
    open = !IsBlocked(SIGUSR1) && !IsBlocked(SIGUSR2);
    threads = ThreadCount();
  };
  const std::size_t threads_before = ThreadCount();
  DaemonThread daemon(*echo.server);
  RawPeer peer(echo.port);
  REQUIRE(Echoes(peer));
  CHECK(open);
  CHECK(threads == threads_before + 1);  // the one on which it is called
  peer.Close();
  Send(SIGUSR2);
  CHECK(daemon.Join() == "");
  CHECK(echo.events->Verify() == "");
}

// After a fork in a process with threads the thread sanitizer holds the child's signals back for ever.
#if !defined(__SANITIZE_THREAD__)

// Forks a child that gets `signal`. Returns its status.
int StatusOfChild(int signal) {
  const pid_t child = ::fork();
  if (child == 0) {
    ::raise(signal);
    ::_exit(1);  // it outlived the signal
  }
  int status = -1;
  while (::waitpid(child, &status, 0) < 0 && errno == EINTR) {
  }
  return status;
}

TEST_CASE("a child takes its signals as usual, and they are not its parent's", "[M64]") {
  const Disposition handled(SIGUSR2, [](int) { ::_exit(42); });
  EchoServer echo;
  DaemonThread daemon(*echo.server);
  RawPeer peer(echo.port);
  REQUIRE(Echoes(peer));
  const int killed = StatusOfChild(SIGUSR1);
  CHECK((WIFSIGNALED(killed) && WTERMSIG(killed) == SIGUSR1));
  const int exited = StatusOfChild(SIGUSR2);
  CHECK((WIFEXITED(exited) && WEXITSTATUS(exited) == 42));
  CHECK(Echoes(peer));
  CHECK_FALSE(echo.server->IsStopped());
  peer.Close();
  Send(SIGUSR1);
  CHECK(daemon.Join() == "");
  CHECK(echo.events->Verify() == "");
}

#endif

TEST_CASE("a signal that is ignored stays so", "[M64]") {
  const Disposition ignored(SIGUSR2, SIG_IGN);
  EchoServer echo;
  DaemonThread daemon(*echo.server);
  RawPeer peer(echo.port);
  REQUIRE(Echoes(peer));
  CHECK(ActionOf(SIGUSR2).sa_handler == SIG_IGN);
  Send(SIGUSR2);
  CHECK(Echoes(peer));
  Send(SIGUSR1);  // the first one
  CHECK(peer.ReadAll() == End::kEof);
  peer.Close();
  CHECK(daemon.Join() == "");
  CHECK(daemon.report().cut == 0);
  CHECK(echo.events->Verify() == "");
}

TEST_CASE("there is one such call in a process, and none inside a callback", "[M64]") {
  EchoServer echo;
  EchoServer other;
  LoopGroup group;
  std::error_code inside[2];
  echo.events->on_accept = [&](const ConnPtr&) {
    inside[0] = ServeUntilSignal(*other.server, kPlan);
    inside[1] = RunUntilSignal(group, kPlan);
  };
  DaemonThread daemon(*echo.server);
  RawPeer peer(echo.port);
  REQUIRE(Echoes(peer));
  CHECK(inside[0] == Errc::kWouldDeadlock);
  CHECK(inside[1] == Errc::kWouldDeadlock);
  StopReport report{.connections = 99};
  CHECK(ServeUntilSignal(*other.server, kPlan, &report) == Errc::kAlreadyUsed);
  CHECK(report.connections == 0);
  CHECK(RunUntilSignal(group, kPlan) == Errc::kAlreadyUsed);
  CHECK_FALSE(other.server->IsStopped());
  CHECK(Echoes(peer));
  peer.Close();
  Send(SIGUSR1);
  CHECK(daemon.Join() == "");
  CHECK(echo.events->Verify() == "");

  // The other one has had its turn not yet.
  DaemonThread later(*other.server);
  RawPeer again(other.port);
  REQUIRE(Echoes(again));
  again.Close();
  Send(SIGUSR1);
  CHECK(later.Join() == "");
  CHECK(other.events->Verify() == "");
}

TEST_CASE("it returns what Serve returns, and the report of whoever stopped it", "[M64]") {
  EchoServer echo;
  DaemonThread daemon(*echo.server);
  RawPeer peer(echo.port);
  REQUIRE(Echoes(peer));
  static_cast<void>(echo.server->Stop(StopMode::kImmediately));
  CHECK(daemon.Join() == "");
  CHECK(daemon.report().connections == 1);
  CHECK(daemon.report().cut == 0);
  CHECK(echo.events->Verify() == "");

  DaemonThread stopped(*echo.server);
  CHECK(stopped.Join(Errc::kAlreadyUsed) == "");
  CHECK(stopped.report().connections == 0);

  Server deaf(WithDefaults({}, echo.events));
  DaemonThread idle(deaf);
  CHECK(idle.Join(Errc::kNotListening) == "");
  CHECK_FALSE(deaf.IsStopped());
}

TEST_CASE("a signal that nobody can handle is an error that changes nothing", "[M64]") {
  for (const int signal : {SIGKILL, SIGSTOP, 0, -1, 1000}) {
    EchoServer echo;
    DaemonThread daemon(*echo.server, {{SIGUSR1, signal, SIGUSR2}, 0ms});
    CHECK(daemon.Join({EINVAL, std::system_category()}) == "");
    CHECK_FALSE(echo.server->IsStopped());
    CHECK(echo.events->Verify() == "");
  }
  EchoServer echo;  // twice is once
  DaemonThread daemon(*echo.server, {{SIGUSR1, SIGUSR1}, 0ms});
  RawPeer peer(echo.port);
  REQUIRE(Echoes(peer));
  peer.Close();
  Send(SIGUSR1);
  CHECK(daemon.Join() == "");
  CHECK(echo.events->Verify() == "");
}

TEST_CASE("a server may be destroyed in its own callback", "[M64]") {
  EchoServer echo;
  Server* const server = echo.server.get();
  echo.events->on_recv = [&](const ConnPtr&, std::string_view) { echo.server.reset(); };
  DaemonThread daemon(*server);
  RawPeer peer(echo.port);
  REQUIRE(peer.SendAll(Frame("x")));
  CHECK(daemon.Join() == "");
  CHECK(daemon.report().connections == 1);
  CHECK(echo.events->Verify() == "");
}

TEST_CASE("signals stop a group and all that lives on it", "[M64]") {
  for (const std::size_t loops : {1U, 2U}) {
    for (const bool twice : {false, true}) {
      auto events = std::make_shared<EventRecorder>();
      events->on_recv = Echo;
      LoopGroup group(loops);
      const auto one = StartServer(group, events);
      const auto two = StartServer(group, events);
      DaemonThread daemon([&](StopReport* report) { return RunUntilSignal(group, kPlan, report); });
      RawPeer peer(AddressOf(*one));
      RawPeer other(AddressOf(*two));
      REQUIRE(Echoes(peer));
      REQUIRE(Echoes(other));
      Send(SIGUSR1);
      CHECK(peer.ReadAll() == End::kEof);
      CHECK(other.ReadAll() == End::kEof);
      if (twice) {
        Send(SIGUSR1);
        CHECK(daemon.Join() == "");
      }
      peer.Close();
      other.Close();
      if (!twice) CHECK(daemon.Join() == "");
      CHECK(daemon.report().connections == 2);
      CHECK(daemon.report().cut == (twice ? 2 : 0));
      CHECK(events->Verify() == "");
    }
  }
}

TEST_CASE("a drain of a group ends with its last connection", "[M64]") {
  auto events = std::make_shared<EventRecorder>();
  events->on_recv = Echo;
  LoopGroup group(2);
  const auto server = StartServer(group, events);
  DaemonThread daemon([&](StopReport* report) {
    return RunUntilSignal(group, {kPlan.signals, 600'000ms}, report);
  });
  RawPeer peer(AddressOf(*server));
  REQUIRE(Echoes(peer));
  Send(SIGUSR1);
  for (int i = 0; i < 20; ++i) REQUIRE(Echoes(peer));
  CHECK_FALSE(group.IsStopped());
  peer.Close();
  CHECK(daemon.Join() == "");
  CHECK(events->Verify() == "");
}

TEST_CASE("on a shared group signals end the server, and the group goes on", "[M64]") {
  TestGroup group(2);
  auto events = std::make_shared<EventRecorder>();
  events->on_recv = Echo;
  const std::size_t descriptors = Holdings::Now().descriptors;
  for (int round = 0; round < 3; ++round) {
    Server server(WithDefaults({}, events), *group);
    REQUIRE_FALSE(server.Listen("127.0.0.1:0"));
    const std::uint16_t port = server.Addresses().at(0).Port();
    DaemonThread daemon(server);
    RawPeer peer(port);
    REQUIRE(Echoes(peer));
    Send(SIGUSR1);
    CHECK(peer.ReadAll() == End::kEof);
    peer.Close();
    CHECK(daemon.Join() == "");
    CHECK(daemon.report().connections == 1);
    CHECK(group.On([] {}));
  }
  CHECK(WaitUntil([&] { return Holdings::Now().descriptors == descriptors; }));
  CHECK(group.Finish() == "");
  CHECK(events->Verify() == "");
}

TEST_CASE("a group that nobody runs is left by whoever was to be stopped on it", "[M64]") {
  auto events = std::make_shared<EventRecorder>();
  auto group = std::make_unique<LoopGroup>();
  Server server(WithDefaults({}, events), *group);
  REQUIRE_FALSE(server.Listen("127.0.0.1:0"));
  DaemonThread daemon(server);
  SECTION("the server is stopped") { static_cast<void>(server.Stop(StopMode::kImmediately)); }
  SECTION("the group is stopped") { static_cast<void>(group->Stop(StopMode::kImmediately)); }
  SECTION("the group is destroyed") { group.reset(); }
  // It may have come before the server began to serve.
  CHECK(daemon.Join() == "");
  CHECK(events->Verify() == "");
}

}  // namespace
}  // namespace xtcp::test
