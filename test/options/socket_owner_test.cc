// Who owns the file of a Unix socket: when several servers want it at the same moment, and when the
// process that listens has forked.

#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <catch2/catch.hpp>
#include <cerrno>
#include <cstddef>
#include <filesystem>
#include <latch>
#include <memory>
#include <string>
#include <system_error>
#include <thread>
#include <utility>
#include <vector>

#include "support/event_recorder.h"
#include "support/fault_control.h"
#include "support/raw_peer.h"
#include "support/temp_folder.h"
#include "support/test_protocol.h"
#include "support/test_server.h"

namespace xtcp::test {
namespace {

std::error_code InUse() { return {EADDRINUSE, std::system_category()}; }

std::unique_ptr<Server> NewServer(std::shared_ptr<Handler> handler = nullptr) {
  if (handler == nullptr) handler = std::make_shared<EventRecorder>();
  return std::make_unique<Server>(WithDefaults({}, std::move(handler)));
}

// What a process leaves that was killed.
void LeaveStaleFile(const TempFolder& folder) { RawListener(folder.address()).Close(); }

bool Reachable(const TempFolder& folder) { return RawPeer(folder.address()).connected(); }

TEST_CASE("of servers that listen at the same moment one owns the socket file", "[M36][seen-10]") {
  constexpr std::size_t kRounds = 300;
  constexpr std::size_t kServers = 6;
  FaultPlan no_faults;
  const bool stale = GENERATE(true, false);
  for (std::size_t round = 0; round < kRounds; ++round) {
    CAPTURE(stale, round);
    const TempFolder folder;
    if (stale) LeaveStaleFile(folder);
    std::vector<std::unique_ptr<Server>> servers;
    for (std::size_t i = 0; i < kServers; ++i) servers.push_back(NewServer());
    std::array<std::error_code, kServers> errors;
    std::latch together(kServers);
    std::vector<std::thread> threads;
    for (std::size_t i = 0; i < kServers; ++i) {
      threads.emplace_back([&, i] {
        together.arrive_and_wait();
        errors[i] = servers[i]->Listen(folder.address());
      });
    }
    for (std::thread& thread : threads) thread.join();
    std::size_t owners = 0;
    for (std::size_t i = 0; i < kServers; ++i) {
      if (errors[i]) {
        REQUIRE(errors[i] == InUse());
        servers[i].reset();
      } else {
        ++owners;
      }
    }
    REQUIRE(owners == 1);
    REQUIRE(Reachable(folder));
    servers.clear();
    REQUIRE(folder.empty());
  }
}

// All system calls of a server that begins or ceases to listen on a path.
constexpr std::array kCallsOfAListen = {
    Site::kOpenFile, Site::kFlock,   Site::kFstat,  Site::kLstat,  Site::kSocket,
    Site::kBind,     Site::kConnect, Site::kUnlink, Site::kListen, Site::kClose};

TEST_CASE(
    "a server that listens inside any call of another one's start is the second, or the owner",
    "[M36][seen-10]") {
  const bool stale = GENERATE(true, false);
  int moments = 0;
  for (const Site site : kCallsOfAListen) {
    for (std::size_t nth = 1; nth < 20; ++nth) {
      CAPTURE(stale, static_cast<int>(site), nth);
      const TempFolder folder;
      if (stale) LeaveStaleFile(folder);
      auto first = NewServer(), second = NewServer();
      std::error_code second_error;
      FaultPlan plan;
      plan.Add({.site = site, .first = nth, .act = [&](int) {
                  second_error = second->Listen(folder.address());
                }});
      const std::error_code first_error = first->Listen(folder.address());
      if (plan.injected() == 0) {
        REQUIRE_FALSE(first_error);
        break;
      }
      ++moments;
      REQUIRE((first_error ? 1 : 0) + (second_error ? 1 : 0) == 1);
      REQUIRE((first_error ? first_error : second_error) == InUse());
      REQUIRE(Reachable(folder));
      (first_error ? first : second).reset();
      REQUIRE(Reachable(folder));
      first.reset();
      second.reset();
      REQUIRE(folder.empty());
    }
  }
  REQUIRE(moments > 5);
}

TEST_CASE("a server that listens inside any call of another one's end keeps what it gets",
          "[M36][seen-10]") {
  int moments = 0, successors = 0;
  for (const Site site : kCallsOfAListen) {
    for (std::size_t nth = 1; nth < 20; ++nth) {
      CAPTURE(static_cast<int>(site), nth);
      const TempFolder folder;
      auto old = NewServer(), young = NewServer();
      FaultPlan plan;
      REQUIRE_FALSE(old->Listen(folder.address()));
      std::error_code error;
      plan.Add({.site = site, .first = nth, .act = [&](int) {
                  error = young->Listen(folder.address());
                }});
      old.reset();
      if (plan.injected() == 0) break;
      ++moments;
      if (error) {
        REQUIRE(error == InUse());
        REQUIRE_FALSE(young->Listen(folder.address()));
      } else {
        ++successors;
      }
      REQUIRE(Reachable(folder));
      young.reset();
      REQUIRE(folder.empty());
    }
  }
  REQUIRE(moments > 3);
  REQUIRE(successors > 0);
}

// --- Forks ---------------------------------------------------------------------------------------

// Echoes, and stops its server when told to.
class Worker : public Handler {
 public:
  void OnEvent(EventType event, const ConnPtr& conn, PacketPtr packet) override {
    if (event != EventType::kRecv) return;
    const std::string& payload = static_cast<const BytesPacket&>(*packet).payload();
    static_cast<void>(conn->Send(Frame(payload)));
    if (payload == "stop") static_cast<void>(server->Stop(StopMode::kGracefullyButNotWait));
  }

  Server* server = nullptr;
};

// A child of this process; `body` gives its exit status. No destructor and no atexit(3) runs in it
// afterwards, as after _exit(2) in a daemon.
class Child {
 public:
  template <typename Body>
  explicit Child(Body body) : pid_(::fork()) {
    if (pid_ != 0) return;
    ::alarm(120);  // one that hangs ends by itself
    ::_exit(body());
  }

  ~Child() {
    if (pid_ <= 0) return;  // waited for
    Kill();
    Wait();
  }
  Child(const Child&) = delete;
  Child& operator=(const Child&) = delete;

  pid_t pid() const { return pid_; }
  void Kill() const { ::kill(pid_, SIGKILL); }

  // The status with which it ended.
  int Wait() {
    int status = -1;
    return ::waitpid(std::exchange(pid_, -1), &status, 0) > 0 ? status : -1;
  }

 private:
  pid_t pid_;
};

// Waits until one of the children has ended, and gives its process; it is still to be waited for.
pid_t FirstToEnd() {
  siginfo_t info{};
  return ::waitid(P_ALL, 0, &info, WEXITED | WNOWAIT) == 0 ? info.si_pid : -1;
}

// A server that listens and has not served yet.
struct Listening {
  Listening() {
    REQUIRE_FALSE(server->Listen(folder.address()));
    REQUIRE_FALSE(server->Listen("127.0.0.1:0"));
    tcp = server->Addresses().at(1).ToString();
    handler->server = server.get();
  }

  // Serves in this process, to the end.
  int Serve() {
    const std::error_code error = server->Serve();
    server.reset();
    return error ? 1 : 0;
  }

  static bool Asks(const std::string& address, const std::string& payload) {
    RawPeer peer(address);
    return peer.connected() && peer.SendAll(Frame(payload)) && peer.ReadFrame() == payload;
  }
  bool AsksOverUnix(const std::string& payload) const { return Asks(folder.address(), payload); }

  FaultPlan no_faults;
  const TempFolder folder;
  std::shared_ptr<Worker> handler = std::make_shared<Worker>();
  std::unique_ptr<Server> server = NewServer(handler);
  std::string tcp;
};

TEST_CASE("a program that listens, forks and leaves by return has made a daemon",
          "[M36][seen-11]") {
  Listening daemon;
  Child child([&] { return daemon.Serve(); });
  daemon.server.reset();  // the parent returns from main
  CHECK(std::filesystem::is_socket(daemon.folder.file()));
  CHECK(daemon.AsksOverUnix("hello"));
  CHECK(Listening::Asks(daemon.tcp, "hello"));
  // Its place is not free.
  CHECK(NewServer()->Listen(daemon.folder.address()) == InUse());
  REQUIRE(Listening::Asks(daemon.tcp, "stop"));
  CHECK(child.Wait() == 0);
  CHECK(daemon.folder.empty());
}

TEST_CASE("the first worker of a prefork server that stops leaves the file to the others",
          "[M36][seen-11]") {
  Listening prefork;
  Child one([&] { return prefork.Serve(); });
  Child other([&] { return prefork.Serve(); });
  REQUIRE(prefork.AsksOverUnix("stop"));  // of one of the two
  const bool one_ends_first = FirstToEnd() == one.pid();
  CHECK((one_ends_first ? one : other).Wait() == 0);
  CHECK(std::filesystem::is_socket(prefork.folder.file()));
  CHECK(prefork.AsksOverUnix("hello"));
  prefork.server.reset();
  CHECK(prefork.AsksOverUnix("hello"));
  REQUIRE(Listening::Asks(prefork.tcp, "stop"));
  CHECK((one_ends_first ? other : one).Wait() == 0);
  CHECK(prefork.folder.empty());
}

TEST_CASE("a child that destroys its copy of a server takes nothing from the parent",
          "[M36][seen-11]") {
  Listening parent;
  CHECK(Child([&] {
          parent.server.reset();
          return 0;
        }).Wait() == 0);
  CHECK(std::filesystem::is_socket(parent.folder.file()));
  CHECK(Reachable(parent.folder));
  parent.server.reset();
  CHECK(parent.folder.empty());
}

TEST_CASE("what a killed server leaves is the next one's", "[M36][seen-10][seen-11]") {
  Listening killed;
  Child child([&] { return killed.Serve(); });
  killed.server.reset();
  REQUIRE(killed.AsksOverUnix("hello"));
  child.Kill();
  CHECK(child.Wait() == SIGKILL);
  REQUIRE(std::filesystem::is_socket(killed.folder.file()));
  auto next = NewServer();
  CHECK_FALSE(next->Listen(killed.folder.address()));
  CHECK(Reachable(killed.folder));
  next.reset();
  CHECK(killed.folder.empty());
}

}  // namespace
}  // namespace xtcp::test
