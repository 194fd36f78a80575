#pragma once

#include <xtcp/export.h>

#include <system_error>
#include <type_traits>

namespace xtcp {

// The library's own errors. Whatever the system refuses is reported as it is, in
// `std::system_category()`.
enum class Errc {
  // `Send`, `SendPacket`, `Conn::Post`: the connection is closed, or its dial has failed.
  kClosed = 1,

  // `Send`, `SendPacket`: a stop has begun, or the peer has ended its stream.
  kStopping,

  // `Send`, `SendPacket`: the bytes do not fit into what is left of `Options::send_buffer_limit`
  // now; `Handler::OnSendReady` follows when there is room. `Dial`: too many names wait to be
  // looked up.
  kFull,

  // `Send`, `SendPacket`: more bytes than `Options::send_buffer_limit`; they will never fit.
  kTooLarge,

  // An allocation failed. When `Send` returns it, nothing was queued.
  kNoMemory,

  // `SendPacket`, `Protocol::Pack`: `PackTo` wrote another number of bytes than `PackSize` said, or
  // one of the two threw (std::bad_alloc is kNoMemory).
  kBadPacket,

  // `ConnStats::error`: `Unpack` gave an answer outside its rules.
  kProtocolError,

  // `Listen`, the dials: the address does not parse.
  kBadAddress,

  // `Listen`, the dials: the name has no address.
  kHostNotFound,

  // `Serve`: there is no listener. `Adopt`: the descriptor is not a listening stream socket.
  kNotListening,

  // `Serve`, `DialAndServe`: called before; an object serves or dials once. `Listen`, `Adopt`:
  // after `Serve`.
  kAlreadyUsed,

  // The dials: stopped before the connection was established. `Start`, `Loop::Post`: the group was
  // stopped, or has ended.
  kStopped,

  // A call that waits was made inside a callback of this library.
  kWouldDeadlock,

  // Nothing runs that could serve it: `Conn::Dial` of a connection that was not made for a loop,
  // `Server::Start` of a server with a group of its own, an empty `Loop`.
  kNoLoop,
};

// The category of `Errc`; its name is "xtcp". Any thread.
XTCP_API const std::error_category& ErrorCategory() noexcept;

// Makes an `Errc` a std::error_code. Any thread.
inline std::error_code make_error_code(Errc code) noexcept {
  return {static_cast<int>(code), ErrorCategory()};
}

}  // namespace xtcp

// So that an `Errc` is a std::error_code wherever one is wanted.
template <>
struct std::is_error_code_enum<xtcp::Errc> : std::true_type {};
