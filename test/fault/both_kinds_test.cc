// The errors of system calls on dialled connections as on accepted ones, and during a graceful stop.

#include <sys/epoll.h>
#include <xtcp/error.h>

#include <atomic>
#include <catch2/catch.hpp>
#include <cerrno>
#include <memory>
#include <string>
#include <system_error>
#include <vector>

#include "support/event_recorder.h"
#include "support/fake_names.h"
#include "support/fault_control.h"
#include "support/one_connection.h"
#include "support/raw_peer.h"
#include "support/stop_books.h"
#include "support/test_client.h"
#include "support/test_protocol.h"

namespace xtcp::test {
namespace {

std::error_code System(int error) { return {error, std::system_category()}; }

CloseReason ReasonOf(int error) {
  const bool reset = error == ECONNRESET || error == EPIPE;
  return reset ? CloseReason::kPeerReset : CloseReason::kSystemError;
}

// One connection whose descriptor the test knows.
struct Known {
  explicit Known(Kind kind) : one(kind, {}, "127.0.0.1:0", Recorder()) {
    REQUIRE(WaitUntil([&] { return descriptor >= 0; }));
  }

  std::shared_ptr<EventRecorder> Recorder() {
    auto events = std::make_shared<EventRecorder>();
    events->on_accept =
        events->on_connected = [this](const ConnPtr& conn) { descriptor = conn->Descriptor(); };
    events->on_recv = [](const ConnPtr& conn, std::string_view payload) {
      if (payload == "pause") conn->PauseRecv();
      static_cast<void>(conn->Send(Frame(payload)));
    };
    return events;
  }

  void MustEndWith(int error) {
    REQUIRE(one.events->WaitForClosed(1));
    const ConnStats stats = one.conn->Stats();
    CHECK(stats.reason == ReasonOf(error));
    CHECK(stats.error == System(error));
    CHECK(BookProblems(stats, one.peer.received(), false) == "");
    CHECK(one.conn->Send("x") == Errc::kClosed);
  }

  FaultPlan plan;
  std::atomic<int> descriptor{-1};
  OneConnection one;
};

struct Row {
  Site site;
  std::vector<int> errors;
};

const std::vector<Row> kRows = {
    {Site::kRecv, {ECONNRESET, ETIMEDOUT, EHOSTUNREACH, ENETDOWN, EPIPE}},
    {Site::kSend, {EPIPE, ECONNRESET, ETIMEDOUT, EHOSTUNREACH}},
    {Site::kSendMsg, {EPIPE, ECONNRESET, ETIMEDOUT, EHOSTUNREACH}},
    {Site::kEpollCtl, {ENOMEM, ENOSPC, EEXIST, ENOENT, EBADF}},  // MOD
};

TEST_CASE("a failing call ends a connection of either kind", "[F2][E2][E5][B1][M17][seen-28]") {
  const Kind kind = GENERATE(Kind::kAccepted, Kind::kDialled);
  for (const auto& [site, errors] : kRows) {
    for (const int error : errors) {
      CAPTURE(static_cast<int>(kind), static_cast<int>(site), error);
      Known known(kind);
      const int fd = known.descriptor;
      if (site == Site::kSendMsg) known.plan.Add({.site = Site::kSend, .error = EAGAIN, .fd = fd});
      const int operation = site == Site::kEpollCtl ? EPOLL_CTL_MOD : Fault::kAny;
      known.plan.Add({.site = site, .error = error, .fd = fd, .operation = operation});
      REQUIRE(known.one.peer.SendAll(Frame(site == Site::kEpollCtl ? "pause" : "x")));
      known.MustEndWith(error);
      REQUIRE(known.one.Finish() == "");
    }
  }
}

// A stop is under way: what is queued waits for a peer that does not read. The error is the end of it,
// and no cut; who waits is told.
TEST_CASE("a failing call ends a graceful stop of a connection of either kind",
          "[F2][E2][E5][B1][M19][M21][seen-28]") {
  const Kind kind = GENERATE(Kind::kAccepted, Kind::kDialled);
  const bool lingers = GENERATE(false, true);  // all is written, and our FIN is out
  for (const auto& [site, errors] : kRows) {
    if (lingers && site != Site::kRecv) continue;
    if (site == Site::kSend) continue;  // what waits leaves by sendmsg
    for (const int error : errors) {
      CAPTURE(static_cast<int>(kind), lingers, static_cast<int>(site), error);
      Known known(kind);
      const int fd = known.descriptor;
      if (!lingers) REQUIRE_FALSE(known.one.conn->Send(std::string(kTooMuch, 'x')));
      static_cast<void>(known.one.conn->Stop(StopMode::kGracefullyButNotWait));
      // The stop has been seen: what comes is discarded.
      REQUIRE(known.one.peer.SendAll(Frame("discarded")));
      REQUIRE(WaitUntil([&] { return known.one.conn->Stats().received_bytes > 0; }));
      const int operation = site == Site::kEpollCtl ? EPOLL_CTL_MOD : Fault::kAny;
      known.plan.Add({.site = site, .error = error, .fd = fd, .operation = operation});
      std::string some;
      if (site == Site::kRecv) {
        REQUIRE(known.one.peer.SendAll("more"));
      } else {
        // There is room to write again, and in the end nothing that waits for it.
        static_cast<void>(known.one.peer.ReadExactly(kTooMuch, &some));
      }
      known.MustEndWith(error);
      StopReport report;
      WithinDeadline("a stop",
                     [&] { report = known.one.conn->Stop(StopMode::kGracefullyAndWait); });
      CHECK(report.connections == 1);
      CHECK(report.cut == 0);
      CHECK(report.unsent_bytes == known.one.conn->Stats().unsent_bytes());
      REQUIRE(known.one.Finish() == "");
    }
  }
}

// --- What a socket says of itself. ---------------------------------------------------------------

constexpr int kPending[] = {ETIMEDOUT, ENETUNREACH, EHOSTUNREACH, EADDRNOTAVAIL, EACCES, ENETDOWN};

// The next connect is under way, and its end is this error.
void AddFailedConnect(FaultPlan& plan, int error) {
  plan.Add({.site = Site::kConnect, .error = EINPROGRESS, .after_call = true});
  plan.Add({.site = Site::kGetSockOpt, .error = error, .fake = true});
}

TEST_CASE("a connect that fails later says why", "[F2][M31][R5][seen-28]") {
  for (const int error : kPending) {
    CAPTURE(error);
    FaultPlan plan;
    AddFailedConnect(plan, error);
    RawListener listener;
    auto events = std::make_shared<EventRecorder>();
    TestClient client(events, listener.address());
    CHECK(client.Wait() == System(error));
    CHECK(client->Stats().reason == CloseReason::kConnectFailed);
    CHECK(client->Stats().error == System(error));
    CHECK(client.Finish(StopMode::kImmediately, System(error)) == "");
    CHECK(events->connections().empty());
  }
}

TEST_CASE("whatever ends the connect to one address, the next one is tried", "[F2][M32][seen-28]") {
  for (const int error : kPending) {
    CAPTURE(error);
    FaultPlan plan;
    const FakeNames names({"127.0.0.1", "127.0.0.1"});
    AddFailedConnect(plan, error);
    RawListener listener;
    auto events = std::make_shared<EventRecorder>();
    TestClient client(events, "name.test:" + std::to_string(listener.port()));
    REQUIRE(events->WaitForConnected(1));
    CHECK(client.Finish() == "");
  }
}

TEST_CASE("a paused connection ends with the error that its socket has",
          "[F2][M17][M18][seen-28]") {
  const Kind kind = GENERATE(Kind::kAccepted, Kind::kDialled);
  for (const int error : {ECONNRESET, ETIMEDOUT, EHOSTUNREACH, ENETDOWN}) {
    CAPTURE(static_cast<int>(kind), error);
    Known known(kind);
    REQUIRE(known.one.peer.SendAll(Frame("pause")));
    std::string echo;
    REQUIRE(known.one.peer.ReadExactly(Frame("pause").size(), &echo) == End::kOpen);
    known.plan.Add({.site = Site::kGetSockOpt, .error = error, .fake = true});
    known.one.peer.Reset();
    known.MustEndWith(error);
    REQUIRE(known.one.Finish() == "");
  }
}

TEST_CASE("a dial whose peer has no name ends in order", "[F2][M31][R5][seen-28]") {
  // Either it is established for all that, or it says why not.
  FaultPlan plan;
  plan.Add({.site = Site::kGetPeerName, .error = ECONNRESET, .times = Fault::kAlways});
  RawListener listener;
  auto events = std::make_shared<EventRecorder>();
  TestClient client(events, listener.address());
  RawPeer peer = listener.Accept();
  peer.Close();
  const std::error_code error = client.Wait();
  CHECK((!error || error == System(ECONNRESET)));
  CHECK(events->totals().connected == (error ? 0 : 1));
  CHECK(client.Finish(StopMode::kImmediately, error) == "");
}

}  // namespace
}  // namespace xtcp::test
