#include "server/signal_handlers.h"

#include <signal.h>
#include <sys/eventfd.h>

#include <catch2/catch.hpp>
#include <cstdint>
#include <vector>

#include "socket/unique_fd.h"

namespace xtcp::internal {
namespace {

void OwnHandler(int) {}

// What a signal does while one lives; then what it did before.
struct Disposition {
  Disposition(int number, void (*handler)(int)) : signal(number) {
    struct sigaction action {};
    action.sa_handler = handler;
    ::sigaction(signal, &action, &before);
  }
  ~Disposition() { ::sigaction(signal, &before, nullptr); }
  Disposition(const Disposition&) = delete;
  Disposition& operator=(const Disposition&) = delete;

  const int signal;
  struct sigaction before {};
};

void (*HandlerOf(int signal))(int) {
  struct sigaction action {};
  ::sigaction(signal, nullptr, &action);
  return action.sa_handler;
}

bool IsBlocked(int signal) {
  sigset_t mask;
  ::pthread_sigmask(SIG_SETMASK, nullptr, &mask);
  return ::sigismember(&mask, signal) == 1;
}

// A count with its descriptor.
struct Counted {
  Counted() { count.fd = fd.get(); }
  // How often it was written since the last time.
  std::uint64_t Written() const {
    std::uint64_t written = 0;
    return ::eventfd_read(fd.get(), &written) == 0 ? written : 0;
  }
  const UniqueFd fd{::eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC)};
  SignalCount count;
};

TEST_CASE("one set of handlers is claimed at a time", "[M64]") {
  SignalHandlers first, second;
  CHECK(first.Claim());
  CHECK_FALSE(second.Claim());
  second.Remove();  // it has nothing to give up
  CHECK_FALSE(second.Claim());
  first.Remove();
  CHECK(second.Claim());
}

TEST_CASE("a claim ends with its object", "[M64]") {
  {
    SignalHandlers first;
    REQUIRE(first.Claim());
  }
  SignalHandlers second;
  CHECK(second.Claim());
}

TEST_CASE("a signal is counted and written while handlers are installed, and then as before",
          "[M64]") {
  const Disposition own(SIGUSR1, OwnHandler);
  Counted c;
  SignalHandlers handlers;
  REQUIRE(handlers.Claim());
  REQUIRE_FALSE(handlers.Install({SIGUSR1}, c.count));
  ::raise(SIGUSR1);
  ::raise(SIGUSR1);
  CHECK(c.count.count.load() == 2);
  CHECK(c.Written() == 2);
  handlers.Remove();
  CHECK(HandlerOf(SIGUSR1) == OwnHandler);
  ::raise(SIGUSR1);
  CHECK(c.count.count.load() == 2);
}

TEST_CASE("a signal that is named twice is put back to what it was", "[M64]") {
  const Disposition own(SIGUSR1, OwnHandler);
  Counted c;
  SignalHandlers handlers;
  REQUIRE(handlers.Claim());
  REQUIRE_FALSE(handlers.Install({SIGUSR1, SIGUSR1}, c.count));
  ::raise(SIGUSR1);
  CHECK(c.count.count.load() == 1);
  handlers.Remove();
  CHECK(HandlerOf(SIGUSR1) == OwnHandler);
}

TEST_CASE("handlers that cannot all be installed change nothing", "[M64][F2]") {
  const Disposition own(SIGUSR1, OwnHandler);
  for (const int bad : {SIGKILL, 0, 1000}) {
    CAPTURE(bad);
    Counted c;
    SignalHandlers handlers;
    REQUIRE(handlers.Claim());
    CHECK(handlers.Install({SIGUSR1, bad}, c.count));
    CHECK(HandlerOf(SIGUSR1) == OwnHandler);
    ::raise(SIGUSR1);
    CHECK(c.count.count.load() == 0);
  }
}

TEST_CASE("a signal that is blocked and pending is counted when handlers come, and blocked after",
          "[M64]") {
  const Disposition own(SIGUSR2, OwnHandler);
  sigset_t set, before;
  ::sigemptyset(&set);
  ::sigaddset(&set, SIGUSR2);
  ::pthread_sigmask(SIG_BLOCK, &set, &before);
  ::raise(SIGUSR2);
  Counted c;
  SignalHandlers handlers;
  REQUIRE(handlers.Claim());
  REQUIRE_FALSE(handlers.Install({SIGUSR2}, c.count));
  CHECK(c.count.count.load() == 1);
  CHECK_FALSE(IsBlocked(SIGUSR2));
  handlers.Remove();
  CHECK(IsBlocked(SIGUSR2));
  ::pthread_sigmask(SIG_SETMASK, &before, nullptr);
}

TEST_CASE("a signal that is ignored gets no handler", "[M64]") {
  const Disposition ignored(SIGUSR1, SIG_IGN);
  Counted c;
  SignalHandlers handlers;
  REQUIRE(handlers.Claim());
  REQUIRE_FALSE(handlers.Install({SIGUSR1}, c.count));
  CHECK(HandlerOf(SIGUSR1) == SIG_IGN);
}

}  // namespace
}  // namespace xtcp::internal
