// A stop needs neither memory nor a descriptor, and its time grows with the connections only.

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <catch2/catch.hpp>
#include <chrono>
#include <memory>
#include <thread>
#include <vector>

#include "support/alloc_hook.h"
#include "support/event_recorder.h"
#include "support/raw_peer.h"
#include "support/test_client.h"
#include "support/test_protocol.h"
#include "support/test_server.h"

namespace xtcp::test {
namespace {

// Allocates nothing itself.
class Counting final : public Handler {
 public:
  void OnEvent(EventType event, const ConnPtr&, PacketPtr) override {
    if (event == EventType::kClosed) ++closed;
    if (event == EventType::kAccept) ++accepted;
  }
  std::atomic<std::size_t> accepted{0};
  std::atomic<std::size_t> closed{0};
};

TEST_CASE("no stop needs memory", "[S8][M22][F4]") {
  const StopMode mode = GENERATE(StopMode::kImmediately, StopMode::kGracefullyButNotWait,
                                 StopMode::kGracefullyAndWait);
  const std::size_t loops = GENERATE(1, 3);
  auto handler = std::make_shared<Counting>();
  Options options;
  options.loops = loops;
  Server server(WithDefaults(options, handler));
  REQUIRE_FALSE(server.Listen("127.0.0.1:0"));
  std::thread thread([&] { static_cast<void>(server.Serve()); });
  std::vector<RawPeer> peers;
  for (int i = 0; i < 10; ++i) peers.emplace_back(server.Addresses().at(0).Port());
  REQUIRE(WaitUntil([&] { return handler->accepted == 10; }));
  StopReport report;
  Signal done;
  {
    // The peers end their streams when ours has ended; they read on the test's thread.
    std::thread stopper([&] {
      report = server.Stop(mode);
      done.Set();
    });
    NoMemory none;
    if (mode != StopMode::kImmediately) {
      for (RawPeer& peer : peers) {
        char byte;
        while (::recv(peer.fd(), &byte, 1, 0) > 0) {
        }
        peer.HalfClose();
      }
    }
    static_cast<void>(WaitUntil([&] { return handler->closed == 10 && done.IsSet(); }));
    stopper.join();
  }
  REQUIRE(handler->closed == 10);
  WithinDeadline("Serve", [&] { thread.join(); });
  REQUIRE(report.connections == 10);
  REQUIRE(server.Stop(StopMode::kGracefullyAndWait).cut == 0);
}

TEST_CASE("no stop needs a descriptor", "[S8][M22]") {
  auto events = std::make_shared<EventRecorder>();
  TestServer server(events);
  RawPeer peer(server.port());
  REQUIRE(events->WaitForAccepted(1));
  rlimit before{};
  REQUIRE(::getrlimit(RLIMIT_NOFILE, &before) == 0);
  const rlimit none{.rlim_cur = 3, .rlim_max = before.rlim_max};
  REQUIRE(::setrlimit(RLIMIT_NOFILE, &none) == 0);
  static_cast<void>(server->Stop(StopMode::kGracefullyButNotWait));
  const End end = peer.ReadAll();
  peer.Close();
  const bool closed = events->WaitForClosed(1);
  REQUIRE(::setrlimit(RLIMIT_NOFILE, &before) == 0);
  REQUIRE(end == End::kEof);
  REQUIRE(closed);
  REQUIRE(server.Finish() == "");
}

double CpuSeconds() {
  timespec now{};
  ::clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &now);
  return static_cast<double>(now.tv_sec) + static_cast<double>(now.tv_nsec) * 1e-9;
}

// Idle peers in a process of their own, so that this one has its descriptors for the server. Each
// ends its stream when ours has ended. To be made while this process has one thread.
class PeersElsewhere {
 public:
  PeersElsewhere(std::uint16_t port, std::size_t count) {
    std::array<int, 2> ends{};
    REQUIRE(::pipe2(ends.data(), O_CLOEXEC) == 0);
    child_ = ::fork();
    if (child_ == 0) {
      // The server's listener is none of its business.
      for (int fd = 3; fd < 1024; ++fd) {
        if (fd != ends[1]) ::close(fd);
      }
      ::_exit(Run(port, count, ends[1]));
    }
    ::close(ends[1]);
    connected_ = ends[0];
    REQUIRE(child_ > 0);
  }
  ~PeersElsewhere() {
    ::close(connected_);
    if (child_ > 0) {
      ::kill(child_, SIGKILL);
      ::waitpid(child_, nullptr, 0);
    }
  }
  PeersElsewhere(const PeersElsewhere&) = delete;
  PeersElsewhere& operator=(const PeersElsewhere&) = delete;

  // Waits until all are connected.
  bool Connected() const {
    pollfd ready{connected_, POLLIN, 0};
    char byte = 0;
    return ::poll(&ready, 1, 30'000) == 1 && ::read(connected_, &byte, 1) == 1;
  }

  // Waits until each of them saw the end of its stream.
  bool Ended() {
    int status = 0;
    const bool ended = WaitUntil([&] { return ::waitpid(child_, &status, WNOHANG) == child_; });
    if (ended) child_ = -1;
    return ended && WIFEXITED(status) && WEXITSTATUS(status) == 0;
  }

 private:
  static int Run(std::uint16_t port, std::size_t count, int tell) {
    std::vector<RawPeer> peers;
    while (peers.size() < count) {
      peers.emplace_back(port);
      if (!peers.back().connected()) return 1;
    }
    if (::write(tell, "c", 1) != 1) return 1;
    for (RawPeer& peer : peers) {
      const End end = peer.ReadAll(nullptr, std::chrono::seconds(30));
      if (end != End::kEof && end != End::kReset) return 1;
      peer.HalfClose();
    }
    return 0;
  }

  pid_t child_ = -1;
  int connected_ = -1;
};

// CPU seconds to stop `count` idle connections.
double StopMany(std::size_t count, StopMode mode) {
  auto handler = std::make_shared<Counting>();
  Options options;
  options.max_connections = 100'000;
  Server server(WithDefaults(options, handler));
  REQUIRE_FALSE(server.Listen("127.0.0.1:0"));
  PeersElsewhere peers(server.Addresses().at(0).Port(), count);
  std::thread thread([&] { static_cast<void>(server.Serve()); });
  const bool connected = peers.Connected() && WaitUntil([&] { return handler->accepted == count; });
  const double begin = CpuSeconds();
  static_cast<void>(server.Stop(mode));
  WithinDeadline("a stop", [&] { thread.join(); });
  const double cpu = CpuSeconds() - begin;
  REQUIRE(connected);
  REQUIRE(handler->closed == count);
  REQUIRE(peers.Ended());
  return cpu;
}

TEST_CASE("stopping n connections takes O(n) time", "[X5][S3]") {
  const StopMode mode = GENERATE(StopMode::kImmediately, StopMode::kGracefullyButNotWait);
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
  constexpr std::size_t kMany = 2000;
#else
  constexpr std::size_t kMany = 10'000;
#endif
  const double few = StopMany(kMany / 4, mode);
  const double many = StopMany(kMany, mode);
  CAPTURE(few, many);
  // Linear is 4, quadratic 16.
  REQUIRE(many < 10 * few + 0.05);
  REQUIRE(many < 2.0);
}

}  // namespace
}  // namespace xtcp::test
