#pragma once

#include <sys/types.h>
#include <sys/uio.h>

#include <array>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <span>
#include <system_error>

#include "socket/socket_address.h"
#include "socket/socket_file.h"
#include "socket/unique_fd.h"

// What the library does with sockets: thin functions over the system calls, which know what each
// error means. EINTR ends here. Everything is non-blocking and close-on-exec from birth, and
// allocates nothing.
namespace xtcp::internal {

struct TcpOptions {
  bool no_delay = true;
  bool keep_alive = false;
  std::chrono::milliseconds keep_alive_period{0};
  std::chrono::milliseconds user_timeout{0};
};

struct ListenOptions {
  int backlog = 1;
  bool reuse_port = false;
  // Set before listen(2): a socket inherits what its listener has when the handshake ends, which
  // may be before anybody accepts.
  TcpOptions tcp{};
};

bool IsTcp(const sockaddr* address) noexcept;

// ---- Listening

// Socket, bind and listen; on an error nothing is left behind. `any_family`: also takes IPv4, or
// only IPv4 when there is no IPv6. A socket file on which nobody answers is removed first; nothing
// else ever is. `file`, if given, gets the new socket's file; without it the file stays behind.
std::error_code OpenListener(const SocketAddress& address, bool any_family,
                             const ListenOptions& options, UniqueFd* out,
                             SocketFile* file = nullptr) noexcept;

// Makes somebody else's socket ready for our loop. Errc::kNotListening unless it is a stream socket
// that listens.
std::error_code PrepareAdopted(int fd) noexcept;

struct AcceptResult {
  UniqueFd fd;
  int error = 0;  // of accept4(2), for ClassifyAccept
  SocketAddress peer;
};
AcceptResult Accept(int listener) noexcept;

enum class AcceptOutcome {
  kConnection,  // there is one
  kDone,        // nothing waits
  kNext,        // this one is gone; the next may be well
  kExhausted,   // no descriptors or memory: try again later
  kDead,        // the listener is of no use any more
};
AcceptOutcome ClassifyAccept(int error) noexcept;

// ---- Connecting

// Begins to connect; when `*in_progress`, the socket turns writable when that has ended and
// TakeSocketError tells how. connect(2) is never repeated. `options` reach TCP sockets only.
std::error_code StartConnect(const SocketAddress& address, const TcpOptions& options, UniqueFd* out,
                             bool* in_progress) noexcept;

enum class ConnectOutcome {
  kInProgress,   // writable, but not connected yet
  kEstablished,  // and perhaps reset since: then `error` says how
  kFailed,
};
struct ConnectResult {
  ConnectOutcome outcome = ConnectOutcome::kFailed;
  int error = 0;
};

// What became of a connect in progress, once its socket was reported. A socket that is its own peer
// has failed (ECONNREFUSED), and its port is free as soon as it is closed.
ConnectResult FinishConnect(int fd) noexcept;

// SO_ERROR, which it clears; or why it could not be asked for.
int TakeSocketError(int fd) noexcept;

// ---- Connected

// Best effort; how many of the options the kernel refused, a line in the log for each. For TCP
// sockets.
int ApplyTcpOptions(int fd, const TcpOptions& options) noexcept;

std::error_code LocalAddressOf(int fd, SocketAddress* address) noexcept;
std::error_code PeerAddressOf(int fd, SocketAddress* address) noexcept;

// Far below what one call takes (MAX_RW_COUNT, just under 2 GiB), so that no size comes near a signed
// 32-bit count anywhere below.
inline constexpr std::size_t kLargestWrite = std::size_t{1} << 30;

// As recv(2), send(2) without SIGPIPE, and sendmsg(2): -1 and `errno`, but never EINTR. A short
// count is normal.
ssize_t RecvSome(int fd, std::span<std::byte> buffer) noexcept;
ssize_t SendSome(int fd, std::span<const std::byte> bytes) noexcept;
ssize_t SendSome(int fd, iovec* parts, int count) noexcept;

// Sends the FIN; whether it could.
bool ShutdownWrite(int fd) noexcept;

// Written and not acknowledged by the peer's kernel, the FIN counted as one (tcp(7), SIOCOUTQ); 0
// if it cannot be told.
std::uint64_t UnackedBytes(int fd) noexcept;

}  // namespace xtcp::internal
