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

// What the library does with sockets: thin functions above the system calls, which know what each
// error means. EINTR is not visible above them. Every descriptor is non-blocking and close-on-exec
// from birth. None of the functions allocates memory.
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
  // They are set before listen(2): a socket inherits what its listener has when the handshake ends,
  // which may be before it is accepted.
  TcpOptions tcp{};
};

bool IsTcp(const sockaddr* address) noexcept;

// ---- Listening

// Makes a socket, binds it and listens. With an error nothing is left open. With `any_family` the
// socket also takes IPv4, or only IPv4 if there is no IPv6. A socket file on which nobody answers
// is removed first; nothing else ever is. `file`, if given, gets the file of the new socket;
// otherwise that file is never removed.
std::error_code OpenListener(const SocketAddress& address, bool any_family,
                             const ListenOptions& options, UniqueFd* out,
                             SocketFile* file = nullptr) noexcept;

// Makes a socket that was opened elsewhere ready for our loop. Returns Errc::kNotListening unless
// it is a stream socket that listens.
std::error_code PrepareAdopted(int fd) noexcept;

struct AcceptResult {
  UniqueFd fd;
  int error = 0;  // of accept4(2), for ClassifyAccept
  SocketAddress peer;
};

// Accepts one connection, or says why there is none.
AcceptResult Accept(int listener) noexcept;

enum class AcceptOutcome {
  kConnection,  // there is one
  kDone,        // nothing waits
  kNext,        // this one is gone; the next one may be there
  kExhausted,   // no descriptors or no memory: try again later
  kDead,        // the listener is of no use any more
};

// What an error of accept4(2) means for the listener.
AcceptOutcome ClassifyAccept(int error) noexcept;

// ---- Connecting

// Begins to connect. If `*in_progress` is set, the socket becomes writable when connecting has
// ended, and FinishConnect tells how. connect(2) is never repeated. `options` are for TCP sockets
// only.
std::error_code StartConnect(const SocketAddress& address, const TcpOptions& options, UniqueFd* out,
                             bool* in_progress) noexcept;

enum class ConnectOutcome {
  kInProgress,   // writable, but not connected yet
  kEstablished,  // and perhaps reset since then: `error` says how
  kFailed,
};
struct ConnectResult {
  ConnectOutcome outcome = ConnectOutcome::kFailed;
  int error = 0;
};

// Tells what became of a connect that was in progress, once epoll has reported its socket. A socket
// that is its own peer has failed (ECONNREFUSED), and its port is free as soon as it is closed.
ConnectResult FinishConnect(int fd) noexcept;

// Returns SO_ERROR and clears it; or returns why it could not be asked for.
int TakeSocketError(int fd) noexcept;

// ---- Connected

// Sets the options of a TCP socket as far as the kernel allows. Returns how many it refused; each
// of them is a line in the log.
int ApplyTcpOptions(int fd, const TcpOptions& options) noexcept;

// Where the two ends of a socket are (getsockname(2), getpeername(2)).
std::error_code LocalAddressOf(int fd, SocketAddress* address) noexcept;
std::error_code PeerAddressOf(int fd, SocketAddress* address) noexcept;

// The most bytes of one write. It is far below what one call takes (MAX_RW_COUNT, just under 2
// GiB), so that no size comes near a signed 32-bit count anywhere in the kernel.
inline constexpr std::size_t kLargestWrite = std::size_t{1} << 30;

// These do what recv(2), send(2) and sendmsg(2) say, without SIGPIPE: they return -1 and set
// `errno` on failure, but never to EINTR. A short count is normal.
ssize_t RecvSome(int fd, std::span<std::byte> buffer) noexcept;
ssize_t SendSome(int fd, std::span<const std::byte> bytes) noexcept;
ssize_t SendSome(int fd, iovec* parts, int count) noexcept;

// Hides a listener from clients that connect from now on; they are refused. Handshakes that have
// begun go on, and can be accepted. Returns an errno, 0 when it could be done.
int HideListener(int fd) noexcept;

// Sends the FIN. Returns whether it could.
bool ShutdownWrite(int fd) noexcept;

// Returns how many bytes were written and are not acknowledged by the peer's kernel; the FIN counts
// as one (tcp(7), SIOCOUTQ). Returns 0 if the kernel does not tell.
std::uint64_t UnackedBytes(int fd) noexcept;

}  // namespace xtcp::internal
