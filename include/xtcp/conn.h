#pragma once

#include <xtcp/address.h>
#include <xtcp/export.h>
#include <xtcp/handler.h>
#include <xtcp/loop.h>
#include <xtcp/options.h>
#include <xtcp/part.h>
#include <xtcp/protocol.h>
#include <xtcp/stop_mode.h>
#include <xtcp/task.h>

#include <any>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <system_error>
#include <utility>

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
  kConnectFailed,   // the dial failed, or was stopped before the connection was established
};

// Returns the name of the reason without its "k", for example "PeerClosed".
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
// The peer's FIN is the end of input, not of output: what is queued is written, and then the
// connection closes (kPeerClosed); a `Send` from then on is `Errc::kStopping`. A reset closes at
// once, after everything that arrived before it was delivered (kPeerReset).
//
// Thread safety: any thread, except `UserData` and `Descriptor`.
// Lifetime: it is always held by `ConnPtr`, even after its end and longer than its server. A
// connection lives until it is closed; dropping its handles never closes it. When `kClosed` has
// returned, or a dial has failed, it releases its handler and destroys its user data, on the thread
// of its loop. So handlers and user data may hold `ConnPtr`s.
class XTCP_API Conn {
 public:
  virtual ~Conn();

  // Queues a copy of all of `bytes`, or of none, and says why not: `Errc::kClosed`, `kStopping`,
  // `kFull`, `kTooLarge` or `kNoMemory`. A call without bytes succeeds and has no effect.
  //
  // It never waits for the network, runs no callback, and may be called with the caller's own locks
  // held. The bytes of one call are contiguous on the wire, and two calls of which one happens
  // before the other appear in that order. Success means accepted, not delivered: `Stats()` and the
  // stop's report tell how much was written.
  //
  // On a connection that is not dialled yet the bytes wait, and go out before what is sent in
  // `kConnected`. Any thread.
  [[nodiscard]] virtual std::error_code Send(std::span<const std::byte> bytes) = 0;
  [[nodiscard]] std::error_code Send(std::string_view text) {
    return Send(std::as_bytes(std::span(text.data(), text.size())));
  }

  // Sends the bytes of all parts, one after the other, as one `Send`: all or none, contiguous,
  // counted once. A part with an owner is queued as a reference to its bytes, which must not change
  // while anybody holds the owner (small ones may be copied); `send_buffer_limit` counts its bytes
  // all the same, on each connection.
  //
  // An owner is let go when the last of its bytes was taken by the kernel, or when the connection
  // closes, then before `kClosed`: on the loop's thread, outside this connection's callbacks, with
  // no lock of the library held, so that its destructor may do what a callback may. It must not
  // throw. After a refusal it is let go before the call returns. Any thread.
  [[nodiscard]] virtual std::error_code SendParts(std::span<const Part> parts);
  [[nodiscard]] std::error_code SendParts(std::initializer_list<Part> parts) {
    return SendParts(std::span<const Part>(parts.begin(), parts.size()));
  }

  // Ends the output, and not the input: refuses further sends (`Errc::kStopping`), has everything
  // that was accepted written, and then a FIN sent. `kRecv` goes on. When the peer has ended its
  // stream, too, the connection closes (kPeerClosed). It is no stop, and every stop may follow.
  // Idempotent; it needs no `Options::half_close`. Any thread, any callback.
  virtual void EndSend();

  // Packs `packet` on the calling thread, and then does as `Send`. `Errc::kBadPacket`, and errors
  // of `Protocol::PackTo`, mean that nothing was queued and that the connection goes on. Any
  // thread.
  [[nodiscard]] virtual std::error_code SendPacket(const Packet& packet) = 0;

  // Stops this connection; `StopMode` says how. It needs no memory and no descriptor. Any thread,
  // any callback, any number of times; it is not async-signal-safe.
  //
  // Before `DialAndServe` it makes that return `Errc::kStopped`. No stop waits for a name look-up,
  // which nothing can interrupt: it returns at once, and `DialAndServe` returns `kStopped` when the
  // look-up is over.
  virtual StopReport Stop(StopMode mode) = 0;

  // Connects to `address` ("host:port", "[v6]:port", "unix:/path", "unix:@abstract") and serves the
  // connection on the calling thread until it has ended. All addresses of a name are tried in turn,
  // each with an equal share of the time that is left. On a connection that was made for a loop it
  // is `Dial`, and then waits until the connection has ended.
  //
  // Returns no error if the connection was established, however it ended later (`Stats` tells).
  // Otherwise it returns `Errc::kBadAddress`, `kHostNotFound`, `kStopped`, `kAlreadyUsed` (a
  // connection dials once, and an accepted one never), `kWouldDeadlock` (inside a callback), or the
  // system's error for the last address tried, which is ETIMEDOUT after `connect_timeout`.
  [[nodiscard]] virtual std::error_code DialAndServe(std::string_view address) = 0;

  // Begins to connect to `address` and returns at once; the connection is served on the loop that
  // it was made for. It may be called once. Any thread, any callback.
  //
  // An error means that no callback follows: `Errc::kBadAddress`, `kAlreadyUsed`, `kNoLoop` (it was
  // made without a loop, or accepted), `kNoMemory`, `kFull` (1,024 names wait to be looked up), or
  // `kStopped` after a stop of it or of its group. Otherwise exactly one of `kConnected` and
  // `Handler::OnDialFailed` follows, before any stop that waits returns. `connect_timeout` begins
  // with the call, and includes the look-up of a name.
  [[nodiscard]] virtual std::error_code Dial(std::string_view address);

  // Runs `task` once as a callback of this connection: after its first event, in order, never
  // overlapping its other callbacks, even while it is paused or stopping. It runs before `kClosed`
  // or not at all; in that case it is destroyed on the loop's thread when `kClosed` has returned,
  // or when the dial has failed.
  //
  // Returns `Errc::kClosed` from `kClosed` (or a failed dial) on, or `kNoMemory`. A stop is no
  // reason for a refusal. Any thread, even with the caller's own locks held.
  [[nodiscard]] virtual std::error_code Post(Task task);

  // Has `Handler::OnTimer` called once, `delay` after the beginning of this turn of the loop; 0 or
  // less means in the next turn. A connection has one timer: setting it again replaces it, and
  // `CancelTimer` removes it. It needs no memory. To be called on the thread of its loop, inside
  // any callback; elsewhere, before the first event and after the end it has no effect.
  virtual void SetTimer(std::chrono::milliseconds delay);
  virtual void CancelTimer();

  // Returns the loop on which it lives, or for which it was made. Any thread.
  virtual Loop loop() const;

  // Stops and resumes reading. Idempotent; calls do not nest. They may be called before the
  // connection is established. A pause takes effect at once inside this connection's callback, and
  // otherwise before the next read. Any thread.
  //
  // While paused no `kRecv` comes, not even from what is buffered; the peer's FIN is not seen; a
  // reset closes the connection and drops what was unread; the clocks of `read_deadline` and
  // `packet_deadline` are stopped; a graceful stop reads and discards all the same. Resuming
  // delivers buffered packets without waiting for input.
  virtual void PauseRecv() = 0;
  virtual void ResumeRecv() = 0;

  // Returns whether `Send` is refused from now on. Any thread.
  virtual bool IsStopped() const = 0;

  // Returns the account as it is now. Any thread.
  virtual ConnStats Stats() const = 0;

  // Return the addresses of the two ends, empty before the connection is established. Any thread,
  // even after the end.
  virtual Address LocalAddress() const = 0;
  virtual Address RemoteAddress() const = 0;

  // Holds whatever the application wants to keep with the connection. To be used inside callbacks
  // on this connection's loop, or before its dial, and nowhere else.
  virtual std::any& UserData() = 0;

  // Keeps a `T` in `UserData`, made from `args`, in the place of what was there; and returns it, or
  // null when nothing or another type is there. `T` may be move-only, or neither copied nor moved.
  // To be called where `UserData` may be used.
  template <typename T, typename... Args>
  T& EmplaceData(Args&&... args) {
    auto data = std::make_shared<T>(std::forward<Args>(args)...);
    T& kept = *data;
    UserData() = std::move(data);
    return kept;
  }
  template <typename T>
  T* Data() noexcept {
    const auto* const data = std::any_cast<std::shared_ptr<T>>(&UserData());
    return data == nullptr ? nullptr : data->get();
  }

  // Returns the decoder of this connection, null if its protocol makes none. To be called where
  // `UserData` may be used.
  virtual Protocol::Decoder* decoder();

  // Returns the socket, for getsockopt(2) (SO_PEERCRED, TCP_INFO, …); -1 before the connection is
  // established and once it is closed. Do not read, write or close it. To be called where
  // `UserData` may be used.
  virtual int Descriptor() const = 0;

  // Returns a text for logs: "127.0.0.1:80 <- 127.0.0.1:40000" on a server, with "->" on a dialled
  // connection. Any thread.
  virtual std::string ToString() const = 0;
};

// Makes a connection to dial with `DialAndServe`. It has no socket and no thread until then. Throws
// `std::invalid_argument` as `Options` says. Any thread.
[[nodiscard]] XTCP_API ConnPtr NewConn(Options options);

// Makes a connection to dial with `Dial`, which is served on `loop`. With an empty loop `Dial` and
// `DialAndServe` return `Errc::kNoLoop`. Throws as above. Any thread.
[[nodiscard]] XTCP_API ConnPtr NewConn(Options options, Loop loop);

}  // namespace xtcp
