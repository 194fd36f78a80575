// What a start or a dial makes of an error: it returns it, there is no event, and nothing is left.

#include <netdb.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>
#include <xtcp/error.h>

#include <catch2/catch.hpp>
#include <cerrno>
#include <cstddef>
#include <filesystem>
#include <memory>
#include <string>
#include <system_error>
#include <utility>
#include <vector>

#include "support/deadline.h"
#include "support/event_recorder.h"
#include "support/fault_control.h"
#include "support/leak_guard.h"
#include "support/log_lines.h"
#include "support/raw_peer.h"
#include "support/test_client.h"
#include "support/test_protocol.h"
#include "support/test_server.h"

namespace xtcp::test {
namespace {

std::error_code System(int error) { return {error, std::system_category()}; }

TEST_CASE("Listen returns the error of each of its calls, and leaves nothing", "[F2][R5][M36]") {
  const std::string file =
      std::filesystem::temp_directory_path() / ("xtcp_start_" + std::to_string(::getpid()));
  for (const std::string& address : {std::string("127.0.0.1:0"), "unix:" + file}) {
    for (const Site site : {Site::kSocket, Site::kBind, Site::kListen, Site::kGetSockName}) {
      for (const int error : {EMFILE, ENFILE, ENOBUFS, ENOMEM, EACCES, EADDRINUSE, EADDRNOTAVAIL,
                              EAFNOSUPPORT, EINVAL, ENOTCONN}) {
        INFO(address << ", site " << int(site) << ", error " << error);
        FaultPlan plan;
        plan.Add({.site = site, .error = error});
        const std::size_t descriptors = Holdings::Now().descriptors;
        Server server(WithDefaults({}, std::make_shared<EventRecorder>()));
        CHECK(server.Listen(address) == System(error));
        CHECK(plan.injected() == 1);
        CHECK(server.Addresses().empty());
        CHECK(Holdings::Now().descriptors == descriptors);
        CHECK_FALSE(std::filesystem::exists(file));
        CHECK(server.Serve() == Errc::kNotListening);
      }
    }
  }
}

TEST_CASE("a look-up's error is returned by whoever asked", "[F2][M31]") {
  const std::pair<int, std::error_code> cases[] = {{EAI_AGAIN, System(EAGAIN)},
                                                   {EAI_NONAME, Errc::kHostNotFound},
                                                   {EAI_MEMORY, Errc::kNoMemory}};
  for (const auto& [code, error] : cases) {
    CAPTURE(code);
    FaultPlan plan;
    plan.Add({.site = Site::kGetAddrInfo, .error = code, .times = 2});
    auto events = std::make_shared<EventRecorder>();
    Server server(WithDefaults({}, events));
    CHECK(server.Listen("localhost:0") == error);
    TestClient client(events, "localhost:1");
    CHECK(client.Wait() == error);
    CHECK(client->Stats().reason == CloseReason::kConnectFailed);
    CHECK(client->Stats().error == error);
    CHECK(client.Finish(StopMode::kImmediately, error) == "");
    CHECK(events->connections().empty());
  }
}

TEST_CASE("a look-up that fails by a system call says by which error", "[F1][F2][M31]") {
  for (const int error : {EMFILE, ENOMEM, EACCES}) {
    CAPTURE(error);
    FaultPlan plan;
    plan.Add({.site = Site::kGetAddrInfo, .error = EAI_SYSTEM, .times = 2, .act = [error](int) {
                errno = error;
              }});
    auto events = std::make_shared<EventRecorder>();
    Server server(WithDefaults({}, events));
    CHECK(server.Listen("localhost:0") == System(error));
    TestClient client(events, "localhost:1");
    CHECK(client.Wait() == System(error));
    CHECK(client->Stats().reason == CloseReason::kConnectFailed);
    CHECK(client.Finish(StopMode::kImmediately, System(error)) == "");
    CHECK(events->connections().empty());
    CHECK(plan.injected() == 2);
  }
  if (!HasLocalhost()) return;
  FaultPlan plan;
  plan.Add({.site = Site::kGetAddrInfo, .error = EAI_SYSTEM, .times = 3, .act = [](int) {
              errno = EINTR;
            }});
  Server server(WithDefaults({}, std::make_shared<EventRecorder>()));
  CHECK_FALSE(server.Listen("localhost:0"));
  CHECK(plan.injected() == 3);
}

TEST_CASE("Serve returns the error of each of its calls, and leaves nothing", "[F2][R5][M34]") {
  // Three loops, each with its eventfd, and two listeners.
  std::vector<Fault> faults;
  const auto add = [&](Site site, std::size_t calls, std::vector<int> errors) {
    for (std::size_t first = 1; first <= calls; ++first) {
      for (const int error : errors) {
        faults.push_back({.site = site,
                          .error = error,
                          .first = first,
                          .operation = site == Site::kEpollCtl ? EPOLL_CTL_ADD : Fault::kAny});
      }
    }
  };
  add(Site::kEpollCreate, 3, {EMFILE, ENFILE, ENOMEM});
  add(Site::kEventFd, 3, {EMFILE, ENFILE, ENOMEM});
  add(Site::kEpollCtl, 5, {ENOMEM, ENOSPC, EEXIST, ENOENT, EBADF});
  add(Site::kStartThread, 2, {EAGAIN, ENOMEM});
  add(Site::kGetRlimit, 1, {EINVAL});
  for (const Fault& fault : faults) {
    INFO("site " << int(fault.site) << ", call " << fault.first << ", error " << fault.error);
    FaultPlan plan;
    plan.Add(fault);
    const Holdings before = Holdings::Now();
    auto events = std::make_shared<EventRecorder>();
    Options options;
    options.loops = 3;
    Server server(WithDefaults(options, events));
    REQUIRE_FALSE(server.Listen("127.0.0.1:0"));
    REQUIRE_FALSE(server.Listen("127.0.0.1:0"));
    std::error_code served;
    WithinDeadline("Serve", [&] { served = server.Serve(); });
    CHECK(served == System(fault.error));
    CHECK(plan.injected() == 1);
    CHECK(Holdings::Now().descriptors == before.descriptors);
    // A thread of the round before can still be counted after it was joined: pthread_join(3) returns
    // before the kernel has taken it off its list.
    CHECK(WaitUntil([&] { return Holdings::Now().threads <= before.threads; }));
    CHECK(events->connections().empty());
    CHECK_FALSE(RawPeer(server.Addresses().at(0).Port()).connected());
    CHECK(server.IsStopped());
    WithinDeadline("Stop",
                   [&] { CHECK(server.Stop(StopMode::kGracefullyAndWait).connections == 0); });
  }
}

// Dials a listener while `faults` happen, which fail the dial with `error`.
void RequireDialFails(const std::vector<Fault>& faults, std::error_code error) {
  FaultPlan plan;
  // That the connect is under way, so that the dialler waits for it.
  plan.Add({.site = Site::kConnect, .error = EINPROGRESS, .after_call = true});
  for (const Fault& fault : faults) plan.Add(fault);
  RawListener listener;
  auto events = std::make_shared<EventRecorder>();
  const std::uint64_t connects = CallsOf(Site::kConnect);
  TestClient client(events);
  REQUIRE_FALSE(client->Send("lost"));
  client.Dial(listener.address());
  CHECK(client.Wait() == error);
  CHECK(CallsOf(Site::kConnect) - connects <= 1);
  const ConnStats stats = client->Stats();
  CHECK(stats.reason == CloseReason::kConnectFailed);
  CHECK(stats.error == error);
  CHECK(stats.unsent_bytes() == 4);
  CHECK(client.Finish(StopMode::kImmediately, error) == "");
  CHECK(events->connections().empty());
}

TEST_CASE("DialAndServe returns the error of each of its calls, once", "[F2][R5][M31]") {
  const std::vector<std::pair<Site, std::vector<int>>> rows = {
      {Site::kSocket, {EMFILE, ENFILE, ENOBUFS, ENOMEM, EACCES, EAFNOSUPPORT}},
      {Site::kEpollCreate, {EMFILE, ENFILE, ENOMEM}},
      {Site::kEventFd, {EMFILE, ENFILE, ENOMEM}},
      {Site::kGetSockOpt,  // SO_ERROR
       {ECONNREFUSED, ETIMEDOUT, ENETUNREACH, EHOSTUNREACH, EADDRNOTAVAIL, EACCES}},
  };
  for (const auto& [site, errors] : rows) {
    for (const int error : errors) {
      INFO("site " << int(site) << ", error " << error);
      RequireDialFails({{.site = site, .error = error}}, System(error));
    }
  }
  // Of the eventfd, of the socket that connects, of the connection that stands.
  for (const std::size_t first : {1, 2, 3}) {
    for (const int error : {ENOMEM, ENOSPC, EEXIST, ENOENT, EBADF}) {
      INFO("the " << first << ". epoll_ctl ADD, error " << error);
      RequireDialFails(
          {{.site = Site::kEpollCtl, .error = error, .first = first, .operation = EPOLL_CTL_ADD}},
          System(error));
    }
  }
  for (const int error : {EINVAL, ENOBUFS, ENOTCONN, ECONNRESET}) {
    INFO("getsockname, error " << error);
    RequireDialFails({{.site = Site::kGetSockName, .error = error, .times = Fault::kAlways}},
                     System(error));
  }
}

TEST_CASE("connect is called once, whatever it says", "[F1][F2][M31]") {
  for (const int error : {EAGAIN, ECONNREFUSED, ETIMEDOUT, ENETUNREACH, EHOSTUNREACH, EADDRNOTAVAIL,
                          ENOENT, EACCES, EPERM}) {
    CAPTURE(error);
    FaultPlan plan;
    plan.Add({.site = Site::kConnect, .error = error});
    RawListener listener;
    auto events = std::make_shared<EventRecorder>();
    const std::uint64_t connects = CallsOf(Site::kConnect);
    TestClient client(events, listener.address());
    CHECK(client.Wait() == System(error));
    CHECK(CallsOf(Site::kConnect) - connects == 1);
    CHECK(client->Stats().reason == CloseReason::kConnectFailed);
    CHECK(client.Finish(StopMode::kImmediately, System(error)) == "");
    CHECK(events->connections().empty());
  }
  for (const int error : {EINTR, EINPROGRESS}) {
    CAPTURE(error);
    FaultPlan plan;
    plan.Add({.site = Site::kConnect, .error = error, .after_call = true});
    RawListener listener;
    auto events = std::make_shared<EventRecorder>();
    const std::uint64_t connects = CallsOf(Site::kConnect);
    TestClient client(events, listener.address());
    RawPeer peer = listener.Accept();
    REQUIRE(peer.SendAll(Frame("x")));
    REQUIRE(events->WaitForPackets(1));
    CHECK(CallsOf(Site::kConnect) - connects == 1);
    CHECK(client.Finish() == "");
  }
}

TEST_CASE("options and a peer's name that fail do not keep a dial from its way", "[F2]") {
  for (const Site site : {Site::kSetSockOpt, Site::kGetPeerName}) {
    for (const int error : {EINVAL, ENOPROTOOPT, ENOBUFS, ENOTCONN}) {
      // That would say that the connection is not established yet.
      if (site == Site::kGetPeerName && error == ENOTCONN) continue;
      FaultPlan plan;
      plan.Add({.site = site, .error = error, .times = Fault::kAlways});
      const LogLines log;
      RawListener listener;
      auto events = std::make_shared<EventRecorder>();
      Options options;
      options.keep_alive = true;
      TestClient client(events, listener.address(), options);
      RawPeer peer = listener.Accept();
      REQUIRE(peer.SendAll(Frame("x")));
      REQUIRE(events->WaitForPackets(1));
      CHECK(plan.injected() > 0);
      CHECK((log.With("a TCP option was refused") > 0) == (site == Site::kSetSockOpt));
      CHECK(client.Finish() == "");
    }
  }
}

}  // namespace
}  // namespace xtcp::test
