// A thousand signals a second, none of which the library may show.

#include <pthread.h>
#include <signal.h>
#include <sys/time.h>

#include <atomic>
#include <catch2/catch.hpp>
#include <chrono>
#include <cstddef>
#include <memory>
#include <string>
#include <thread>

#include "support/event_recorder.h"
#include "support/random.h"
#include "support/raw_peer.h"
#include "support/test_client.h"
#include "support/test_protocol.h"
#include "support/test_server.h"

namespace xtcp::test {
namespace {

std::atomic<int> signals{0};

// A thousand times a second, for as long as one lives, SIGALRM interrupts a thread of this process
// that does not block it: system calls then return EINTR, since the handler asks for no restart. The
// thread that makes it, and those that it starts, block it.
class SignalStorm {
 public:
  SignalStorm() {
    signals = 0;
    struct sigaction action {};
    action.sa_handler = [](int) { signals.fetch_add(1, std::memory_order_relaxed); };
    ::sigaction(SIGALRM, &action, &before_);
    Block(SIG_BLOCK);
    const itimerval each_ms{{0, 1000}, {0, 1000}};
    ::setitimer(ITIMER_REAL, &each_ms, nullptr);
  }
  ~SignalStorm() {
    const itimerval never{};
    ::setitimer(ITIMER_REAL, &never, nullptr);
    // One may be on its way: it goes nowhere.
    struct sigaction ignore {};
    ignore.sa_handler = SIG_IGN;
    ::sigaction(SIGALRM, &ignore, nullptr);
    Block(SIG_UNBLOCK);
    ::sigaction(SIGALRM, &before_, nullptr);
  }
  SignalStorm(const SignalStorm&) = delete;
  SignalStorm& operator=(const SignalStorm&) = delete;

  // On a thread that is to be hit.
  static void Suffer() { Block(SIG_UNBLOCK); }

 private:
  static void Block(int how) {
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGALRM);
    ::pthread_sigmask(how, &set, nullptr);
  }

  struct sigaction before_ {};
};

// Chunks go to and fro, one for each millisecond or so, until 3,000 signals were taken.
void Transfer(RawPeer& peer) {
  constexpr int kSignals = 3'000;
  Random random(12);
  bool same = true;
  while (same && signals < kSignals) {
    const std::string chunk = Frame(random.Bytes(random.Between(1, 16'000)));
    std::string echo;
    REQUIRE(peer.SendAll(chunk));
    REQUIRE(peer.ReadExactly(chunk.size(), &echo) == End::kOpen);
    same = echo == chunk;
    const int taken = signals;
    WaitUntil([&] { return signals != taken; });
  }
  CHECK(same);
  CHECK(signals >= kSignals);
}

TEST_CASE("a thousand signals a second do not change a byte: a server",
          "[M30][F1][X7][E4][seen-29]") {
  const SignalStorm storm;
  auto events = std::make_shared<EventRecorder>();
  events->keep_payloads = false;
  events->on_recv = [](const ConnPtr& conn, std::string_view payload) {
    static_cast<void>(conn->Send(Frame(payload)));
  };
  Server server(WithDefaults({}, events));
  REQUIRE_FALSE(server.Listen("127.0.0.1:0"));
  std::error_code served;
  std::thread serving([&] {
    SignalStorm::Suffer();
    served = server.Serve();
  });
  {
    RawPeer peer(server.Addresses().at(0).Port());
    Transfer(peer);
    peer.Close();
  }
  CHECK(events->WaitForClosed(1));
  server.Stop(StopMode::kGracefullyButNotWait);
  serving.join();
  CHECK_FALSE(served);
  CHECK(events->connection().at_closed.reason == CloseReason::kPeerClosed);
  CHECK(server.Stats().accept_errors == 0);
  REQUIRE(events->Verify() == "");
}

TEST_CASE("a thousand signals a second do not change a byte: a dialled connection",
          "[M30][F1][X7][E4][seen-29]") {
  const SignalStorm storm;
  auto events = std::make_shared<EventRecorder>();
  events->keep_payloads = false;
  events->on_recv = [](const ConnPtr& conn, std::string_view payload) {
    static_cast<void>(conn->Send(Frame(payload)));
  };
  RawListener listener;
  const ConnPtr conn = NewConn(WithDefaults({}, events));
  std::error_code dialled;
  std::thread dialling([&] {
    SignalStorm::Suffer();
    dialled = conn->DialAndServe(listener.address());
  });
  RawPeer peer = listener.Accept();
  Transfer(peer);
  peer.Close();
  dialling.join();
  CHECK_FALSE(dialled);
  CHECK(conn->Stats().reason == CloseReason::kPeerClosed);
  REQUIRE(events->Verify() == "");
}

}  // namespace
}  // namespace xtcp::test
