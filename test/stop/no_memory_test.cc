// A stop needs neither memory nor a descriptor, and its time grows with the connections only.

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <catch2/catch.hpp>
#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "support/alloc_hook.h"
#include "support/event_recorder.h"
#include "support/raw_peer.h"
#include "support/test_protocol.h"
#include "support/test_server.h"
#include "support/violations.h"

namespace xtcp::test {
namespace {

// Allocates nothing itself.
class Counting final : public Handler {
 public:
  void OnEvent(EventType event, const ConnPtr& conn, PacketPtr) override {
    if (event == EventType::kClosed) {
      ++closed;
    } else if (event != EventType::kRecv) {
      if (opened == 0) first = conn;
      ++opened;
    }
  }
  ConnPtr first;  // once `opened`; whoever made the handler lets go of it
  std::atomic<std::size_t> opened{0};
  std::atomic<std::size_t> closed{0};
};

// Reads what `peer` still gets, without allocating: how many bytes, -1 when no end comes.
std::int64_t Drain(const RawPeer& peer) {
  const timeval deadline{.tv_sec = kDeadline.count(), .tv_usec = 0};
  ::setsockopt(peer.fd(), SOL_SOCKET, SO_RCVTIMEO, &deadline, sizeof deadline);
  std::array<char, 16384> buffer;
  std::int64_t bytes = 0;
  for (;;) {
    const ssize_t n = ::recv(peer.fd(), buffer.data(), buffer.size(), 0);
    if (n <= 0) return n == 0 ? bytes : -1;
    bytes += n;
  }
}

// Calls `stop` on a thread of its own, from `Begin` on.
class Stopper {
 public:
  explicit Stopper(std::function<StopReport()> stop) : stop_(std::move(stop)) {
    thread_ = std::thread([this] {
      if (!WaitUntil([this] { return go_.load(); })) Die("nobody lets the stop begin");
      report = stop_();
      done.Set();
    });
  }
  ~Stopper() {
    if (!done.Wait(3 * kDeadline)) Die("a stop does not return");
    thread_.join();
  }
  Stopper(const Stopper&) = delete;
  Stopper& operator=(const Stopper&) = delete;

  void Begin() { go_ = true; }

  StopReport report;
  Signal done;

 private:
  const std::function<StopReport()> stop_;
  std::atomic<bool> go_{false};
  std::thread thread_;
};

TEST_CASE("no stop of a server needs memory", "[S8][M22][F4]") {
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
  const bool opened = WaitUntil([&] { return handler->opened == 10; });
  StopReport report;
  bool ended = true;
  {
    Stopper stopper([&] { return server.Stop(mode); });
    const NoMemory none;
    stopper.Begin();
    if (mode != StopMode::kImmediately) {
      // The peers end their streams when ours has ended.
      for (RawPeer& peer : peers) {
        ended = ended && Drain(peer) == 0;
        peer.HalfClose();
      }
    }
    ended = WaitUntil([&] { return handler->closed == 10 && stopper.done.IsSet(); }) && ended;
    report = stopper.report;
  }
  WithinDeadline("Serve", [&] { thread.join(); });
  handler->first.reset();
  REQUIRE(opened);
  REQUIRE(ended);
  REQUIRE(report.connections == 10);
  REQUIRE(server.Stop(StopMode::kGracefullyAndWait).cut == 0);
}

// A connection of either kind to which more was sent than the kernel takes, and its peer, which has
// read nothing yet.
class Queued {
 public:
  static constexpr std::int64_t kBytes = 12 << 20;

  explicit Queued(bool dialled) {
    if (dialled) {
      RawListener listener;
      dialled_ = NewConn(WithDefaults({}, handler_));
      thread_ = std::thread([conn = dialled_, address = listener.address()] {
        static_cast<void>(conn->DialAndServe(address));
      });
      peer = listener.Accept();
    } else {
      server_ = std::make_unique<Server>(WithDefaults({}, handler_));
      if (server_->Listen("127.0.0.1:0")) Die("no listener");
      thread_ = std::thread([this] { static_cast<void>(server_->Serve()); });
      peer = RawPeer(server_->Addresses().at(0).Port(), 4096);
    }
    if (!WaitUntil([this] { return handler_->opened == 1; })) Die("no connection");
    conn = std::move(handler_->first);
    if (conn->Send(std::string(kBytes, 'x'))) Die("a send is refused");
  }
  ~Queued() {
    if (server_) static_cast<void>(server_->Stop(StopMode::kImmediately));
    static_cast<void>(conn->Stop(StopMode::kImmediately));
    WithinDeadline("a stop", [this] { thread_.join(); });
  }
  Queued(const Queued&) = delete;
  Queued& operator=(const Queued&) = delete;

  bool closed() const { return handler_->closed == 1; }

  ConnPtr conn;
  RawPeer peer;

 private:
  const std::shared_ptr<Counting> handler_ = std::make_shared<Counting>();
  ConnPtr dialled_;
  std::unique_ptr<Server> server_;
  std::thread thread_;
};

// What a stop of `queued` leads to while `Scarcity` lives: "" if the rest was delivered, or counted.
template <typename Scarcity>
std::string StopDuring(Queued& queued, StopMode mode) {
  const bool graceful = mode != StopMode::kImmediately;
  std::int64_t got = 0;
  bool ended = false;
  StopReport report;
  {
    Stopper stopper([&] { return queued.conn->Stop(mode); });
    const Scarcity scarcity;
    stopper.Begin();
    if (graceful) {
      got = Drain(queued.peer);
      queued.peer.HalfClose();
    }
    ended = WaitUntil([&] { return queued.closed() && stopper.done.IsSet(); });
    report = stopper.report;
  }
  if (!ended) return "it does not end";
  if (report.connections != 1) return "it reports no connection";
  const ConnStats stats = queued.conn->Stats();
  if (stats.reason != CloseReason::kLocalStop) return "it ended in another way";
  if (graceful && got != Queued::kBytes) return "the peer got " + std::to_string(got) + " bytes";
  if (!graceful && stats.unsent_bytes() == 0) return "nothing is counted as unsent";
  if (stats.accepted_bytes != Queued::kBytes) return "the books are wrong";
  return "";
}

// While one lives, this process gets no descriptor.
class NoDescriptors {
 public:
  NoDescriptors() {
    ::getrlimit(RLIMIT_NOFILE, &before_);
    const rlimit none{.rlim_cur = 3, .rlim_max = before_.rlim_max};
    ::setrlimit(RLIMIT_NOFILE, &none);
  }
  ~NoDescriptors() { ::setrlimit(RLIMIT_NOFILE, &before_); }
  NoDescriptors(const NoDescriptors&) = delete;
  NoDescriptors& operator=(const NoDescriptors&) = delete;

 private:
  rlimit before_{};
};

TEST_CASE("no stop of a connection needs memory or a descriptor, and it delivers all the same",
          "[S8][M19][M22][B2][F4]") {
  const StopMode mode = GENERATE(StopMode::kImmediately, StopMode::kGracefullyButNotWait,
                                 StopMode::kGracefullyAndWait);
  const bool dialled = GENERATE(false, true);
  CAPTURE(static_cast<int>(mode), dialled);
  {
    Queued queued(dialled);
    REQUIRE(StopDuring<NoMemory>(queued, mode) == "");
  }
  Queued queued(dialled);
  REQUIRE(StopDuring<NoDescriptors>(queued, mode) == "");
}

TEST_CASE("no stop of a server needs a descriptor", "[S8][M22]") {
  const StopMode mode = GENERATE(StopMode::kImmediately, StopMode::kGracefullyButNotWait,
                                 StopMode::kGracefullyAndWait);
  const std::size_t loops = GENERATE(1, 3);
  CAPTURE(static_cast<int>(mode), loops);
  Options options;
  options.loops = loops;
  auto events = std::make_shared<EventRecorder>();
  TestServer server(events, options);
  std::vector<RawPeer> peers;
  for (std::size_t i = 0; i < 4; ++i) {
    peers.emplace_back(server.port());
    REQUIRE(events->WaitForAccepted(i + 1));
  }
  bool ended = true;
  {
    Stopper stopper([&] { return server->Stop(mode); });
    const NoDescriptors none;
    stopper.Begin();
    for (RawPeer& peer : peers) {
      ended = ended && Drain(peer) == 0;
      peer.HalfClose();
    }
    ended = events->WaitForClosed(4) && stopper.done.Wait() && ended;
  }
  REQUIRE(ended);
  REQUIRE(server.Finish() == "");
  REQUIRE(server.report().cut == 0);
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
    return ::poll(&ready, 1, static_cast<int>(std::chrono::milliseconds(kDeadline).count())) == 1 &&
           ::read(connected_, &byte, 1) == 1;
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
      const End end = peer.ReadAll(nullptr, kDeadline);
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
  const bool connected = peers.Connected() && WaitUntil([&] { return handler->opened == count; });
  const double begin = CpuSeconds();
  static_cast<void>(server.Stop(mode));
  WithinDeadline("a stop", [&] { thread.join(); });
  const double cpu = CpuSeconds() - begin;
  handler->first.reset();
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
