#include "socket/socket.h"

#include <fcntl.h>
#include <netinet/tcp.h>
#include <xtcp/error.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <limits>

#include "base/log.h"
#include "sys/syscalls.h"

namespace xtcp::internal {
namespace {

constexpr int kStream = SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC;

std::error_code LastError() noexcept { return {errno, std::system_category()}; }

bool Set(int fd, int level, int name, int value) noexcept {
  return sys::SetSockOpt(fd, level, name, &value, sizeof(value)) == 0;
}

bool Get(int fd, int level, int name, int* value) noexcept {
  socklen_t size = sizeof(*value);
  return sys::GetSockOpt(fd, level, name, value, &size) == 0;
}

bool SetBeforeBind(int fd, const SocketAddress& address, bool any_family,
                   const ListenOptions& options) noexcept {
  // With this a restarted server gets its port although old connections are in TIME_WAIT
  // (socket(7)).
  if (!Set(fd, SOL_SOCKET, SO_REUSEADDR, 1)) return false;
  if (options.reuse_port && !Set(fd, SOL_SOCKET, SO_REUSEPORT, 1)) return false;
  // It is set explicitly either way, because the default is up to the administrator
  // (net.ipv6.bindv6only).
  return address.base.sa_family != AF_INET6 ||
         Set(fd, IPPROTO_IPV6, IPV6_V6ONLY, any_family ? 0 : 1);
}

std::error_code Bind(int fd, const SocketAddress& address, SocketFile* file) noexcept {
  if (const std::error_code error = file->Lock(address)) return error;
  if (sys::Bind(fd, address.get(), address.size) != 0) {
    const std::error_code error = LastError();
    if (error.value() != EADDRINUSE || !file->RemoveAbandoned(address)) return error;
    if (sys::Bind(fd, address.get(), address.size) != 0) return LastError();
  }
  file->NoteBound();
  return {};
}

std::error_code OpenOne(const SocketAddress& address, bool any_family, const ListenOptions& options,
                        UniqueFd* out, SocketFile* out_file) noexcept {
  SocketFile file;
  UniqueFd fd(sys::Socket(address.base.sa_family, kStream, 0));
  if (!fd.valid()) return LastError();
  if (IsTcp(address.get()) && !SetBeforeBind(fd.get(), address, any_family, options)) {
    return LastError();
  }
  std::error_code error = Bind(fd.get(), address, &file);
  if (!error) {
    if (IsTcp(address.get())) ApplyTcpOptions(fd.get(), options.tcp);
    if (sys::Listen(fd.get(), options.backlog) != 0) error = LastError();
  }
  if (error) {
    fd.Reset();
    file.Remove();
    return error;
  }
  if (out_file != nullptr) *out_file = std::move(file);
  *out = std::move(fd);
  return {};
}

// Returns whether a socket is connected to itself. A dial to a port of the ephemeral range on the
// same host, on which nobody listens, may choose that very port for its own end, and then a
// simultaneous open (RFC 9293, 3.5) connects the socket to itself.
bool IsSelf(const SocketAddress& local, const SocketAddress& peer) noexcept {
  return IsTcp(local.get()) && local.size == peer.size &&
         std::memcmp(local.get(), peer.get(), local.size) == 0;
}

// Makes close(2) send a reset (socket(7), SO_LINGER), so that no TIME_WAIT holds the port.
void CloseByReset(int fd) noexcept {
  const linger reset{1, 0};
  sys::SetSockOpt(fd, SOL_SOCKET, SO_LINGER, &reset, sizeof(reset));
}

}  // namespace

bool IsTcp(const sockaddr* address) noexcept {
  return address->sa_family == AF_INET || address->sa_family == AF_INET6;
}

std::error_code OpenListener(const SocketAddress& address, bool any_family,
                             const ListenOptions& options, UniqueFd* out,
                             SocketFile* file) noexcept {
  const std::error_code error = OpenOne(address, any_family, options, out, file);
  // If the kernel has no IPv6, socket(2) returns the first error; if no interface has it, bind(2)
  // may return the second.
  const bool no_ipv6 =
      error == std::errc::address_family_not_supported || error == std::errc::address_not_available;
  if (!any_family || !no_ipv6) return error;
  SocketAddress ipv4;
  ipv4.ipv4 = {};
  ipv4.ipv4.sin_family = AF_INET;
  ipv4.ipv4.sin_port = address.ipv6.sin6_port;
  ipv4.size = sizeof(ipv4.ipv4);
  return OpenOne(ipv4, false, options, out, file);
}

std::error_code PrepareAdopted(int fd) noexcept {
  int type = 0;
  int listens = 0;
  if (!Get(fd, SOL_SOCKET, SO_TYPE, &type) || !Get(fd, SOL_SOCKET, SO_ACCEPTCONN, &listens)) {
    if (errno == EBADF || errno == ENOTSOCK) return Errc::kNotListening;
    return LastError();
  }
  if (type != SOCK_STREAM || listens == 0) return Errc::kNotListening;

  const int status_flags = sys::FcntlGet(fd, F_GETFL);
  if (status_flags < 0) return LastError();
  if (sys::FcntlSet(fd, F_SETFL, status_flags | O_NONBLOCK) != 0) return LastError();
  const int descriptor_flags = sys::FcntlGet(fd, F_GETFD);
  if (descriptor_flags < 0) return LastError();
  if (sys::FcntlSet(fd, F_SETFD, descriptor_flags | FD_CLOEXEC) != 0) return LastError();
  return {};
}

AcceptResult Accept(int listener) noexcept {
  AcceptResult result;
  result.peer.size = SocketAddress::kCapacity;
  result.fd.Reset(
      sys::Accept4(listener, result.peer.get(), &result.peer.size, SOCK_NONBLOCK | SOCK_CLOEXEC));
  if (!result.fd.valid()) result.error = errno;
  return result;
}

AcceptOutcome ClassifyAccept(int error) noexcept {
  switch (error) {
    case 0:
      return AcceptOutcome::kConnection;
    case EAGAIN:
      return AcceptOutcome::kDone;
    // accept(2), "Error handling": Linux passes errors of the network that are already pending on
    // the new socket.
    case EINTR:
    case ECONNABORTED:
    case ECONNRESET:
    case EPROTO:
    case EPERM:
    case ETIMEDOUT:
    case ENETDOWN:
    case ENOPROTOOPT:
    case EHOSTDOWN:
    case ENONET:
    case EHOSTUNREACH:
    case EOPNOTSUPP:
    case ENETUNREACH:
      return AcceptOutcome::kNext;
    case EBADF:
    case EINVAL:
    case ENOTSOCK:
      return AcceptOutcome::kDead;
    case EMFILE:
    case ENFILE:
    case ENOBUFS:
    case ENOMEM:
    // An error that is not known here may last. Trying later never spins.
    default:
      return AcceptOutcome::kExhausted;
  }
}

std::error_code StartConnect(const SocketAddress& address, const TcpOptions& options, UniqueFd* out,
                             bool* in_progress) noexcept {
  UniqueFd fd(sys::Socket(address.base.sa_family, kStream, 0));
  if (!fd.valid()) return LastError();
  if (IsTcp(address.get())) ApplyTcpOptions(fd.get(), options);
  const bool stands = sys::Connect(fd.get(), address.get(), address.size) == 0;
  // After EINTR connecting goes on in the background all the same, and a second call would return
  // EALREADY (connect(2)). On a Unix socket EAGAIN says that the backlog is full, and is final.
  if (!stands && errno != EINPROGRESS && errno != EINTR) return LastError();
  *in_progress = !stands;
  *out = std::move(fd);
  return {};
}

int TakeSocketError(int fd) noexcept {
  int error = 0;
  return Get(fd, SOL_SOCKET, SO_ERROR, &error) ? error : errno;
}

ConnectResult FinishConnect(int fd) noexcept {
  const int error = TakeSocketError(fd);
  // A server may accept, send its last bytes, and reset before this end looks. Linux reports a
  // reset of a handshake as ECONNREFUSED; these two errors it reports only for a connection that
  // was established (EPIPE after a FIN).
  if (error == ECONNRESET || error == EPIPE) return {ConnectOutcome::kEstablished, error};
  if (error != 0) return {ConnectOutcome::kFailed, error};
  SocketAddress local;
  SocketAddress peer;
  const std::error_code no_peer = PeerAddressOf(fd, &peer);
  if (no_peer.value() == ENOTCONN) return {ConnectOutcome::kInProgress, 0};
  if (!no_peer && !LocalAddressOf(fd, &local) && IsSelf(local, peer)) {
    CloseByReset(fd);
    return {ConnectOutcome::kFailed, ECONNREFUSED};
  }
  return {ConnectOutcome::kEstablished, 0};
}

int ApplyTcpOptions(int fd, const TcpOptions& options) noexcept {
  int refused = 0;
  const auto apply = [&](int level, int name, std::int64_t value) {
    if (Set(fd, level, name, static_cast<int>(value))) return;
    ++refused;
    const std::error_code error = LastError();
    XTCP_LOG_LIMITED(kWarn, "a TCP option was refused: %s", error.message().c_str());
  };
  // It is set explicitly either way, because an accepted socket inherits it from an adopted
  // listener.
  apply(IPPROTO_TCP, TCP_NODELAY, options.no_delay ? 1 : 0);
  if (options.keep_alive) {
    apply(SOL_SOCKET, SO_KEEPALIVE, 1);
    if (options.keep_alive_period.count() > 0) {
      const auto period = std::chrono::ceil<std::chrono::seconds>(options.keep_alive_period);
      apply(IPPROTO_TCP, TCP_KEEPIDLE, period.count());
      apply(IPPROTO_TCP, TCP_KEEPINTVL, period.count());
    }
  }
  if (options.user_timeout.count() > 0) {
    apply(IPPROTO_TCP, TCP_USER_TIMEOUT, options.user_timeout.count());
  }
  return refused;
}

std::error_code LocalAddressOf(int fd, SocketAddress* address) noexcept {
  address->size = SocketAddress::kCapacity;
  return sys::GetSockName(fd, address->get(), &address->size) == 0 ? std::error_code{}
                                                                   : LastError();
}

std::error_code PeerAddressOf(int fd, SocketAddress* address) noexcept {
  address->size = SocketAddress::kCapacity;
  return sys::GetPeerName(fd, address->get(), &address->size) == 0 ? std::error_code{}
                                                                   : LastError();
}

ssize_t RecvSome(int fd, std::span<std::byte> buffer) noexcept {
  ssize_t received;
  do {
    received = sys::Recv(fd, buffer.data(), buffer.size(), 0);
  } while (received < 0 && errno == EINTR);
  return received;
}

ssize_t SendSome(int fd, std::span<const std::byte> bytes) noexcept {
  const std::size_t size = std::min(bytes.size(), kLargestWrite);
  ssize_t sent;
  do {
    sent = sys::Send(fd, bytes.data(), size, MSG_NOSIGNAL);
  } while (sent < 0 && errno == EINTR);
  return sent;
}

ssize_t SendSome(int fd, iovec* parts, int count) noexcept {
  msghdr message{};
  message.msg_iov = parts;
  // Its type is the C library's: glibc has a std::size_t, musl an int.
  message.msg_iovlen = static_cast<decltype(message.msg_iovlen)>(count);
  ssize_t sent;
  do {
    sent = sys::SendMsg(fd, &message, MSG_NOSIGNAL);
  } while (sent < 0 && errno == EINTR);
  return sent;
}

// SYNs go to sockets that are bound to their interface, or to none (inet_lookup_listener). Bound to
// an interface that does not exist, the listener gets no more of them; but it is still there for
// the last step of handshakes that have begun, whose request sockets know it. It needs no
// privilege, for a socket that is bound to no interface (socket(7), SO_BINDTODEVICE; Linux 5.7).
int HideListener(int fd) noexcept {
  constexpr int kNoInterface = std::numeric_limits<int>::max();
  return Set(fd, SOL_SOCKET, SO_BINDTOIFINDEX, kNoInterface) ? 0 : errno;
}

bool ShutdownWrite(int fd) noexcept { return sys::Shutdown(fd, SHUT_WR) == 0; }

std::uint64_t UnackedBytes(int fd) noexcept {
  int bytes = 0;
  if (sys::IoctlOutq(fd, &bytes) != 0 || bytes < 0) return 0;
  return static_cast<std::uint64_t>(bytes);
}

}  // namespace xtcp::internal
