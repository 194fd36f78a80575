#pragma once

#include <xtcp/address.h>
#include <xtcp/export.h>
#include <xtcp/handler.h>
#include <xtcp/loop.h>
#include <xtcp/options.h>
#include <xtcp/stop_mode.h>
#include <xtcp/task.h>

#include <any>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <system_error>

namespace xtcp {

// Why a connection ended. docs/errors.md says what to do about each.
enum class CloseReason {
  kNone,            // it has not ended
  kPeerClosed,      // the peer ended its stream, and what was queued has been written
  kPeerReset,       // the peer reset the connection, or no longer takes what we write
  kLocalStop,       // a stop of the connection or its server, carried out as asked
  kLingerTimeout,   // `linger_timeout` cut a graceful stop, or the flush after the peer's end of
                    // stream
  kReadDeadline,    // `read_deadline`
  kWriteDeadline,   // `write_deadline`
  kPacketDeadline,  // `packet_deadline`
  kPacketTooLarge,  // a packet over `max_packet_size`, or a first one over `first_packet_size`
  kProtocolError,   // `Unpack` could not resynchronise, or gave an answer outside its rules
  kException,       // a callback or `Unpack` threw
  kNoMemory,        // an allocation failed
  kSystemError,     // another error of a system call; it is in `error`
  kConnectFailed,   // `DialAndServe` failed, or was stopped before the connection stood
};

// The name of the reason without its "k", "PeerClosed".
XTCP_API std::string_view ToString(CloseReason reason) noexcept;

// A snapshot of one connection's account. From `kClosed` (or a failed dial) on it is final.
struct ConnStats {
  std::uint64_t received_bytes = 0;    // taken from the kernel
  std::uint64_t received_packets = 0;  // delivered with `kRecv`
  std::uint64_t accepted_bytes = 0;    // by `Send` and `SendPacket`
  std::uint64_t accepted_sends = 0;    // calls of the two that succeeded
  std::uint64_t refused_sends = 0;     // and that did not
  std::uint64_t written_bytes = 0;     // taken by the kernel

  // Of `written_bytes`, those that the peer's kernel had not acknowledged just before `close`
  // (SIOCOUTQ, tcp(7)), less the one that our FIN adds; 0 on Unix sockets and until the end. An
  // upper bound on what can still be lost. Acknowledged means received by the peer's kernel, not by
  // its application.
  std::uint64_t unacked_bytes = 0;

  // From accept or connect to now, or to the end.
  std::chrono::milliseconds age{0};

  // Why it ended, and with which error, if that is one.
  CloseReason reason = CloseReason::kNone;
  std::error_code error{};

  // Accepted but never written; while the connection is open: queued.
  std::uint64_t unsent_bytes() const noexcept { return accepted_bytes - written_bytes; }
};

// One connection: accepted by a `Server`, or made by `NewConn` and dialled. Abstract, so that
// applications can fake it in their own tests.
//
// The peer's FIN is the end of input, not of output: what is queued is written, then the connection
// closes (kPeerClosed); a `Send` from then on is `Errc::kStopping`. A reset closes at once, after
// what had arrived before it was delivered (kPeerReset).
//
// Thread safety: any thread, except `UserData` and `Descriptor`.
// Lifetime: always held by `ConnPtr`, also after the end and longer than its server. A connection
// lives until it is closed, whoever drops its handle; dropping handles never closes one. When
// `kClosed` has returned, or a dial has failed, it lets go of its handler and destroys its user
// data, on its own thread. So handlers and user data may hold `ConnPtr`s.
class XTCP_API Conn {
 public:
  virtual ~Conn();

  // Queues a copy of all of `bytes`, or of none, and says why not: `Errc::kClosed`, `kStopping`,
  // `kFull`, `kTooLarge` or `kNoMemory`. No bytes: success, no effect. It never waits for the
  // network, runs no callback, and may be called with the caller's own locks held. The bytes of one
  // call are contiguous on the wire, and two calls of which one happens before the other appear in
  // that order. Success means accepted, not delivered: `Stats()` and the stop's report tell how
  // much was written. Any thread. On a connection that is not dialled yet the bytes wait, and go
  // out ahead of what is sent in `kConnected`.
  [[nodiscard]] virtual std::error_code Send(std::span<const std::byte> bytes) = 0;
  [[nodiscard]] std::error_code Send(std::string_view text);

  // Packs `packet` on the calling thread, then as `Send`. Also `Errc::kBadPacket`, or what
  // `Protocol::PackTo` returned; then nothing was queued and the connection goes on. Any thread.
  [[nodiscard]] virtual std::error_code SendPacket(const Packet& packet) = 0;

  // Stops this connection; `StopMode` says how. Needs no memory and no descriptor. Any thread, any
  // callback, any number of times; not async-signal-safe. Before `DialAndServe` it makes that
  // return `Errc::kStopped`. No stop waits for a name look-up, which nothing can interrupt: it
  // returns at once, and `DialAndServe` returns `kStopped` when the look-up is over.
  virtual StopReport Stop(StopMode mode) = 0;

  // Connects to `address` ("host:port", "[v6]:port", "unix:/path", "unix:@abstract") and serves the
  // connection on the calling thread until it has ended. No error when the connection stood,
  // however it ended (`Stats` tells); else `Errc::kBadAddress`, `kHostNotFound`, `kStopped`,
  // `kAlreadyUsed` (a connection dials once; also on an accepted one), `kWouldDeadlock` (inside a
  // callback), or the system's error of the last address tried, ETIMEDOUT after `connect_timeout`.
  // All addresses of a name are tried in turn, each with an equal share of the time that is left.
  // On a connection that was made for a loop it is `Dial`, and waits until the connection has ended.
  [[nodiscard]] virtual std::error_code DialAndServe(std::string_view address) = 0;

  // Begins to connect to `address` and returns at once; the connection is served on the loop that it
  // was made for. Once. An error means that no callback follows: `Errc::kBadAddress`, `kAlreadyUsed`,
  // `kNoLoop` (it was made without a loop, or accepted), `kNoMemory`, `kFull` (1,024 names wait to be
  // looked up), `kStopped` after a stop of it or of its group. Otherwise exactly one of `kConnected` and
  // `Handler::OnDialFailed` follows, before any stop that waits returns. `connect_timeout` begins with
  // the call, and includes the look-up of a name. Any thread, any callback.
  [[nodiscard]] virtual std::error_code Dial(std::string_view address);

  // Runs `task` once as a callback of this connection: after its first event, in order, not overlapping
  // with its others, also while it is paused or stopping; before `kClosed`, or not at all. A task that
  // does not run is destroyed on the loop's thread when `kClosed` has returned, or the dial has failed.
  // `Errc::kClosed` from `kClosed` (or a failed dial) on, `kNoMemory`; never because of a stop. Any
  // thread, with the caller's own locks held.
  [[nodiscard]] virtual std::error_code Post(Task task);

  // Calls `Handler::OnTimer` once, `delay` after the beginning of this turn of the loop (0 or less: in
  // the next turn). A connection has one timer: setting it again replaces it. Needs no memory. On the
  // thread of its loop, inside any callback; elsewhere, before its first event and after its end it has
  // no effect.
  virtual void SetTimer(std::chrono::milliseconds delay);
  virtual void CancelTimer();

  // The loop on which it lives, or which it was made for. Any thread.
  virtual Loop loop() const;

  // Stops and resumes reading; idempotent, not counted, also before the connection stands. A pause
  // takes effect at once inside this connection's callback, else before the next read. While paused
  // no `kRecv` comes, also not from what is buffered; the peer's FIN is not seen, a reset closes
  // and drops what was unread; `read_deadline` and `packet_deadline` stand still; a graceful stop
  // reads and discards all the same. Resuming delivers buffered packets without waiting for input.
  // Any thread.
  virtual void PauseRecv() = 0;
  virtual void ResumeRecv() = 0;

  // Whether `Send` is refused from now on. Any thread.
  virtual bool IsStopped() const = 0;

  // Any thread.
  virtual ConnStats Stats() const = 0;

  // Where the two ends are; empty before the connection stands. Any thread, also after the end.
  virtual Address LocalAddress() const = 0;
  virtual Address RemoteAddress() const = 0;

  // Whatever the application wants to keep with the connection. Only inside callbacks on this
  // connection's loop, or before its dial.
  virtual std::any& UserData() = 0;

  // The socket, for getsockopt(2) (SO_PEERCRED, TCP_INFO, …); -1 before the connection stands and
  // once it is closed. Do not read, write or close it. Only where `UserData` is allowed.
  virtual int Descriptor() const = 0;

  // For logs: "127.0.0.1:80 <- 127.0.0.1:40000" on a server, "->" on a dialled connection. Any
  // thread.
  virtual std::string ToString() const = 0;
};

// A connection to dial with `DialAndServe`. It has no socket and no thread until then. Throws
// `std::invalid_argument` as `Options` says. Any thread.
[[nodiscard]] XTCP_API ConnPtr NewConn(Options options);

// A connection to dial with `Dial`, which is served on `loop`. As above; an empty loop makes one whose
// `Dial` and `DialAndServe` are `Errc::kNoLoop`.
[[nodiscard]] XTCP_API ConnPtr NewConn(Options options, Loop loop);

}  // namespace xtcp
