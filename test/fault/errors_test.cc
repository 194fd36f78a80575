// What an error of one system call does to its own connection, and to no other.

#include <sys/epoll.h>

#include <atomic>
#include <catch2/catch.hpp>
#include <cerrno>
#include <chrono>
#include <memory>
#include <string>
#include <system_error>
#include <thread>
#include <utility>
#include <vector>

#include "support/event_recorder.h"
#include "support/fault_control.h"
#include "support/log_lines.h"
#include "support/raw_peer.h"
#include "support/test_protocol.h"
#include "support/test_server.h"

namespace xtcp::test {
namespace {

std::error_code System(int error) { return {error, std::system_category()}; }

// A server, a connection to which things happen, and others that must not notice.
struct Scene {
  explicit Scene(Options options = {}, const std::string& address = "127.0.0.1:0") {
    events->on_accept = [this](const ConnPtr& conn) {
      if (descriptor < 0) descriptor = conn->Descriptor();
    };
    events->on_recv = [](const ConnPtr& conn, std::string_view payload) {
      if (payload == "pause") conn->PauseRecv();
      static_cast<void>(conn->Send(Frame(payload)));
    };
    server = std::make_unique<TestServer>(events, options, address);
    victim = RawPeer(server->port());
    REQUIRE(WaitUntil([&] { return descriptor >= 0; }));
    for (int i = 0; i < 3; ++i) others.emplace_back(server->port());
    REQUIRE(events->WaitForAccepted(4));
  }

  bool OthersAnswer() {
    for (RawPeer& other : others) {
      if (!other.SendAll(Frame("still here")) || other.ReadFrame() != "still here") return false;
    }
    return true;
  }

  FaultPlan plan;
  std::shared_ptr<EventRecorder> events = std::make_shared<EventRecorder>();
  std::unique_ptr<TestServer> server;
  std::atomic<int> descriptor{-1};  // the victim's
  RawPeer victim;
  std::vector<RawPeer> others;
};

struct Case {
  Site site;
  CloseReason reason;
  std::vector<int> errors;
};

TEST_CASE("a failing call ends its own connection, and no other", "[F2][E2][E5][B1][M17]") {
  constexpr CloseReason kReset = CloseReason::kPeerReset, kSystem = CloseReason::kSystemError;
  const Case rows[] = {
      {Site::kRecv, kReset, {ECONNRESET, EPIPE}},
      {Site::kRecv, kSystem, {ETIMEDOUT, EHOSTUNREACH, ENETUNREACH, ENETDOWN, EBADF}},
      {Site::kSend, kReset, {ECONNRESET, EPIPE}},
      {Site::kSend, kSystem, {ETIMEDOUT, EHOSTUNREACH, ENETUNREACH, ENETDOWN}},
      {Site::kSendMsg, kReset, {ECONNRESET, EPIPE}},
      {Site::kSendMsg, kSystem, {ETIMEDOUT, EHOSTUNREACH, ENETUNREACH, ENETDOWN}},
      {Site::kEpollCtl, kSystem, {ENOMEM, ENOSPC, EEXIST, ENOENT, EBADF}},
  };
  for (const auto& [site, reason, errors] : rows) {
    for (const int error : errors) {
      CAPTURE(static_cast<int>(site), error);
      Scene scene;
      const int fd = scene.descriptor;
      const bool queues = site == Site::kSendMsg;  // what waits leaves by it
      if (queues) scene.plan.Add({.site = Site::kSend, .error = EAGAIN, .fd = fd});
      const int operation = site == Site::kEpollCtl ? EPOLL_CTL_MOD : Fault::kAny;
      scene.plan.Add({.site = site, .error = error, .fd = fd, .operation = operation});
      REQUIRE(scene.victim.SendAll(Frame(site == Site::kEpollCtl ? "pause" : "x")));
      REQUIRE(scene.events->WaitForClosed(1));
      const ConnStats stats = scene.events->conn(0)->Stats();
      CHECK(stats.reason == reason);
      CHECK(stats.error == System(error));
      CHECK(scene.plan.injected() == (queues ? 2 : 1));
      if (site == Site::kSend || queues) CHECK(stats.unsent_bytes() == 5);
      REQUIRE(scene.OthersAnswer());
      CHECK(scene.events->totals().closed == 1);
      CHECK(scene.server->Finish() == "");
    }
  }
}

TEST_CASE("short counts, EAGAIN and EINTR never show", "[F1][F2][B1][E4]") {
  constexpr std::size_t kAlways = Fault::kAlways;
  const std::vector<std::vector<Fault>> rows = {
      {{.site = Site::kRecv, .times = kAlways, .max_bytes = 1}},
      {{.site = Site::kRecv, .error = EAGAIN, .times = 20}},
      {{.site = Site::kRecv, .error = EINTR, .times = 20}},
      {{.site = Site::kSend, .times = kAlways, .max_bytes = 1}},
      {{.site = Site::kSend, .error = EAGAIN, .times = 20}},
      {{.site = Site::kSend, .error = EINTR, .times = 20}},
      // All of it by sendmsg.
      {{.site = Site::kSend, .error = EAGAIN, .times = kAlways},
       {.site = Site::kSendMsg, .times = kAlways, .max_bytes = 1}},
      {{.site = Site::kSend, .error = EAGAIN, .times = kAlways},
       {.site = Site::kSendMsg, .error = EAGAIN, .times = 20}},
      {{.site = Site::kSend, .error = EAGAIN, .times = kAlways},
       {.site = Site::kSendMsg, .error = EINTR, .times = 20}},
      {{.site = Site::kEpollWait, .error = EINTR, .times = 50}},
  };
  std::string stream;
  for (std::size_t i = 0; i < 100; ++i) stream += Frame(std::to_string(i));
  for (const std::vector<Fault>& faults : rows) {
    CAPTURE(static_cast<int>(faults.back().site), faults.back().error, faults.back().max_bytes);
    Scene scene;
    for (Fault fault : faults) {
      if (fault.site != Site::kEpollWait) fault.fd = scene.descriptor;
      scene.plan.Add(fault);
    }
    REQUIRE(scene.victim.SendAll(stream));
    scene.victim.HalfClose();
    std::string echo;
    REQUIRE(scene.victim.ReadAll(&echo) == End::kEof);
    CHECK(echo == stream);
    CHECK(scene.plan.injected() > 0);
    REQUIRE(scene.events->WaitForClosed(1));
    CHECK(scene.events->conn(0)->Stats().reason == CloseReason::kPeerClosed);
    CHECK(scene.events->conn(0)->Stats().unsent_bytes() == 0);
    REQUIRE(scene.OthersAnswer());
    CHECK(scene.server->Finish() == "");
  }
}

TEST_CASE("after a failed write what the peer had sent before is delivered", "[F2][M17]") {
  for (const int error : {EPIPE, ECONNRESET, ETIMEDOUT}) {
    CAPTURE(error);
    constexpr std::size_t kFrames = 20;
    Scene scene;
    // One frame a read, so that most of them are unread when the first answer fails.
    scene.plan.Add({.site = Site::kRecv,
                    .times = Fault::kAlways,
                    .fd = scene.descriptor,
                    .max_bytes = Frame("x").size()});
    scene.plan.Add({.site = Site::kSend, .error = error, .fd = scene.descriptor});
    std::string stream;
    for (std::size_t i = 0; i < kFrames; ++i) stream += Frame("x");
    REQUIRE(scene.victim.SendAll(stream));
    REQUIRE(scene.events->WaitForClosed(1));
    CHECK(scene.events->connection(0).packets == kFrames);
    CHECK(scene.events->conn(0)->Stats().error == System(error));
    // Only the first one was accepted.
    CHECK(scene.events->conn(0)->Stats().accepted_bytes == Frame("x").size());
    CHECK(scene.events->conn(0)->Stats().refused_sends == kFrames - 1);
    REQUIRE(scene.OthersAnswer());
    CHECK(scene.server->Finish() == "");
  }
}

TEST_CASE("a connection that cannot be watched is refused before kAccept", "[F2][E1]") {
  const std::size_t loops = GENERATE(1u, 2u);
  for (const int error : {ENOMEM, ENOSPC, EEXIST, ENOENT, EBADF}) {
    CAPTURE(loops, error);
    const LogLines log;
    Options options;
    options.loops = loops;
    Scene scene(options);
    scene.plan.Add({.site = Site::kEpollCtl, .error = error, .operation = EPOLL_CTL_ADD});
    RawPeer refused(scene.server->port());
    CHECK(refused.ReadAll() == End::kEof);
    CHECK(WaitUntil([&] { return (*scene.server)->Stats().refused == 1; }));
    CHECK((*scene.server)->Stats().accepted == 4);
    CHECK((*scene.server)->ConnectionCount() == 4);
    CHECK(log.With("a connection was refused") == 1);
    RawPeer next(scene.server->port());
    REQUIRE(scene.events->WaitForAccepted(5));
    REQUIRE(scene.OthersAnswer());
    CHECK(scene.server->Finish() == "");
  }
}

TEST_CASE("an accepted socket whose name is not told is refused", "[F2][E1][seen-28]") {
  for (const int error : {EINVAL, ENOPROTOOPT, ENOBUFS, ENOTCONN, ECONNRESET}) {
    CAPTURE(error);
    const LogLines log;
    Scene scene({}, "0.0.0.0:0");  // elsewhere the listener's own name is the socket's
    scene.plan.Add({.site = Site::kGetSockName, .error = error});
    RawPeer refused(scene.server->port());
    CHECK(refused.ReadAll() == End::kEof);
    CHECK((*scene.server)->Stats().refused == 1);
    CHECK(log.With("a connection was refused") == 1);
    RawPeer next(scene.server->port());
    REQUIRE(scene.events->WaitForAccepted(5));
    REQUIRE(scene.OthersAnswer());
    CHECK(scene.server->Finish() == "");
  }
}

TEST_CASE("options of accepted sockets that cannot be set are passed over", "[F2][seen-28]") {
  for (const int error : {EINVAL, ENOPROTOOPT, ENOBUFS, ECONNRESET}) {
    FaultPlan plan;
    const LogLines log;
    RawListener listener;
    auto events = std::make_shared<EventRecorder>();
    events->on_recv = Echo;
    Options options;
    options.user_timeout = std::chrono::seconds(1);
    Server server(WithDefaults(options, events));
    REQUIRE_FALSE(server.Adopt(listener.fd()));  // from which they are not inherited
    static_cast<void>(listener.Release());
    plan.Add({.site = Site::kSetSockOpt, .error = error, .times = Fault::kAlways});
    std::thread thread([&] { static_cast<void>(server.Serve()); });
    RawPeer peer(listener.port());
    CHECK(peer.SendAll(Frame("x")));
    CHECK(peer.ReadFrame() == "x");
    CHECK(plan.injected() == 2);
    CHECK(log.With("a TCP option was refused") == 2);
    CHECK(server.Stats().accept_errors == 1);
    CHECK(server.Stats().accepted == 1);
    static_cast<void>(server.Stop(StopMode::kImmediately));
    thread.join();
    CHECK(events->Verify() == "");
  }
}

TEST_CASE("calls at the end of a connection whose errors change nothing", "[F1][F2][E2]") {
  const std::vector<std::pair<Site, std::vector<int>>> rows = {
      {Site::kEpollCtl, {ENOMEM, ENOSPC, EEXIST, ENOENT, EBADF}},  // DEL
      {Site::kIoctlOutq, {ENOTCONN, EINVAL}},
      {Site::kClose, {EINTR, EIO}},
      {Site::kShutdown, {ENOTCONN, EINVAL}},
  };
  for (const auto& [site, errors] : rows) {
    for (const int error : errors) {
      CAPTURE(static_cast<int>(site), error);
      Scene scene;
      REQUIRE(scene.victim.SendAll(Frame("x")));
      REQUIRE(scene.victim.ReadFrame() == "x");
      scene.plan.Add({.site = site,
                      .error = error,
                      .fd = scene.descriptor,
                      .operation = site == Site::kEpollCtl ? EPOLL_CTL_DEL : Fault::kAny,
                      .after_call = site == Site::kClose});
      const std::uint64_t closes = CallsOf(Site::kClose);
      static_cast<void>(scene.events->conn(0)->Stop(StopMode::kGracefullyButNotWait));
      // Without our FIN the peer ends first.
      if (site != Site::kShutdown) CHECK(scene.victim.ReadAll() == End::kEof);
      scene.victim.HalfClose();
      REQUIRE(scene.events->WaitForClosed(1));
      CHECK(scene.victim.ReadAll() == End::kEof);
      const ConnStats stats = scene.events->conn(0)->Stats();
      CHECK(stats.reason == CloseReason::kLocalStop);
      CHECK_FALSE(stats.error);
      CHECK(stats.unacked_bytes == 0);
      CHECK(scene.plan.injected() == 1);
      CHECK(CallsOf(Site::kClose) - closes == 1);
      REQUIRE(scene.OthersAnswer());
      CHECK(scene.server->Finish() == "");
    }
  }
}

TEST_CASE("a failed write and a failed epoll_ctl in one turn end the connection once", "[F2][E2]") {
  FaultPlan plan;
  auto events = std::make_shared<EventRecorder>();
  std::atomic<int> descriptor{-1};
  events->on_accept = [&](const ConnPtr& conn) { descriptor = conn->Descriptor(); };
  events->on_recv = [&](const ConnPtr& conn, std::string_view) {
    static_cast<void>(conn->Send(std::string(1 << 20, 'x')));
  };
  TestServer server(events);
  RawPeer peer(server.port());
  REQUIRE(WaitUntil([&] { return descriptor >= 0; }));
  for (const Site site : {Site::kSend, Site::kSendMsg}) {
    plan.Add({.site = site, .error = EPIPE, .times = Fault::kAlways, .fd = descriptor});
  }
  plan.Add(
      {.site = Site::kEpollCtl, .error = ENOMEM, .fd = descriptor, .operation = EPOLL_CTL_MOD});
  REQUIRE(peer.SendAll(Frame("go")));
  REQUIRE(events->WaitForClosed(1));
  REQUIRE(server.Finish() == "");
}

}  // namespace
}  // namespace xtcp::test
