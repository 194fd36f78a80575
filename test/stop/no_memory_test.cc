// A stop needs neither memory nor a descriptor, and its time grows with the connections only.

#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>

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
        peer.Close();
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

// CPU seconds to stop `count` idle connections.
double StopMany(std::size_t count, StopMode mode) {
  auto handler = std::make_shared<Counting>();
  Options options;
  options.max_connections = 100'000;
  Server server(WithDefaults(options, handler));
  REQUIRE_FALSE(server.Listen("127.0.0.1:0"));
  std::thread thread([&] { static_cast<void>(server.Serve()); });
  std::vector<RawPeer> peers;
  for (std::size_t i = 0; i < count; ++i) {
    peers.emplace_back(server.Addresses().at(0).Port());
    REQUIRE(peers.back().connected());
  }
  REQUIRE(WaitUntil([&] { return handler->accepted == count; }));
  const double begin = CpuSeconds();
  static_cast<void>(server.Stop(mode));
  if (mode != StopMode::kImmediately) {
    for (RawPeer& peer : peers) {
      static_cast<void>(peer.ReadAll());
      peer.Close();
    }
  }
  WithinDeadline("a stop", [&] { thread.join(); });
  const double cpu = CpuSeconds() - begin;
  REQUIRE(handler->closed == count);
  return cpu;
}

TEST_CASE("stopping n connections takes O(n) time", "[X5][S3]") {
  const StopMode mode = GENERATE(StopMode::kImmediately, StopMode::kGracefullyButNotWait);
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
  constexpr std::size_t kMany = 2000;
#else
  constexpr std::size_t kMany = 8000;  // both ends are in this process, and it may have 20,000
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
