// A dial that fails, takes long, or has several addresses to try.

#include <netdb.h>
#include <netinet/in.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <array>
#include <catch2/catch.hpp>
#include <cerrno>
#include <chrono>
#include <memory>
#include <string>
#include <system_error>
#include <vector>

#include "support/event_recorder.h"
#include "support/fake_names.h"
#include "support/fault_control.h"
#include "support/raw_peer.h"
#include "support/test_client.h"
#include "support/test_protocol.h"
#include "support/violations.h"

namespace xtcp::test {
namespace {

using namespace std::chrono_literals;
using std::chrono::milliseconds;

std::error_code System(int error) { return {error, std::system_category()}; }

// What a dial returned that ends without help.
std::error_code Dial(const ConnPtr& conn, std::string_view address) {
  std::error_code result;
  WithinDeadline("a dial", [&] { result = conn->DialAndServe(address); });
  return result;
}

std::error_code FailedDial(std::string_view address, Options options = {}) {
  auto events = std::make_shared<EventRecorder>();
  const ConnPtr conn = NewConn(WithDefaults(std::move(options), events));
  REQUIRE_FALSE(conn->Send("lost"));
  const std::error_code error = Dial(conn, address);
  REQUIRE(conn->Stats().reason == CloseReason::kConnectFailed);
  REQUIRE(conn->Stats().error == error);
  REQUIRE(conn->Stats().unsent_bytes() == 4);
  REQUIRE(events->Verify() == "");
  REQUIRE(events->connections().empty());
  return error;
}

// A listener whose queue is full: it drops further SYNs, so a connect to it hangs.
struct HungListener {
  RawListener listener{0};
  RawPeer fills_it{listener.port()};

  std::string name() const { return "some.name:" + std::to_string(listener.port()); }
};

// A dial to a name, with a clock that the test moves; its connects hang.
struct HungDial {
  HungDial(std::size_t addresses, milliseconds connect_timeout)
      : names(std::vector<std::string>(addresses, "127.0.0.1")) {
    Options options;
    options.connect_timeout = connect_timeout;
    client = std::make_unique<TestClient>(std::make_shared<EventRecorder>(), options);
  }

  void Begin() {
    client->Dial(hung.name());
    REQUIRE(WaitUntil([&] { return connects() > 0; }));
    REQUIRE(clock.Settle());
  }

  void Pass(milliseconds time) {
    clock.Advance(time);
    REQUIRE(clock.Settle());
  }

  // The address that is tried has this much time, then the next one is tried.
  void MustGoOnIn(milliseconds time) {
    const std::uint64_t before = connects();
    Pass(time - 1ms);
    REQUIRE(connects() == before);
    Pass(2ms);
    REQUIRE(connects() == before + 1);
  }

  void MustEndIn(milliseconds time) {
    Pass(time - 1ms);
    REQUIRE_FALSE(client->conn()->IsStopped());
    REQUIRE(client->conn()->Stats().reason == CloseReason::kNone);
    clock.Advance(2ms);
    REQUIRE(client->Wait() == std::errc::timed_out);
    REQUIRE(client->Finish(StopMode::kImmediately, System(ETIMEDOUT)) == "");
    REQUIRE(client->conn()->Stats().error == std::errc::timed_out);
  }

  std::uint64_t connects() const { return CallsOf(Site::kConnect) - connects_before; }

  const std::uint64_t connects_before = CallsOf(Site::kConnect);
  FaultPlan plan;
  VirtualClock clock;
  FakeNames names;
  HungListener hung;
  std::unique_ptr<TestClient> client;
};

TEST_CASE("a connect that fails at once or later says why", "[M31][F2]") {
  RawListener listener;
  for (const int error : {ECONNREFUSED, ENETUNREACH, EHOSTUNREACH, ETIMEDOUT, EACCES}) {
    CAPTURE(error);
    FaultPlan plan;
    plan.Add({.site = Site::kConnect, .error = error});
    REQUIRE(FailedDial(listener.address()) == System(error));
    plan.Add({.site = Site::kGetSockOpt, .error = error, .operation = SO_ERROR});
    REQUIRE(FailedDial(listener.address()) == System(error));
    REQUIRE(plan.injected() == 2);
  }
  // The queue of a Unix socket is full: connect(2) says EAGAIN.
  RawListener local("unix:@xtcp-dial-" + std::to_string(::getpid()), 0);
  RawPeer fills_it(local.address());
  REQUIRE(FailedDial(local.address()) == System(EAGAIN));
}

TEST_CASE("a dial that cannot even begin says why", "[M31][F2]") {
  RawListener listener;
  struct {
    Site site;
    int error;
    int operation;
  } const table[] = {
      {Site::kEpollCreate, EMFILE, Fault::kAny}, {Site::kEventFd, ENFILE, Fault::kAny},
      {Site::kSocket, EMFILE, Fault::kAny},      {Site::kEpollCtl, ENOMEM, EPOLL_CTL_ADD},
      {Site::kEpollWait, EBADF, Fault::kAny},
  };
  for (const auto& [site, error, operation] : table) {
    CAPTURE(static_cast<int>(site));
    FaultPlan plan;
    plan.Add({.site = site, .error = error, .operation = operation});
    REQUIRE(FailedDial(listener.address()) == System(error));
    REQUIRE(plan.injected() == 1);
  }
  FaultPlan plan;
  plan.Add({.site = Site::kGetAddrInfo, .error = EAI_NONAME});
  REQUIRE(FailedDial("some.name:80") == Errc::kHostNotFound);
}

TEST_CASE("however a connection ended, the dial that made it has no error", "[M31]") {
  Options options;
  options.max_packet_size = 100;
  RawListener listener;
  const auto end = [&](auto how, CloseReason reason) {
    TestClient client(std::make_shared<EventRecorder>(), listener.address(), options);
    RawPeer peer = listener.Accept();
    REQUIRE(client.events().WaitForConnected(1));
    how(client.conn(), peer);
    REQUIRE_FALSE(client.Wait());
    REQUIRE(client.Finish() == "");
    REQUIRE(client->Stats().reason == reason);
  };
  const auto send = [](std::string bytes) {
    return [bytes](const ConnPtr&, RawPeer& peer) { static_cast<void>(peer.SendAll(bytes)); };
  };
  const auto stop = [](StopMode mode) {
    return [mode](const ConnPtr& conn, RawPeer& peer) {
      static_cast<void>(conn->Stop(mode));
      peer.HalfClose();
    };
  };
  end([](const ConnPtr&, RawPeer& peer) { peer.Close(); }, CloseReason::kPeerClosed);
  end([](const ConnPtr&, RawPeer& peer) { peer.Reset(); }, CloseReason::kPeerReset);
  end(send(Header(1000) + std::string(1000, 'x')), CloseReason::kPacketTooLarge);
  end(send(MarkedFrame(Marker::kNoResync)), CloseReason::kProtocolError);
  end(stop(StopMode::kImmediately), CloseReason::kLocalStop);
  end(stop(StopMode::kGracefullyButNotWait), CloseReason::kLocalStop);
}

TEST_CASE("each address has an equal share of the time that is left", "[M32][R8]") {
  SECTION("three that hang") {
    HungDial dial(3, 9s);
    dial.Begin();
    dial.MustGoOnIn(3s);
    dial.MustGoOnIn(3s);
    dial.MustEndIn(3s - 2ms);
  }
  SECTION("what one does not use is for the others") {
    HungDial dial(4, 12s);
    dial.plan.Add({.site = Site::kConnect, .error = ECONNREFUSED, .times = 2});
    dial.Begin();
    REQUIRE(dial.connects() == 3);
    dial.MustGoOnIn(6s);
    dial.MustEndIn(6s - 1ms);
  }
  SECTION("one has all of it") {
    HungDial dial(1, 9s);
    dial.Begin();
    dial.MustEndIn(9s);
  }
  SECTION("the look-up takes none of it") {
    HungDial dial(2, 9s);
    dial.plan.Add({.site = Site::kGetAddrInfo, .act = [&](int) { dial.clock.Advance(1h); }});
    dial.Begin();
    dial.MustGoOnIn(4500ms);
    dial.MustEndIn(4500ms - 1ms);
  }
}

TEST_CASE("without connect_timeout only the system gives up", "[M32]") {
  HungDial dial(2, 0ms);
  dial.Begin();
  const std::uint64_t waits = CallsOf(Site::kEpollWait);
  dial.Pass(100h);
  REQUIRE(dial.connects() == 1);
  REQUIRE(CallsOf(Site::kEpollWait) == waits);
  REQUIRE(dial.client->Finish(StopMode::kImmediately, Errc::kStopped) == "");
}

TEST_CASE("all addresses are tried, and the last error is returned", "[M31][M32]") {
  const FakeNames names({"127.0.0.1", "::1", "127.0.0.1", "127.0.0.1"});
  FaultPlan plan;
  const std::array errors = {ECONNREFUSED, ENETUNREACH, EHOSTUNREACH, EACCES};
  for (std::size_t i = 0; i < errors.size(); ++i) {
    plan.Add({.site = Site::kConnect, .error = errors[i]});
  }
  const std::uint64_t before = CallsOf(Site::kConnect);
  REQUIRE(FailedDial("some.name:80") == System(EACCES));
  REQUIRE(CallsOf(Site::kConnect) == before + 4);
}

TEST_CASE("whatever is wrong with the first address, the second one is tried", "[M32][M33]") {
  const FakeNames names({"127.0.0.1", "127.0.0.1"});
  RawListener listener;
  const std::string name = "some.name:" + std::to_string(listener.port());
  const std::vector<Fault> faults = {
      {.site = Site::kSocket, .error = EAFNOSUPPORT},
      {.site = Site::kConnect, .error = ENETUNREACH},
      {.site = Site::kGetSockOpt, .error = ECONNREFUSED, .operation = SO_ERROR},
      {.site = Site::kEpollCtl, .error = ENOMEM, .first = 2, .operation = EPOLL_CTL_ADD},
  };
  for (const Fault& fault : faults) {
    CAPTURE(static_cast<int>(fault.site));
    FaultPlan plan;
    plan.Add(fault);
    TestClient client(std::make_shared<EventRecorder>());
    REQUIRE_FALSE(client->Send("kept"));
    client.Dial(name);
    REQUIRE(client.events().WaitForConnected(1));
    REQUIRE(plan.injected() == 1);
    // A connect that was given up may have stood for the listener.
    std::string bytes;
    while (bytes != "kept") {
      RawPeer peer = listener.Accept();
      REQUIRE(peer.connected());
      bytes.clear();
      if (peer.ReadExactly(4, &bytes) != End::kOpen) bytes.clear();
    }
    REQUIRE(client.Finish() == "");
  }
}

TEST_CASE("bytes that were queued at any time before it stands go first, in order", "[M32][M33]") {
  HungDial dial(2, 10s);
  dial.client->events().on_connected = [](const ConnPtr& conn) {
    static_cast<void>(conn->Send("3 in kConnected"));
  };
  ConnPtr conn = dial.client->conn();
  REQUIRE_FALSE(conn->Send("1 before the dial, "));
  dial.Begin();
  REQUIRE_FALSE(conn->Send("2 while it hangs, "));
  REQUIRE(dial.clock.Settle());
  REQUIRE(dial.connects() == 1);
  REQUIRE(conn->Descriptor() == -1);
  // The queue has room again, so the second address stands.
  REQUIRE(dial.hung.listener.Accept().connected());
  dial.Pass(5s);
  REQUIRE(dial.client->events().WaitForConnected(1));
  RawPeer peer = dial.hung.listener.Accept();
  const std::string expected = "1 before the dial, 2 while it hangs, 3 in kConnected";
  std::string bytes;
  REQUIRE(peer.ReadExactly(expected.size(), &bytes) == End::kOpen);
  REQUIRE(bytes == expected);
  REQUIRE(dial.client->Finish() == "");
}

// A port that is free, and stays so as long as this lives.
struct KeptPort {
  KeptPort() {
    const int on = 1;
    own.sin_family = AF_INET;
    own.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    REQUIRE(::setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on) == 0);
    REQUIRE(::bind(fd, address(), size) == 0);
    REQUIRE(::getsockname(fd, address(), &size) == 0);
  }
  ~KeptPort() { ::close(fd); }

  sockaddr* address() { return reinterpret_cast<sockaddr*>(&own); }

  // Binds another socket to it.
  int BindToo(int other) {
    const int on = 1;
    ::setsockopt(other, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    return ::bind(other, address(), size);
  }

  const int fd = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  sockaddr_in own{};
  socklen_t size = sizeof own;
};

TEST_CASE("a connection to oneself is a refused one, and leaves its port free", "[M31][seen-8]") {
  // A connect to a port of the ephemeral range may be given that very port as its own: then TCP
  // connects the socket to itself (RFC 9293, 3.5, simultaneous open).
  //
  // Another program may be given the port at the very end: then once more.
  for (int tries = 1;; ++tries) {
    auto port = std::make_unique<KeptPort>();
    {
      FaultPlan plan;
      plan.Add({.site = Site::kConnect, .act = [&](int fd) {
                  if (port->BindToo(fd) != 0) AddViolation("the port is taken");
                }});
      REQUIRE(FailedDial("127.0.0.1:" + std::to_string(ntohs(port->own.sin_port))) ==
              System(ECONNREFUSED));
      REQUIRE(plan.injected() == 1);
    }
    // A socket without SO_REUSEADDR gets a port of which nothing is left, no TIME_WAIT either.
    sockaddr_in own = port->own;
    port.reset();
    const int next = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    const bool bound = ::bind(next, reinterpret_cast<sockaddr*>(&own), sizeof own) == 0;
    ::close(next);
    if (bound) break;
    REQUIRE(tries < 5);
  }
}

TEST_CASE("a connect that stands in the turn in which its time is over counts", "[M32][R8]") {
  FaultPlan plan;
  VirtualClock clock;
  plan.Add({.site = Site::kConnect, .act = [&](int) {
              plan.Add({.site = Site::kEpollWait, .act = [&](int) { clock.Advance(12s); }});
            }});
  Options options;
  options.connect_timeout = 12s;
  RawListener listener;
  TestClient client(std::make_shared<EventRecorder>(), listener.address(), options);
  REQUIRE(client.events().WaitForConnected(1));
  REQUIRE(plan.injected() == 2);
  REQUIRE(client.Finish() == "");
}

TEST_CASE("a dialled connection ignores what is for servers", "[M33]") {
  FaultPlan plan;
  plan.Add({.site = Site::kSetSockOpt, .operation = SO_REUSEPORT});
  Options options;
  options.loops = 8;
  options.backlog = 1;
  options.reuse_port = true;
  options.max_connections = 1;
  const std::uint64_t threads = CallsOf(Site::kStartThread);
  RawListener listener;
  TestClient client(std::make_shared<EventRecorder>(), listener.address(), options);
  REQUIRE(client.events().WaitForConnected(1));
  REQUIRE(client.Finish() == "");
  REQUIRE(CallsOf(Site::kStartThread) == threads);
  REQUIRE(plan.injected() == 0);
}

}  // namespace
}  // namespace xtcp::test
