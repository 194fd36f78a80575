#pragma once

#include <fcntl.h>
#include <poll.h>
#include <unistd.h>

#include <catch2/catch.hpp>
#include <filesystem>
#include <string>
#include <string_view>

#include "socket/resolve.h"
#include "socket/socket.h"

// What the tests of sockets share: listeners, pairs of connected sockets, and what these say.
namespace xtcp::internal {

inline constexpr ListenOptions kListen{.backlog = 8, .reuse_port = false};
inline constexpr TcpOptions kTcp{};

inline SocketAddress AddressOf(std::string_view text) {
  const Resolution resolution = ResolveForListen(text);
  REQUIRE_FALSE(resolution.error);
  return resolution.addresses.at(0);
}

inline UniqueFd OpenAt(std::string_view text) {
  UniqueFd fd;
  REQUIRE_FALSE(OpenListener(AddressOf(text), text.starts_with(':'), kListen, &fd));
  REQUIRE(fd.valid());
  return fd;
}

inline SocketAddress LocalOf(const UniqueFd& fd) {
  SocketAddress address;
  REQUIRE_FALSE(LocalAddressOf(fd.get(), &address));
  return address;
}

inline std::string Text(const SocketAddress& address) { return ToAddress(address).ToString(); }
inline std::uint16_t PortOf(const UniqueFd& fd) { return ToAddress(LocalOf(fd)).Port(); }

inline int Option(const UniqueFd& fd, int level, int name) {
  int value = -1;
  socklen_t size = sizeof(value);
  REQUIRE(::getsockopt(fd.get(), level, name, &value, &size) == 0);
  return value;
}

inline bool IsReadyFor(const UniqueFd& fd, short events) {
  pollfd entry{.fd = fd.get(), .events = events, .revents = 0};
  return ::poll(&entry, 1, 10'000) == 1;
}

inline bool FromBirth(const UniqueFd& fd) {
  return (::fcntl(fd.get(), F_GETFD) & FD_CLOEXEC) != 0 &&
         (::fcntl(fd.get(), F_GETFL) & O_NONBLOCK) != 0;
}

// Two ends of one connection.
struct Pair {
  UniqueFd dialled;
  UniqueFd accepted;
};

inline Pair Connect(std::string_view listen = "127.0.0.1:0") {
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

}  // namespace xtcp::internal
