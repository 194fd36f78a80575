// Several listeners, adopted ones, listeners that die, and what Serve returns.

#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>
#include <xtcp/logger.h>

#include <atomic>
#include <catch2/catch.hpp>
#include <cerrno>
#include <chrono>
#include <filesystem>
#include <memory>
#include <string>
#include <string_view>
#include <system_error>
#include <thread>
#include <vector>

#include "support/event_recorder.h"
#include "support/fault_control.h"
#include "support/raw_peer.h"
#include "support/test_protocol.h"
#include "support/test_server.h"
#include "support/violations.h"

namespace xtcp::test {
namespace {

using namespace std::chrono_literals;

std::error_code System(int error) { return {error, std::system_category()}; }

std::shared_ptr<EventRecorder> EchoRecorder() {
  auto events = std::make_shared<EventRecorder>();
  events->on_recv = Echo;
  return events;
}

bool Echoes(RawPeer& peer) { return peer.SendAll(Frame("hello")) && peer.ReadFrame() == "hello"; }

std::string AbstractName() { return "unix:@xtcp-listeners-" + std::to_string(::getpid()); }

// A server with several listeners, which serves on a thread of its own.
struct Served {
  explicit Served(const Options& options = {}) : server(WithDefaults(options, events)) {}
  ~Served() {
    if (thread.joinable()) End();
  }

  void Start() {
    thread = std::thread([this] {
      result = server.Serve();
      ended.Set();
    });
  }

  std::error_code End() {
    static_cast<void>(server.Stop(StopMode::kImmediately));
    return Wait();
  }

  // What Serve returned.
  std::error_code Wait() {
    if (!ended.Wait(3 * kDeadline)) Die("Serve does not return");
    thread.join();
    problems = events->Verify();
    return result;
  }

  std::shared_ptr<EventRecorder> events = EchoRecorder();
  Server server;
  std::thread thread;
  Signal ended;
  std::error_code result;
  std::string problems;
};

TEST_CASE("one server serves all of its listeners", "[M25][M35][M36]") {
  const std::string file = (std::filesystem::temp_directory_path() / "xtcp-XXXXXX").string() +
                           std::to_string(::getpid());
  Options options;
  options.loops = GENERATE(1u, 3u);
  Served served(options);
  RawListener adopted, adopted_local(AbstractName());
  REQUIRE_FALSE(served.server.Listen("127.0.0.1:0"));
  REQUIRE_FALSE(served.server.Adopt(adopted.fd()));
  REQUIRE_FALSE(served.server.Listen("unix:" + file));
  REQUIRE_FALSE(served.server.Adopt(adopted_local.fd()));
  REQUIRE_FALSE(served.server.Listen("127.0.0.1:0"));
  static_cast<void>(adopted.Release());
  static_cast<void>(adopted_local.Release());
  const std::vector<Address> addresses = served.server.Addresses();
  REQUIRE(addresses.size() == 5);
  REQUIRE(addresses[1].ToString() == adopted.address());
  REQUIRE(addresses[2].ToString() == "unix:" + file);
  REQUIRE(addresses[3].ToString() == adopted_local.address());
  REQUIRE(addresses[0] != addresses[4]);
  served.Start();
  for (const Address& address : addresses) {
    RawPeer peer(address.ToString());
    REQUIRE(Echoes(peer));
  }
  REQUIRE(served.server.Listen("127.0.0.1:0") == Errc::kAlreadyUsed);
  RawListener late;
  REQUIRE(served.server.Adopt(late.fd()) == Errc::kAlreadyUsed);
  REQUIRE(::fcntl(late.fd(), F_GETFD) >= 0);  // it stays the caller's
  REQUIRE_FALSE(served.End());
  REQUIRE(served.problems == "");
  for (const Address& address : addresses) REQUIRE_FALSE(RawPeer(address.ToString()).connected());
  REQUIRE(served.server.Addresses() == addresses);
}

TEST_CASE("an adopted listener's socket file is not ours to remove", "[M36]") {
  std::string folder = (std::filesystem::temp_directory_path() / "xtcp-XXXXXX").string();
  REQUIRE(::mkdtemp(folder.data()) != nullptr);
  RawListener listener("unix:" + folder + "/s");
  {
    Served served;
    REQUIRE_FALSE(served.server.Adopt(listener.Release()));
    served.Start();
    RawPeer peer(listener.address());
    REQUIRE(Echoes(peer));
    REQUIRE_FALSE(served.End());
    REQUIRE(served.problems == "");
  }
  REQUIRE(std::filesystem::is_socket(folder + "/s"));
  std::filesystem::remove_all(folder);
}

TEST_CASE("connections of an adopted wildcard listener know their own address", "[M35][seen-12]") {
  if (!HasIpv6()) return;
  for (const char* const wildcard : {"::", "::ffff:0.0.0.0"}) {
    CAPTURE(wildcard);
    const int fd = ::socket(AF_INET6, SOCK_STREAM | SOCK_CLOEXEC, 0);
    const int off = 0;
    sockaddr_in6 any{};
    any.sin6_family = AF_INET6;
    REQUIRE(::inet_pton(AF_INET6, wildcard, &any.sin6_addr) == 1);
    REQUIRE(::setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &off, sizeof off) == 0);
    REQUIRE(::bind(fd, reinterpret_cast<const sockaddr*>(&any), sizeof any) == 0);
    REQUIRE(::listen(fd, 10) == 0);
    Served served;
    REQUIRE_FALSE(served.server.Adopt(fd));
    served.Start();
    const std::string own = "127.0.0.1:" + std::to_string(served.server.Addresses()[0].Port());
    RawPeer peer(own);
    REQUIRE(Echoes(peer));
    CHECK(served.events->conn()->LocalAddress().ToString() == own);
    REQUIRE_FALSE(served.End());
    REQUIRE(served.problems == "");
  }
}

TEST_CASE("what is no listening stream socket stays the caller's", "[M34][M36]") {
  Served served;
  int pipe_ends[2];
  REQUIRE(::pipe2(pipe_ends, O_CLOEXEC) == 0);
  RawListener listener;
  RawPeer connected(listener.port());
  const std::vector<int> descriptors = {
      ::open("/dev/null", O_RDONLY | O_CLOEXEC),
      ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0),
      ::socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0),
      ::socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0),
      pipe_ends[0],
      pipe_ends[1],
  };
  for (const int fd : descriptors) {
    CAPTURE(fd);
    REQUIRE(served.server.Adopt(fd) == Errc::kNotListening);
    REQUIRE(::fcntl(fd, F_GETFD) >= 0);
    ::close(fd);
    REQUIRE(served.server.Adopt(fd) == Errc::kNotListening);
  }
  REQUIRE(served.server.Adopt(connected.fd()) == Errc::kNotListening);
  REQUIRE(served.server.Adopt(-1) == Errc::kNotListening);
  REQUIRE(served.server.Addresses().empty());
  REQUIRE(served.server.Serve() == Errc::kNotListening);
}

TEST_CASE("a descriptor is adopted once", "[M34]") {
  Served served;
  RawListener listener;
  REQUIRE_FALSE(served.server.Adopt(listener.fd()));
  REQUIRE(served.server.Adopt(listener.fd()) == Errc::kAlreadyUsed);
  static_cast<void>(listener.Release());
  REQUIRE(served.server.Addresses().size() == 1);
  served.Start();
  RawPeer peer(listener.port());
  REQUIRE(Echoes(peer));
  REQUIRE_FALSE(served.End());
  REQUIRE(served.problems == "");
}

TEST_CASE("Serve without a listener says so, and may be called again with one", "[M34]") {
  Served served;
  REQUIRE(served.server.Serve() == Errc::kNotListening);
  REQUIRE(served.server.ListenAndServe("nonsense") == Errc::kBadAddress);
  REQUIRE_FALSE(served.server.IsStopped());
  REQUIRE_FALSE(served.server.Listen("127.0.0.1:0"));
  served.Start();
  RawPeer peer(served.server.Addresses().at(0).Port());
  REQUIRE(Echoes(peer));
  REQUIRE(served.server.Serve() == Errc::kAlreadyUsed);
  REQUIRE(served.server.ListenAndServe("127.0.0.1:0") == Errc::kAlreadyUsed);
  REQUIRE_FALSE(served.End());
  REQUIRE(served.problems == "");
  REQUIRE(served.server.Serve() == Errc::kAlreadyUsed);
}

TEST_CASE("a server that is started again gets its port again", "[M35]") {
  // The end that closes first keeps the connection in TIME_WAIT for a minute (RFC 9293, 3.6.1). Here
  // that is the old server's, of whose port another program may make use meanwhile: then again.
  for (int tries = 1;; ++tries) {
    auto events = std::make_shared<EventRecorder>();
    TestServer old(events);
    RawPeer peer(old.port());
    REQUIRE(events->WaitForAccepted(1));
    static_cast<void>(old->Stop(StopMode::kGracefullyButNotWait));
    REQUIRE(peer.ReadAll() == End::kEof);
    peer.Close();
    REQUIRE(old.Finish(StopMode::kGracefullyAndWait) == "");
    Server young(WithDefaults({}, events));
    const std::error_code error = young.Listen(old.address());
    if (!error) break;
    REQUIRE(error == std::errc::address_in_use);
    REQUIRE(tries < 5);
  }
}

TEST_CASE("when the last listener is dead Serve stops gracefully and says why", "[M34]") {
  const int error = GENERATE(EINVAL, EBADF, ENOTSOCK);
  CAPTURE(error);
  FaultPlan plan;
  Served served;
  RawListener one, other;
  for (RawListener* listener : {&one, &other}) {
    REQUIRE_FALSE(served.server.Adopt(listener->fd()));
  }
  const int first = one.Release(), second = other.Release();
  served.Start();
  RawPeer peer(one.port());
  REQUIRE(Echoes(peer));
  plan.Add({.site = Site::kAccept4, .error = error, .fd = first});
  RawPeer nobody(one.port());  // in the queue of a listener that dies
  REQUIRE(WaitUntil([&] { return served.server.Stats().accept_errors == 1; }));
  // One is left: it serves on.
  RawPeer second_peer(other.port());
  REQUIRE(Echoes(second_peer));
  REQUIRE(Echoes(peer));
  REQUIRE_FALSE(RawPeer(one.port()).connected());
  REQUIRE_FALSE(served.server.IsStopped());

  plan.Add({.site = Site::kAccept4, .error = EINVAL, .fd = second});
  RawPeer nobody_else(other.port());
  // Gracefully: what is open gets its end of stream, and may end its own.
  REQUIRE(second_peer.ReadAll() == End::kEof);
  REQUIRE(peer.ReadAll() == End::kEof);
  REQUIRE(served.server.IsStopped());
  REQUIRE_FALSE(served.ended.IsSet());
  second_peer.Close();
  peer.Close();
  REQUIRE(served.Wait() == System(EINVAL));
  REQUIRE(served.problems == "");
  for (std::size_t i = 0; i < 2; ++i) {
    REQUIRE(served.events->conn(i)->Stats().reason == CloseReason::kLocalStop);
  }
}

TEST_CASE("what keeps Serve from starting is its result, and nothing stays open", "[M34][F2]") {
  struct {
    Site site;
    int error;
    std::size_t first;
  } const table[] = {
      {Site::kEpollCreate, EMFILE, 1}, {Site::kEpollCreate, EMFILE, 3},
      {Site::kEventFd, ENFILE, 2},     {Site::kEpollCtl, ENOMEM, 1},
      {Site::kEpollCtl, ENOSPC, 4},  // the first listener's
      {Site::kGetRlimit, EINVAL, 1},   {Site::kStartThread, EAGAIN, 1},
      {Site::kStartThread, EAGAIN, 2},
  };
  for (const auto& [site, error, first] : table) {
    CAPTURE(static_cast<int>(site), first);
    FaultPlan plan;
    plan.Add({.site = site, .error = error, .first = first});
    Options options;
    options.loops = 3;
    Served served(options);
    REQUIRE_FALSE(served.server.Listen("127.0.0.1:0"));
    served.Start();
    REQUIRE(served.Wait() == System(error));
    REQUIRE(served.problems == "");
    REQUIRE(plan.injected() == 1);
    REQUIRE(served.server.IsStopped());
    REQUIRE_FALSE(RawPeer(served.server.Addresses().at(0).Port()).connected());
    REQUIRE(served.server.Serve() == Errc::kAlreadyUsed);
  }
}

TEST_CASE("a loop that fails ends the server with its error", "[M34][F2]") {
  FaultPlan plan;
  Options options;
  options.loops = GENERATE(1u, 2u);
  Served served(options);
  REQUIRE_FALSE(served.server.Listen("127.0.0.1:0"));
  served.Start();
  std::vector<RawPeer> peers;
  for (int i = 0; i < 4; ++i) {
    peers.emplace_back(served.server.Addresses()[0].Port());
    REQUIRE(Echoes(peers.back()));
  }
  plan.Add({.site = Site::kEpollWait, .error = EBADF});
  // The loop whose turn it is fails; where another one is left it ends its own gracefully.
  REQUIRE(peers[0].SendAll(Frame("x")));
  REQUIRE(WaitUntil([&] { return served.server.IsStopped(); }));
  peers.clear();
  REQUIRE(served.Wait() == System(EBADF));
  REQUIRE(served.problems == "");
  REQUIRE(served.events->totals().closed == 4);
}

struct CountingLogger : Logger {
  bool Enabled(LogLevel level) const override { return level <= LogLevel::kWarn; }
  void Log(LogLevel, std::string_view text, const char*, int) override {
    if (text.starts_with("accepting rests")) ++lines;
  }
  std::atomic<int> lines{0};
};

TEST_CASE("without descriptors accepting rests, and comes back", "[M37][R4]") {
  const int error = GENERATE(EMFILE, ENFILE, ENOBUFS, ENOMEM);
  CAPTURE(error);
  FaultPlan plan;
  VirtualClock clock;
  const auto logger = std::make_shared<CountingLogger>();
  SetLogger(logger);
  auto events = EchoRecorder();
  TestServer server(events);
  RawPeer before(server.port());
  REQUIRE(events->WaitForAccepted(1));
  plan.Add({.site = Site::kAccept4, .error = error, .times = Fault::kAlways});
  RawPeer waits(server.port());
  REQUIRE(clock.Settle());
  const std::uint64_t attempts = CallsOf(Site::kAccept4);
  for (int i = 0; i < 300; ++i) {
    clock.Advance(10ms);
    REQUIRE(clock.Settle());
  }
  // At most 20 attempts and one line in a second, no gap of more than 100 ms; over three seconds.
  REQUIRE(CallsOf(Site::kAccept4) - attempts <= 60);
  REQUIRE(CallsOf(Site::kAccept4) - attempts >= 30);
  REQUIRE(logger->lines >= 3);
  REQUIRE(logger->lines <= 4);
  SetLogger(nullptr);
  REQUIRE(Echoes(before));
  plan.Clear();
  REQUIRE(clock.Settle());
  clock.Advance(100ms);
  REQUIRE(Echoes(waits));
  REQUIRE(server->Stats().accept_errors > 30);
  REQUIRE(server->Stats().accepted == 2);
  REQUIRE(server.Finish() == "");
}

}  // namespace
}  // namespace xtcp::test
