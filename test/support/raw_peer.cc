#include "support/raw_peer.h"

#include <arpa/inet.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstddef>
#include <cstdlib>
#include <cstring>
#include <limits>
#include <utility>

#include "support/books.h"

namespace xtcp::test {
namespace {

struct SocketAddress {
  sockaddr_storage storage{};
  socklen_t size = 0;  // 0: it did not parse

  const sockaddr* get() const { return reinterpret_cast<const sockaddr*>(&storage); }
};

SocketAddress Loopback(std::uint16_t port) {
  SocketAddress address;
  auto* in = reinterpret_cast<sockaddr_in*>(&address.storage);
  in->sin_family = AF_INET;
  in->sin_port = htons(port);
  in->sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  address.size = sizeof(sockaddr_in);
  return address;
}

SocketAddress ParseUnix(std::string_view path) {
  SocketAddress address;
  auto* un = reinterpret_cast<sockaddr_un*>(&address.storage);
  un->sun_family = AF_UNIX;
  std::copy(path.begin(), path.end(), un->sun_path);
  const bool abstract = !path.empty() && path.front() == '@';
  if (abstract) un->sun_path[0] = '\0';
  address.size = static_cast<socklen_t>(offsetof(sockaddr_un, sun_path) + path.size());
  if (!abstract) ++address.size;
  return address;
}

SocketAddress Parse(std::string_view text) {
  constexpr std::string_view kUnix = "unix:";
  if (text.starts_with(kUnix)) return ParseUnix(text.substr(kUnix.size()));
  SocketAddress address;
  const std::size_t colon = text.rfind(':');
  std::string host(text.substr(0, colon));
  const auto port =
      static_cast<std::uint16_t>(std::atoi(std::string(text.substr(colon + 1)).c_str()));
  if (host.starts_with('[')) {
    auto* in6 = reinterpret_cast<sockaddr_in6*>(&address.storage);
    in6->sin6_family = AF_INET6;
    in6->sin6_port = htons(port);
    host = host.substr(1, host.size() - 2);
    if (::inet_pton(AF_INET6, host.c_str(), &in6->sin6_addr) == 1) address.size = sizeof *in6;
    return address;
  }
  address = Loopback(port);
  auto* in = reinterpret_cast<sockaddr_in*>(&address.storage);
  if (::inet_pton(AF_INET, host.c_str(), &in->sin_addr) != 1) address.size = 0;
  return address;
}

int Connect(const SocketAddress& address, int receive_buffer) {
  const int fd = ::socket(address.storage.ss_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
  if (fd < 0) return -1;
  if (receive_buffer > 0) {
    ::setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &receive_buffer, sizeof receive_buffer);
  }
  if (::connect(fd, address.get(), address.size) == 0) return fd;
  ::close(fd);
  return -1;
}

bool WaitFor(int fd, short events, std::chrono::milliseconds deadline) {
  pollfd waiting{fd, events, 0};
  for (;;) {
    const int ready = ::poll(&waiting, 1, static_cast<int>(deadline.count()));
    if (ready > 0) return true;
    if (ready == 0 || errno != EINTR) return false;
  }
}

// "127.0.0.1:80" or "[::1]:80", "" for others.
std::string NameOf(const sockaddr_storage& storage) {
  std::array<char, INET6_ADDRSTRLEN> host{};
  if (storage.ss_family == AF_INET) {
    const auto& in = reinterpret_cast<const sockaddr_in&>(storage);
    ::inet_ntop(AF_INET, &in.sin_addr, host.data(), host.size());
    return std::string(host.data()) + ":" + std::to_string(ntohs(in.sin_port));
  }
  if (storage.ss_family == AF_INET6) {
    const auto& in6 = reinterpret_cast<const sockaddr_in6&>(storage);
    ::inet_ntop(AF_INET6, &in6.sin6_addr, host.data(), host.size());
    return "[" + std::string(host.data()) + "]:" + std::to_string(ntohs(in6.sin6_port));
  }
  return "";
}

// Of a connected socket, `ask` being getsockname(2) or getpeername(2).
template <typename Ask>
std::string NameOf(int fd, Ask ask) {
  sockaddr_storage storage{};
  socklen_t size = sizeof storage;
  if (ask(fd, reinterpret_cast<sockaddr*>(&storage), &size) != 0) return "";
  return NameOf(storage);
}

}  // namespace

RawPeer::RawPeer(std::string_view address, int receive_buffer)
    : RawPeer(Connect(Parse(address), receive_buffer)) {}

RawPeer::RawPeer(std::uint16_t port, int receive_buffer)
    : RawPeer(Connect(Loopback(port), receive_buffer)) {}

RawPeer::RawPeer(int fd)
    : fd_(fd), own_(NameOf(fd, ::getsockname)), peer_(NameOf(fd, ::getpeername)) {}

RawPeer::RawPeer(RawPeer&& other) noexcept { *this = std::move(other); }

RawPeer& RawPeer::operator=(RawPeer&& other) noexcept {
  if (this == &other) return *this;
  Close();
  fd_ = std::exchange(other.fd_, -1);
  received_ = other.received_;
  saw_end_ = other.saw_end_;
  own_ = std::move(other.own_);
  peer_ = std::move(other.peer_);
  return *this;
}

bool RawPeer::SendAll(std::string_view bytes, std::chrono::milliseconds deadline) {
  while (!bytes.empty()) {
    const ssize_t sent = ::send(fd_, bytes.data(), bytes.size(), MSG_NOSIGNAL | MSG_DONTWAIT);
    if (sent > 0) {
      bytes.remove_prefix(static_cast<std::size_t>(sent));
    } else if (errno == EAGAIN) {
      if (!WaitFor(fd_, POLLOUT, deadline)) return false;
    } else if (errno != EINTR) {
      return false;
    }
  }
  return true;
}

bool RawPeer::Dribble(std::string_view bytes, std::size_t piece) {
  const int on = 1;
  ::setsockopt(fd_, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
  while (!bytes.empty()) {
    const std::string_view now = bytes.substr(0, piece);
    if (!SendAll(now)) return false;
    bytes.remove_prefix(now.size());
  }
  return true;
}

End RawPeer::ReadSome(char* buffer, std::size_t size, std::chrono::milliseconds deadline,
                      std::size_t* count) {
  *count = 0;
  for (;;) {
    const ssize_t got = ::recv(fd_, buffer, size, MSG_DONTWAIT);
    if (got > 0) {
      *count = static_cast<std::size_t>(got);
      received_ += *count;
      return End::kOpen;
    }
    if (got == 0) {
      saw_end_ = true;
      return End::kEof;
    }
    if (errno == EAGAIN) {
      if (!WaitFor(fd_, POLLIN, deadline)) return End::kTimeout;
    } else if (errno != EINTR) {
      return errno == ECONNRESET ? End::kReset : End::kError;
    }
  }
}

End RawPeer::ReadAll(std::string* bytes, std::chrono::milliseconds deadline) {
  return ReadUpTo(std::numeric_limits<std::size_t>::max(), bytes, deadline);
}

End RawPeer::ReadExactly(std::size_t size, std::string* bytes, std::chrono::milliseconds deadline) {
  if (bytes != nullptr) {
    bytes->clear();
    bytes->reserve(size);
  }
  return ReadUpTo(size, bytes, deadline);
}

// The piece lies on the stack, unfilled: large strings, filled for each call, were most of what the
// thread sanitizer's variant spent in the kernel, on pages of shadow memory.
End RawPeer::ReadUpTo(std::size_t size, std::string* bytes, std::chrono::milliseconds deadline) {
  std::array<char, 64 << 10> piece;
  while (size > 0) {
    std::size_t count = 0;
    const End end = ReadSome(piece.data(), std::min(size, piece.size()), deadline, &count);
    if (bytes != nullptr) bytes->append(piece.data(), count);
    if (end != End::kOpen) return end;
    size -= count;
  }
  return End::kOpen;
}

std::string RawPeer::ReadFrame(End* end) {
  std::string header, payload;
  End result = ReadExactly(4, &header);
  if (result == End::kOpen) {
    std::size_t size = 0;
    for (char c : header) size = size << 8 | static_cast<unsigned char>(c);
    result = ReadExactly(size, &payload);
  }
  if (end != nullptr) *end = result;
  return payload;
}

void RawPeer::HalfClose() { ::shutdown(fd_, SHUT_WR); }

void RawPeer::Reset() {
  const linger at_once{1, 0};
  ::setsockopt(fd_, SOL_SOCKET, SO_LINGER, &at_once, sizeof at_once);
  Close();
}

void RawPeer::Close() {
  if (fd_ < 0) return;
  EnterBooks({.own = own_, .peer = peer_, .received = received_, .saw_end = saw_end_});
  ::close(std::exchange(fd_, -1));
}

RawListener::RawListener(std::string_view text, int backlog) : address_(text) {
  const SocketAddress address = Parse(text);
  fd_ = ::socket(address.storage.ss_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
  SocketAddress bound;
  bound.size = sizeof bound.storage;
  if (::bind(fd_, address.get(), address.size) != 0 || ::listen(fd_, backlog) != 0 ||
      ::getsockname(fd_, reinterpret_cast<sockaddr*>(&bound.storage), &bound.size) != 0) {
    std::abort();  // without a loopback no test means anything
  }
  if (bound.storage.ss_family == AF_UNIX) return;
  // The port has the same place in both families.
  port_ = ntohs(reinterpret_cast<const sockaddr_in*>(&bound.storage)->sin_port);
  address_ = address_.substr(0, address_.rfind(':') + 1) + std::to_string(port_);
}

RawPeer RawListener::Accept(std::chrono::milliseconds deadline) {
  if (!WaitFor(fd_, POLLIN, deadline)) return RawPeer();
  return RawPeer(::accept4(fd_, nullptr, nullptr, SOCK_CLOEXEC));
}

int RawListener::Release() { return std::exchange(fd_, -1); }

void RawListener::Close() {
  if (fd_ >= 0) ::close(std::exchange(fd_, -1));
}

bool HasIpv6() {
  const SocketAddress address = Parse("[::1]:0");
  const int fd = ::socket(AF_INET6, SOCK_STREAM | SOCK_CLOEXEC, 0);
  if (fd < 0) return false;
  const bool works = ::bind(fd, address.get(), address.size) == 0;
  ::close(fd);
  return works;
}

bool HasLocalhost() {
  addrinfo* list = nullptr;
  if (::getaddrinfo("localhost", nullptr, nullptr, &list) != 0) return false;
  ::freeaddrinfo(list);
  return true;
}

}  // namespace xtcp::test
