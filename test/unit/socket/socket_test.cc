#include "socket/socket.h"

#include <fcntl.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>
#include <xtcp/bytes.h>
#include <xtcp/error.h>

#include <array>
#include <atomic>
#include <catch2/catch.hpp>
#include <cerrno>
#include <csignal>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <limits>
#include <string>
#include <string_view>
#include <thread>
#include <vector>

#include "socket/resolve.h"
#include "support/deadline.h"
#include "support/raw_peer.h"

namespace xtcp::internal {
namespace {

using namespace std::chrono_literals;
using namespace std::string_literals;
using xtcp::test::HasIpv6;

constexpr ListenOptions kListen{.backlog = 8, .reuse_port = false};
constexpr TcpOptions kTcp{};

SocketAddress AddressOf(std::string_view text) {
  const Resolution resolution = ResolveForListen(text);
  REQUIRE_FALSE(resolution.error);
  return resolution.addresses.at(0);
}

UniqueFd OpenAt(std::string_view text) {
  UniqueFd fd;
  REQUIRE_FALSE(OpenListener(AddressOf(text), text.starts_with(':'), kListen, &fd));
  REQUIRE(fd.valid());
  return fd;
}

SocketAddress LocalOf(const UniqueFd& fd) {
  SocketAddress address;
  REQUIRE_FALSE(LocalAddressOf(fd.get(), &address));
  return address;
}

std::string Text(const SocketAddress& address) { return ToAddress(address).ToString(); }
std::uint16_t PortOf(const UniqueFd& fd) { return ToAddress(LocalOf(fd)).Port(); }

int Option(const UniqueFd& fd, int level, int name) {
  int value = -1;
  socklen_t size = sizeof(value);
  REQUIRE(::getsockopt(fd.get(), level, name, &value, &size) == 0);
  return value;
}

bool IsReadyFor(const UniqueFd& fd, short events) {
  pollfd entry{.fd = fd.get(), .events = events, .revents = 0};
  return ::poll(&entry, 1, 10'000) == 1;
}

bool FromBirth(const UniqueFd& fd) {
  return (::fcntl(fd.get(), F_GETFD) & FD_CLOEXEC) != 0 &&
         (::fcntl(fd.get(), F_GETFL) & O_NONBLOCK) != 0;
}

// Two ends of one connection.
struct Pair {
  UniqueFd dialled;
  UniqueFd accepted;
};

Pair Connect(std::string_view listen = "127.0.0.1:0") {
  const UniqueFd listener = OpenAt(listen);
  Pair pair;
  bool in_progress = false;
  REQUIRE_FALSE(StartConnect(LocalOf(listener), kTcp, &pair.dialled, &in_progress));
  REQUIRE(IsReadyFor(listener, POLLIN));
  pair.accepted = Accept(listener.get()).fd;
  REQUIRE(pair.accepted.valid());
  REQUIRE(IsReadyFor(pair.dialled, POLLOUT));
  REQUIRE(TakeSocketError(pair.dialled.get()) == 0);
  return pair;
}

// A directory for socket files.
struct Folder {
  Folder() {
    std::string name = (std::filesystem::temp_directory_path() / "xtcp-XXXXXX").string();
    REQUIRE(::mkdtemp(name.data()) != nullptr);
    path = name;
  }
  ~Folder() { std::filesystem::remove_all(path); }
  std::string File() const { return path + "/s"; }
  std::string Address() const { return "unix:" + File(); }
  std::string path;
};

// ---- Listening

TEST_CASE("a listener is non-blocking, close-on-exec, and takes over the port of an old one",
          "[R5]") {
  const UniqueFd fd = OpenAt("127.0.0.1:0");
  CHECK(FromBirth(fd));
  CHECK(Option(fd, SOL_SOCKET, SO_REUSEADDR) == 1);
  CHECK(Option(fd, SOL_SOCKET, SO_REUSEPORT) == 0);
  CHECK(Option(fd, SOL_SOCKET, SO_ACCEPTCONN) == 1);
  CHECK(PortOf(fd) != 0);
  CHECK(Text(LocalOf(fd)).starts_with("127.0.0.1:"));
}

TEST_CASE("an IPv6 listener takes IPv4 only where it stands for both", "[M35]") {
  if (!HasIpv6()) return;
  struct {
    const char* address;
    bool takes_ipv4;
  } const table[] = {{":0", true}, {"[::]:0", false}};
  for (const auto& [address, takes_ipv4] : table) {
    INFO(address);
    const UniqueFd fd = OpenAt(address);
    CHECK(Option(fd, IPPROTO_IPV6, IPV6_V6ONLY) == (takes_ipv4 ? 0 : 1));
    const std::string port = std::to_string(PortOf(fd));
    CHECK(xtcp::test::RawPeer("[::1]:" + port).connected());
    // Where it does not, the port of 127.0.0.1 is free for any program of this machine.
    if (takes_ipv4) CHECK(xtcp::test::RawPeer("127.0.0.1:" + port).connected());
  }
}

TEST_CASE("an IPv4 peer of a listener for both reads as IPv4") {
  const UniqueFd listener = OpenAt(":0");
  const xtcp::test::RawPeer peer("127.0.0.1:" + std::to_string(PortOf(listener)));
  REQUIRE(peer.connected());
  REQUIRE(IsReadyFor(listener, POLLIN));
  const AcceptResult result = Accept(listener.get());
  REQUIRE(result.fd.valid());
  CHECK(Text(result.peer).starts_with("127.0.0.1:"));
  CHECK(Text(LocalOf(result.fd)) == "127.0.0.1:" + std::to_string(PortOf(listener)));
}

TEST_CASE("a port is shared only when both ask for it") {
  const ListenOptions sharing{.backlog = 8, .reuse_port = true};
  UniqueFd first;
  REQUIRE_FALSE(OpenListener(AddressOf("127.0.0.1:0"), false, sharing, &first));
  CHECK(Option(first, SOL_SOCKET, SO_REUSEPORT) == 1);
  UniqueFd second;
  CHECK_FALSE(OpenListener(LocalOf(first), false, sharing, &second));
  CHECK(second.valid());

  UniqueFd third;
  CHECK(OpenListener(LocalOf(first), false, kListen, &third) ==
        std::error_code(EADDRINUSE, std::system_category()));
  CHECK_FALSE(third.valid());
}

TEST_CASE("a listener's backlog is what was asked for") {
  // Linux lets one more than the backlog wait; later ones are not even answered.
  UniqueFd listener;
  REQUIRE_FALSE(OpenListener(AddressOf("unix:@"s + "xtcp-backlog-" + std::to_string(::getpid())),
                             false, {.backlog = 1, .reuse_port = false}, &listener));
  std::vector<UniqueFd> waiting;
  std::error_code error;
  while (waiting.size() < 10 && !error) {
    bool in_progress = true;
    UniqueFd fd;
    error = StartConnect(LocalOf(listener), kTcp, &fd, &in_progress);
    if (!error) waiting.push_back(std::move(fd));
  }
  CHECK(waiting.size() == 2);
  CHECK(error == std::error_code(EAGAIN, std::system_category()));
}

TEST_CASE("an address that cannot be bound is the system's error, and leaves nothing", "[F2]") {
  UniqueFd fd;
  CHECK(OpenListener(AddressOf("192.0.2.1:0"), false, kListen, &fd) ==
        std::error_code(EADDRNOTAVAIL, std::system_category()));
  CHECK(OpenListener(AddressOf("unix:/no/such/folder/s"), false, kListen, &fd) ==
        std::error_code(ENOENT, std::system_category()));
  SocketAddress unknown;
  unknown.base.sa_family = 200;
  unknown.size = sizeof(sockaddr_in);
  CHECK(OpenListener(unknown, false, kListen, &fd) ==
        std::error_code(EAFNOSUPPORT, std::system_category()));
  CHECK_FALSE(fd.valid());
}

// ---- Unix socket files

TEST_CASE("a Unix listener has a file, which goes when asked to", "[M36]") {
  const Folder folder;
  UniqueFd fd;
  SocketFile file;
  REQUIRE_FALSE(OpenListener(AddressOf(folder.Address()), false, kListen, &fd, &file));
  CHECK(FromBirth(fd));
  CHECK(Text(LocalOf(fd)) == folder.Address());
  CHECK(std::filesystem::is_socket(folder.File()));
  fd.Reset();
  file.Remove();
  CHECK(std::filesystem::is_empty(folder.path));  // no lock is left either
  file.Remove();
}

TEST_CASE("a socket file on which nobody answers is replaced", "[M36]") {
  const Folder folder;
  {
    UniqueFd dead;
    SocketFile old;  // whose end leaves the files, as a crash does
    REQUIRE_FALSE(OpenListener(AddressOf(folder.Address()), false, kListen, &dead, &old));
  }
  REQUIRE(std::filesystem::is_socket(folder.File()));
  UniqueFd fd;
  SocketFile file;
  CHECK_FALSE(OpenListener(AddressOf(folder.Address()), false, kListen, &fd, &file));
  CHECK(xtcp::test::RawPeer(folder.Address()).connected());
}

TEST_CASE("a socket file on which somebody answers stays", "[M36]") {
  const Folder folder;
  const UniqueFd first = OpenAt(folder.Address());
  const auto refused = [&] {
    UniqueFd second;
    SocketFile file;
    const auto error = OpenListener(AddressOf(folder.Address()), false, kListen, &second, &file);
    return error == std::error_code(EADDRINUSE, std::system_category()) && !second.valid();
  };
  CHECK(refused());
  // Also when its backlog is full, so that not even a connect succeeds.
  std::vector<UniqueFd> waiting(20);
  for (UniqueFd& fd : waiting) {
    bool in_progress = false;
    if (StartConnect(LocalOf(first), kTcp, &fd, &in_progress)) break;
  }
  CHECK_FALSE(waiting.back().valid());
  CHECK(refused());
  // The first one still has it.
  while (Accept(first.get()).fd.valid()) {
  }
  CHECK(xtcp::test::RawPeer(folder.Address()).connected());
}

TEST_CASE("what is no socket file is never removed", "[M36]") {
  const Folder folder;
  const auto refused = [&] {
    UniqueFd fd;
    SocketFile file;
    return OpenListener(AddressOf(folder.Address()), false, kListen, &fd, &file) ==
           std::error_code(EADDRINUSE, std::system_category());
  };
  SECTION("a file") {
    std::ofstream(folder.File()) << "precious";
    CHECK(refused());
    CHECK(std::filesystem::file_size(folder.File()) == 8);
  }
  SECTION("a folder") {
    std::filesystem::create_directory(folder.File());
    CHECK(refused());
    CHECK(std::filesystem::is_directory(folder.File()));
  }
  SECTION("a link to a dead socket file") {
    const std::string target = folder.path + "/target";
    OpenAt("unix:" + target);
    std::filesystem::create_symlink(target, folder.File());
    CHECK(refused());
    CHECK(std::filesystem::is_symlink(folder.File()));
    CHECK(std::filesystem::is_socket(target));
  }
}

TEST_CASE("a socket file is removed only while it is ours", "[M36]") {
  const Folder folder;
  UniqueFd fd;
  SocketFile file;
  REQUIRE_FALSE(OpenListener(AddressOf(folder.Address()), false, kListen, &fd, &file));
  std::filesystem::remove(folder.File());
  SECTION("the socket of a program that knows nothing of our lock") {
    const UniqueFd other(::socket(AF_UNIX, SOCK_STREAM, 0));
    const SocketAddress address = AddressOf(folder.Address());
    REQUIRE(::bind(other.get(), address.get(), address.size) == 0);
    REQUIRE(::listen(other.get(), 1) == 0);
    file.Remove();
    CHECK(xtcp::test::RawPeer(folder.Address()).connected());
  }
  SECTION("a file") {
    std::ofstream(folder.File()) << "precious";
    file.Remove();
    CHECK(std::filesystem::exists(folder.File()));
  }
  SECTION("nothing") {
    file.Remove();
    CHECK_FALSE(std::filesystem::exists(folder.File()));
  }
}

TEST_CASE("one at a time owns a path, and the last process that serves it removes the file",
          "[M36][seen-10][seen-11]") {
  const Folder folder;
  const SocketAddress address = AddressOf(folder.Address());
  UniqueFd fd;
  SocketFile file;
  REQUIRE_FALSE(OpenListener(address, false, kListen, &fd, &file));

  SECTION("not even between bind and listen does another one get it") {
    // As if the owner had bound, and not listened yet: nobody answers on the file.
    fd.Reset();
    UniqueFd second;
    SocketFile second_file;
    CHECK(OpenListener(address, false, kListen, &second, &second_file) ==
          std::error_code(EADDRINUSE, std::system_category()));
    CHECK(std::filesystem::is_socket(folder.File()));
    file.Remove();
    CHECK_FALSE(OpenListener(address, false, kListen, &second, &second_file));
    second.Reset();
    second_file.Remove();
  }
  SECTION("a child that was forked serves on when the parent ends, and the other way round") {
    const bool child_ends_first = GENERATE(false, true);
    CAPTURE(child_ends_first);
    std::array<int, 2> pipe{};
    REQUIRE(::pipe(pipe.data()) == 0);
    const pid_t child = ::fork();
    if (child == 0) {
      ::close(pipe[1]);
      char byte;
      if (!child_ends_first)
        static_cast<void>(!::read(pipe[0], &byte, 1));  // until the parent has ended
      fd.Reset();
      file.Remove();
      ::_exit(0);
    }
    ::close(pipe[0]);
    int status = 0;
    if (child_ends_first) {
      REQUIRE(::waitpid(child, &status, 0) == child);
    } else {
      fd.Reset();
      file.Remove();
    }
    CHECK(xtcp::test::RawPeer(folder.Address()).connected());  // the other one still listens
    ::close(pipe[1]);
    if (child_ends_first) {
      fd.Reset();
      file.Remove();
    } else {
      REQUIRE(::waitpid(child, &status, 0) == child);
    }
    CHECK(std::filesystem::is_empty(folder.path));
  }
}

TEST_CASE("there is no file for an abstract name, nor for TCP", "[M36]") {
  const std::string name = "unix:@xtcp-test-" + std::to_string(::getpid());
  UniqueFd fd;
  SocketFile file;
  REQUIRE_FALSE(OpenListener(AddressOf(name), false, kListen, &fd, &file));
  CHECK(Text(LocalOf(fd)) == name);
  file.Remove();
  REQUIRE_FALSE(OpenListener(AddressOf("127.0.0.1:0"), false, kListen, &fd, &file));
  file.Remove();
  CHECK_FALSE(std::filesystem::exists(".lock"));
}

// ---- Adopting

TEST_CASE("an adopted listener becomes non-blocking and close-on-exec", "[R5]") {
  const UniqueFd fd(::socket(AF_INET, SOCK_STREAM, 0));
  REQUIRE(::listen(fd.get(), 1) == 0);
  CHECK_FALSE(FromBirth(fd));
  CHECK_FALSE(PrepareAdopted(fd.get()));
  CHECK(FromBirth(fd));
  CHECK_FALSE(PrepareAdopted(OpenAt("unix:@xtcp-adopt-" + std::to_string(::getpid())).get()));
}

TEST_CASE("what is no listening stream socket is not adopted", "[X4]") {
  const UniqueFd stream(::socket(AF_INET, SOCK_STREAM, 0));
  const UniqueFd datagram(::socket(AF_INET, SOCK_DGRAM, 0));
  const UniqueFd packets(::socket(AF_UNIX, SOCK_SEQPACKET, 0));
  sockaddr_un autobind{.sun_family = AF_UNIX, .sun_path = {}};
  REQUIRE(::bind(packets.get(), reinterpret_cast<sockaddr*>(&autobind), sizeof(sa_family_t)) == 0);
  REQUIRE(::listen(packets.get(), 1) == 0);
  const Pair pair = Connect();
  const UniqueFd file(::open("/dev/null", O_RDONLY));
  for (const int fd : {stream.get(), datagram.get(), packets.get(), pair.accepted.get(), file.get(),
                       -1, std::numeric_limits<int>::min(), std::numeric_limits<int>::max()}) {
    INFO(fd);
    CHECK(PrepareAdopted(fd) == Errc::kNotListening);
  }
  // And nothing was changed.
  CHECK_FALSE(FromBirth(stream));
}

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
