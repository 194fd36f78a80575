// Sockets that are accepted, dialled and connected.

#include "socket/socket.h"

#include <fcntl.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <unistd.h>
#include <xtcp/bytes.h>
#include <xtcp/error.h>

#include <array>
#include <atomic>
#include <catch2/catch.hpp>
#include <cerrno>
#include <csignal>
#include <cstring>
#include <fstream>
#include <limits>
#include <string>
#include <string_view>
#include <thread>
#include <vector>

#include "support/deadline.h"
#include "support/raw_peer.h"
#include "unit/socket/sockets.h"

namespace xtcp::internal {
namespace {

using namespace std::chrono_literals;
using xtcp::test::HasIpv6;

// ---- Accepting

TEST_CASE("an accepted socket is non-blocking, close-on-exec, and knows its peer", "[R5]") {
  const UniqueFd listener = OpenAt("127.0.0.1:0");
  const AcceptResult none = Accept(listener.get());
  CHECK_FALSE(none.fd.valid());
  CHECK(none.error == EAGAIN);

  UniqueFd dialled;
  bool in_progress = false;
  REQUIRE_FALSE(StartConnect(LocalOf(listener), kTcp, &dialled, &in_progress));
  REQUIRE(IsReadyFor(listener, POLLIN));
  const AcceptResult one = Accept(listener.get());
  REQUIRE(one.fd.valid());
  CHECK(one.error == 0);
  CHECK(FromBirth(one.fd));
  CHECK(Text(one.peer) == Text(LocalOf(dialled)));
  SocketAddress peer;
  CHECK_FALSE(PeerAddressOf(one.fd.get(), &peer));
  CHECK(Text(peer) == Text(LocalOf(dialled)));
  CHECK(Accept(listener.get()).error == EAGAIN);
}

TEST_CASE("an unnamed Unix peer reads as 'unix:'") {
  const UniqueFd listener = OpenAt("unix:@xtcp-peer-" + std::to_string(::getpid()));
  UniqueFd dialled;
  bool in_progress = true;
  REQUIRE_FALSE(StartConnect(LocalOf(listener), kTcp, &dialled, &in_progress));
  CHECK_FALSE(in_progress);
  const AcceptResult one = Accept(listener.get());
  REQUIRE(one.fd.valid());
  CHECK(Text(one.peer) == "unix:");
}

TEST_CASE("a descriptor that accepts nothing says why") {
  const UniqueFd file(::open("/dev/null", O_RDONLY));
  CHECK(Accept(file.get()).error == ENOTSOCK);
  CHECK(Accept(-1).error == EBADF);
  const UniqueFd stream(::socket(AF_INET, SOCK_STREAM, 0));
  CHECK(Accept(stream.get()).error == EINVAL);
}

TEST_CASE("every error of accept has its outcome", "[F2][M37]") {
  CHECK(ClassifyAccept(0) == AcceptOutcome::kConnection);
  CHECK(ClassifyAccept(EAGAIN) == AcceptOutcome::kDone);
  for (const int error : {EINTR, ECONNABORTED, ECONNRESET, EPROTO, EPERM, ETIMEDOUT, ENETDOWN,
                          ENOPROTOOPT, EHOSTDOWN, ENONET, EHOSTUNREACH, EOPNOTSUPP, ENETUNREACH}) {
    INFO(std::strerror(error));
    CHECK(ClassifyAccept(error) == AcceptOutcome::kNext);
  }
  for (const int error : {EMFILE, ENFILE, ENOBUFS, ENOMEM}) {
    INFO(std::strerror(error));
    CHECK(ClassifyAccept(error) == AcceptOutcome::kExhausted);
  }
  for (const int error : {EBADF, EINVAL, ENOTSOCK}) {
    INFO(std::strerror(error));
    CHECK(ClassifyAccept(error) == AcceptOutcome::kDead);
  }
  // What is not in the table must neither spin nor kill.
  for (const int error : {EFAULT, EIO, 4095}) {
    CHECK(ClassifyAccept(error) == AcceptOutcome::kExhausted);
  }
}

// ---- Connecting

TEST_CASE("a dialled socket is non-blocking, close-on-exec, and has its options", "[R5]") {
  const UniqueFd listener = OpenAt("127.0.0.1:0");
  UniqueFd fd;
  bool in_progress = false;
  TcpOptions options;
  options.keep_alive = true;
  REQUIRE_FALSE(StartConnect(LocalOf(listener), options, &fd, &in_progress));
  CHECK(in_progress);
  CHECK(FromBirth(fd));
  CHECK(Option(fd, IPPROTO_TCP, TCP_NODELAY) == 1);
  CHECK(Option(fd, SOL_SOCKET, SO_KEEPALIVE) == 1);
  REQUIRE(IsReadyFor(fd, POLLOUT));
  CHECK(TakeSocketError(fd.get()) == 0);
}

TEST_CASE("a refused connect is told once", "[F2]") {
  std::uint16_t port;
  { port = PortOf(OpenAt("127.0.0.1:0")); }
  UniqueFd fd;
  bool in_progress = false;
  REQUIRE_FALSE(
      StartConnect(AddressOf("127.0.0.1:" + std::to_string(port)), kTcp, &fd, &in_progress));
  REQUIRE(in_progress);
  REQUIRE(IsReadyFor(fd, POLLOUT));
  CHECK(TakeSocketError(fd.get()) == ECONNREFUSED);
  CHECK(TakeSocketError(fd.get()) == 0);
}

TEST_CASE("a connect that fails at once is the system's error, and leaves nothing", "[F2]") {
  UniqueFd fd;
  bool in_progress = false;
  CHECK(StartConnect(AddressOf("255.255.255.255:80"), kTcp, &fd, &in_progress));
  CHECK(StartConnect(AddressOf("unix:/no/such/socket"), kTcp, &fd, &in_progress) ==
        std::error_code(ENOENT, std::system_category()));
  CHECK(StartConnect(AddressOf("unix:@xtcp-nobody-" + std::to_string(::getpid())), kTcp, &fd,
                     &in_progress) == std::error_code(ECONNREFUSED, std::system_category()));
  CHECK_FALSE(fd.valid());
}

TEST_CASE("TakeSocketError tells why it could not ask", "[F2]") {
  CHECK(TakeSocketError(-1) == EBADF);
  const UniqueFd file(::open("/dev/null", O_RDONLY));
  CHECK(TakeSocketError(file.get()) == ENOTSOCK);
}

TEST_CASE("a socket that is connected to itself has failed, and frees its port", "[M31][seen-8]") {
  // Bound first and connected to the same port: what chance does to a dial in the ephemeral range.
  UniqueFd self(::socket(AF_INET, SOCK_STREAM, 0));
  const SocketAddress any = AddressOf("127.0.0.1:0");
  REQUIRE(::bind(self.get(), any.get(), any.size) == 0);
  const SocketAddress address = LocalOf(self);
  REQUIRE(::connect(self.get(), address.get(), address.size) == 0);
  const ConnectResult result = FinishConnect(self.get());
  CHECK(result.outcome == ConnectOutcome::kFailed);
  CHECK(result.error == ECONNREFUSED);
  self.Reset();
  // Not even a socket without SO_REUSEADDR finds it in TIME_WAIT.
  const UniqueFd next(::socket(AF_INET, SOCK_STREAM, 0));
  CHECK(::bind(next.get(), address.get(), address.size) == 0);

  // Two unnamed Unix sockets have equal addresses and are two all the same.
  std::array<int, 2> fds{};
  REQUIRE(::socketpair(AF_UNIX, SOCK_STREAM, 0, fds.data()) == 0);
  CHECK(FinishConnect(fds[0]).outcome == ConnectOutcome::kEstablished);
  ::close(fds[0]);
  ::close(fds[1]);
}

TEST_CASE("what became of a connect", "[M31][seen-6][seen-7]") {
  Pair pair = Connect();
  CHECK(FinishConnect(pair.dialled.get()).outcome == ConnectOutcome::kEstablished);
  CHECK(FinishConnect(-1).error == EBADF);

  SECTION("writable is not connected") {
    const UniqueFd fresh(::socket(AF_INET, SOCK_STREAM, 0));
    CHECK(FinishConnect(fresh.get()).outcome == ConnectOutcome::kInProgress);
  }
  SECTION("a reset after the handshake came to an established connection") {
    const bool fin_first = GENERATE(false, true);
    CAPTURE(fin_first);
    if (fin_first) REQUIRE(::shutdown(pair.accepted.get(), SHUT_WR) == 0);
    const linger reset{1, 0};
    ::setsockopt(pair.accepted.get(), SOL_SOCKET, SO_LINGER, &reset, sizeof reset);
    pair.accepted.Reset();
    REQUIRE(IsReadyFor(pair.dialled, POLLERR));
    const ConnectResult result = FinishConnect(pair.dialled.get());
    CHECK(result.outcome == ConnectOutcome::kEstablished);
    CHECK(result.error == (fin_first ? EPIPE : ECONNRESET));
  }
}

TEST_CASE("only IPv4 and IPv6 are TCP") {
  CHECK(IsTcp(AddressOf("127.0.0.1:80").get()));
  CHECK(IsTcp(AddressOf("[::1]:80").get()));
  CHECK_FALSE(IsTcp(AddressOf("unix:/a").get()));
  CHECK_FALSE(IsTcp(SocketAddress().get()));
}

// ---- Connected

TEST_CASE("TCP options reach the socket") {
  const UniqueFd fd(::socket(AF_INET, SOCK_STREAM, 0));
  TcpOptions options;
  CHECK(ApplyTcpOptions(fd.get(), options) == 0);
  CHECK(Option(fd, IPPROTO_TCP, TCP_NODELAY) == 1);
  CHECK(Option(fd, SOL_SOCKET, SO_KEEPALIVE) == 0);
  CHECK(Option(fd, IPPROTO_TCP, TCP_USER_TIMEOUT) == 0);
  const int default_idle = Option(fd, IPPROTO_TCP, TCP_KEEPIDLE);

  options.no_delay = false;
  CHECK(ApplyTcpOptions(fd.get(), options) == 0);
  CHECK(Option(fd, IPPROTO_TCP, TCP_NODELAY) == 0);

  options.keep_alive = true;
  CHECK(ApplyTcpOptions(fd.get(), options) == 0);
  CHECK(Option(fd, SOL_SOCKET, SO_KEEPALIVE) == 1);
  CHECK(Option(fd, IPPROTO_TCP, TCP_KEEPIDLE) == default_idle);

  options.user_timeout = 1234ms;
  CHECK(ApplyTcpOptions(fd.get(), options) == 0);
  CHECK(Option(fd, IPPROTO_TCP, TCP_USER_TIMEOUT) == 1234);
  options.user_timeout = std::chrono::milliseconds(std::numeric_limits<int>::max());
  CHECK(ApplyTcpOptions(fd.get(), options) == 0);
  CHECK(Option(fd, IPPROTO_TCP, TCP_USER_TIMEOUT) == std::numeric_limits<int>::max());
}

TEST_CASE("an accepted socket has the options of its listener") {
  ListenOptions options = kListen;
  options.tcp.no_delay = true;
  options.tcp.keep_alive = true;
  options.tcp.keep_alive_period = 7s;
  options.tcp.user_timeout = 1234ms;
  UniqueFd listener;
  REQUIRE_FALSE(OpenListener(AddressOf("127.0.0.1:0"), false, options, &listener));
  UniqueFd dialled;
  bool in_progress = false;
  REQUIRE_FALSE(StartConnect(LocalOf(listener), kTcp, &dialled, &in_progress));
  REQUIRE(IsReadyFor(listener, POLLIN));
  const UniqueFd accepted = Accept(listener.get()).fd;
  REQUIRE(accepted.valid());
  CHECK(Option(accepted, IPPROTO_TCP, TCP_NODELAY) == 1);
  CHECK(Option(accepted, SOL_SOCKET, SO_KEEPALIVE) == 1);
  CHECK(Option(accepted, IPPROTO_TCP, TCP_KEEPIDLE) == 7);
  CHECK(Option(accepted, IPPROTO_TCP, TCP_USER_TIMEOUT) == 1234);
}

TEST_CASE("a keep-alive period is in whole seconds, rounded up") {
  const UniqueFd fd(::socket(AF_INET, SOCK_STREAM, 0));
  struct {
    std::chrono::milliseconds period;
    int seconds;
  } const table[] = {{1ms, 1},    {999ms, 1}, {1000ms, 1},     {1001ms, 2},
                     {1500ms, 2}, {30s, 30},  {32'767s, 32767}};
  for (const auto& [period, seconds] : table) {
    TcpOptions options;
    options.keep_alive = true;
    options.keep_alive_period = period;
    CHECK(ApplyTcpOptions(fd.get(), options) == 0);
    CHECK(Option(fd, IPPROTO_TCP, TCP_KEEPIDLE) == seconds);
    CHECK(Option(fd, IPPROTO_TCP, TCP_KEEPINTVL) == seconds);
  }
}

TEST_CASE("options that the kernel refuses are counted", "[F2]") {
  TcpOptions options;
  CHECK(ApplyTcpOptions(-1, options) == 1);
  options.keep_alive = true;
  options.keep_alive_period = 1s;
  options.user_timeout = 1s;
  CHECK(ApplyTcpOptions(-1, options) == 5);
}

TEST_CASE("addresses of what is no connected socket are errors", "[F2]") {
  SocketAddress address;
  CHECK(LocalAddressOf(-1, &address) == std::error_code(EBADF, std::system_category()));
  const UniqueFd stream(::socket(AF_INET, SOCK_STREAM, 0));
  CHECK(PeerAddressOf(stream.get(), &address) == std::error_code(ENOTCONN, std::system_category()));
}

std::string Receive(const UniqueFd& fd) {
  if (!IsReadyFor(fd, POLLIN)) return "nothing came";
  std::array<std::byte, 64> buffer{};
  const ssize_t size = RecvSome(fd.get(), buffer);
  if (size < 0) return std::strerror(errno);
  return {reinterpret_cast<const char*>(buffer.data()), static_cast<std::size_t>(size)};
}

TEST_CASE("what is sent is received, and the FIN reads as nothing") {
  const Pair pair = Connect();
  std::array<std::byte, 8> buffer{};
  CHECK(RecvSome(pair.accepted.get(), buffer) == -1);
  CHECK(errno == EAGAIN);

  CHECK(SendSome(pair.dialled.get(), AsBytes("hello")) == 5);
  CHECK(Receive(pair.accepted) == "hello");

  std::string first = "one ";
  std::string second = "two";
  std::array<iovec, 2> parts{{{first.data(), first.size()}, {second.data(), second.size()}}};
  CHECK(SendSome(pair.dialled.get(), parts.data(), 2) == 7);
  CHECK(Receive(pair.accepted) == "one two");

  CHECK(ShutdownWrite(pair.dialled.get()));
  CHECK(Receive(pair.accepted).empty());
}

TEST_CASE("sending to a peer that is gone is EPIPE, and no signal", "[M30][X7][F3]") {
  struct sigaction old {};
  struct sigaction fatal {};
  fatal.sa_handler = SIG_DFL;
  REQUIRE(::sigaction(SIGPIPE, &fatal, &old) == 0);
  std::array<int, 2> fds{};
  REQUIRE(::socketpair(AF_UNIX, SOCK_STREAM, 0, fds.data()) == 0);
  ::close(fds[1]);
  const UniqueFd fd(fds[0]);
  CHECK(SendSome(fd.get(), AsBytes("x")) == -1);
  CHECK(errno == EPIPE);
  iovec part{fds.data(), 1};
  CHECK(SendSome(fd.get(), &part, 1) == -1);
  CHECK(errno == EPIPE);
  ::sigaction(SIGPIPE, &old, nullptr);
}

TEST_CASE("shutting down what is not connected fails quietly", "[F2]") {
  const UniqueFd stream(::socket(AF_INET, SOCK_STREAM, 0));
  CHECK_FALSE(ShutdownWrite(stream.get()));
  CHECK_FALSE(ShutdownWrite(-1));
}

TEST_CASE("unacknowledged bytes are counted until the peer's kernel has them", "[B1][M23]") {
  const Pair pair = Connect();
  CHECK(UnackedBytes(pair.dialled.get()) == 0);
  // More than the peer's kernel takes, so that some must remain.
  const std::string block(1 << 20, 'x');
  ssize_t total = 0;
  for (ssize_t sent; (sent = SendSome(pair.dialled.get(), AsBytes(block))) > 0;) total += sent;
  CHECK(UnackedBytes(pair.dialled.get()) > 0);
  CHECK(UnackedBytes(pair.dialled.get()) <= static_cast<std::uint64_t>(total));

  CHECK(ShutdownWrite(pair.dialled.get()));
  std::vector<std::byte> sink(1 << 16);
  ssize_t received = 0;
  while (IsReadyFor(pair.accepted, POLLIN)) {
    const ssize_t size = RecvSome(pair.accepted.get(), sink);
    if (size <= 0) break;
    received += size;
  }
  CHECK(received == total);
  CHECK(xtcp::test::WaitUntil([&] { return UnackedBytes(pair.dialled.get()) == 0; }));

  CHECK(UnackedBytes(-1) == 0);
  const UniqueFd file(::open("/dev/null", O_RDONLY));
  CHECK(UnackedBytes(file.get()) == 0);
}

TEST_CASE("a FIN that is not acknowledged counts as one byte", "[B1][M23]") {
  // A peer whose kernel takes nothing more: its window is full, so the FIN stays behind.
  const Pair pair = Connect();
  const std::string block(1 << 20, 'x');
  while (SendSome(pair.dialled.get(), AsBytes(block)) > 0) {
  }
  // Until the window is full and nothing moves any more.
  std::uint64_t before = 0;
  int still = 0;
  REQUIRE(xtcp::test::WaitUntil([&] {
    const std::uint64_t now = UnackedBytes(pair.dialled.get());
    still = now == before ? still + 1 : 0;
    before = now;
    return still == 50;
  }));
  REQUIRE(ShutdownWrite(pair.dialled.get()));
  CHECK(UnackedBytes(pair.dialled.get()) == before + 1);
}

std::atomic<int> signals_seen{0};

TEST_CASE("a signal does not interrupt receiving or sending", "[F1]") {
  // Blocking sockets, so that the calls wait and the signals find them there.
  std::array<int, 2> fds{};
  REQUIRE(::socketpair(AF_UNIX, SOCK_STREAM, 0, fds.data()) == 0);
  const UniqueFd one(fds[0]);
  const UniqueFd other(fds[1]);
  struct sigaction old {};
  struct sigaction count {};
  count.sa_handler = [](int) { ++signals_seen; };  // without SA_RESTART
  REQUIRE(::sigaction(SIGUSR1, &count, &old) == 0);

  const std::string block(1 << 20, 'x');
  ssize_t received = 0;
  ssize_t sent = 0;
  int send_error = 0;
  int recv_error = 0;
  std::atomic<int> stage{0};
  std::thread worker([&] {
    std::array<std::byte, 8> buffer{};
    received = RecvSome(one.get(), buffer);
    if (received < 0) recv_error = errno;
    stage = 1;
    // Far more than the buffers hold: it waits again.
    iovec part{const_cast<char*>(block.data()), block.size()};
    sent = SendSome(one.get(), &part, 1);
    if (sent < 0) send_error = errno;
    stage = 2;
  });
  const auto interrupt = [&](int while_stage, int times) {
    for (int i = 0; i < times && stage == while_stage; ++i) {
      const int before = signals_seen;
      ::pthread_kill(worker.native_handle(), SIGUSR1);
      // The thread sanitizer may hold a signal back until the next one.
      xtcp::test::WaitUntil([&] { return signals_seen != before; }, 20ms);
    }
  };
  interrupt(0, 50);
  CHECK(stage == 0);
  CHECK(::send(other.get(), "hi", 2, 0) == 2);
  CHECK(xtcp::test::WaitUntil([&] { return stage != 0; }));
  interrupt(1, 1);  // a partial count is normal, an error is not
  std::string got(block.size(), ' ');
  while (stage != 2) {
    if (::recv(other.get(), got.data(), got.size(), MSG_DONTWAIT) < 0) std::this_thread::yield();
  }
  worker.join();
  ::sigaction(SIGUSR1, &old, nullptr);
  CHECK(received == 2);
  CHECK(recv_error == 0);
  CHECK(sent > 0);
  CHECK(send_error == 0);
}

}  // namespace
}  // namespace xtcp::internal
