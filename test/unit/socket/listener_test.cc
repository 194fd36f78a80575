// Sockets that listen: at addresses, with files, and those of somebody else.

#include <fcntl.h>
#include <poll.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>
#include <xtcp/error.h>

#include <array>
#include <catch2/catch.hpp>
#include <cerrno>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <limits>
#include <string>
#include <string_view>
#include <vector>

#include "socket/socket.h"
#include "support/raw_peer.h"
#include "unit/socket/sockets.h"

namespace xtcp::internal {
namespace {

using namespace std::chrono_literals;
using namespace std::string_literals;
using xtcp::test::HasIpv6;

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

}  // namespace
}  // namespace xtcp::internal
