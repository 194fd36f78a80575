// What an error of one system call does to its own connection, and to no other.

#include <sys/epoll.h>

#include <catch2/catch.hpp>
#include <cerrno>
#include <memory>
#include <string>
#include <vector>

#include "support/event_recorder.h"
#include "support/fault_control.h"
#include "support/raw_peer.h"
#include "support/test_protocol.h"
#include "support/test_server.h"

namespace xtcp::test {
namespace {

struct Case {
  Site site;
  int error;
  int operation;
  CloseReason reason;
};

TEST_CASE("a failing call ends its own connection, and no other", "[F2][E2][E5][B1]") {
  const Case cases[] = {
      {Site::kRecv, ECONNRESET, Fault::kAny, CloseReason::kPeerReset},
      {Site::kRecv, ETIMEDOUT, Fault::kAny, CloseReason::kSystemError},
      {Site::kRecv, EHOSTUNREACH, Fault::kAny, CloseReason::kSystemError},
      {Site::kSend, EPIPE, Fault::kAny, CloseReason::kPeerReset},
      {Site::kSend, ECONNRESET, Fault::kAny, CloseReason::kPeerReset},
      {Site::kSend, ENETDOWN, Fault::kAny, CloseReason::kSystemError},
      {Site::kEpollCtl, ENOMEM, EPOLL_CTL_MOD, CloseReason::kSystemError},
  };
  for (const Case& c : cases) {
    CAPTURE(static_cast<int>(c.site), c.error);
    FaultPlan plan;
    auto events = std::make_shared<EventRecorder>();
    std::atomic<int> descriptor{-1};
    events->on_accept = [&](const ConnPtr& conn) {
      if (descriptor < 0) descriptor = conn->Descriptor();
    };
    events->on_recv = [&](const ConnPtr& conn, std::string_view payload) {
      if (payload == "pause") conn->PauseRecv();
      static_cast<void>(conn->Send(Frame(payload)));
    };
    TestServer server(events);
    RawPeer victim(server.port());
    REQUIRE(WaitUntil([&] { return descriptor >= 0; }));
    std::vector<RawPeer> others;
    for (int i = 0; i < 10; ++i) others.emplace_back(server.port());
    REQUIRE(events->WaitForAccepted(11));
    plan.Add({.site = c.site, .error = c.error, .fd = descriptor, .operation = c.operation});
    REQUIRE(victim.SendAll(Frame(c.site == Site::kEpollCtl ? "pause" : "x")));
    REQUIRE(events->WaitForClosed(1));
    const ConnStats stats = events->conn(0)->Stats();
    REQUIRE(stats.reason == c.reason);
    REQUIRE(stats.error == std::error_code(c.error, std::system_category()));
    REQUIRE(plan.injected() == 1);
    for (RawPeer& other : others) {
      REQUIRE(other.SendAll(Frame("still here")));
      REQUIRE(other.ReadFrame() == "still here");
    }
    REQUIRE(events->totals().closed == 1);
    REQUIRE(server.Finish() == "");
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
