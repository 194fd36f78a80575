#pragma once

#include <xtcp/export.h>
#include <xtcp/protocol.h>

#include <cstddef>
#include <memory>
#include <span>
#include <system_error>

namespace xtcp {

class Conn;

// The way in which everybody holds a connection; see `Conn`.
using ConnPtr = std::shared_ptr<Conn>;

// One connection's events, in this order: `kAccept` on a server or `kConnected` on a dialled
// connection first, any number of `kRecv` in wire order, then `kClosed`, exactly once and last. A
// failed dial has no event; `Handler::OnDialFailed` is called instead.
enum class EventType {
  kAccept,     // a server has a new connection
  kConnected,  // a dial has succeeded
  kRecv,       // a packet has come
  kClosed,     // the connection has ended; `Conn::Stats` says why
};

// What the application does with events.
//
// Thread safety: the callbacks of one connection run on its loop's thread, never overlap, and each
// happens before the next. One handler serves many connections: its callbacks for *different*
// connections run at the same time when `Options::loops` is more than 1, or when several servers or
// connections share it.
//
// Any method of `Conn`, `Server`, `Loop` and `LoopGroup` may be called inside a callback; one that
// would wait returns `Errc::kWouldDeadlock` instead. No lock of the library is held. An exception
// that leaves a callback is logged and ends that connection only (CloseReason::kException).
//
// Lifetime: shared by `Options`; a connection releases it when `kClosed` has returned.
class XTCP_API Handler {
 public:
  virtual ~Handler();

  // Handles one event. `packet` is set for `kRecv` only; a packet that keeps a part of the receive
  // buffer must not be used after the call.
  //
  // No `kRecv` follows once the loop has seen a stop. `Stop` never delivers `kClosed` itself: it
  // comes after the current callback has returned. The descriptor is closed by then, and
  // `conn->Stats()` is final and says why.
  virtual void OnEvent(EventType event, const ConnPtr& conn, PacketPtr packet) = 0;

  // `Unpack` reported an error; `bad` are the bytes that it consumed, or all that wait if it could
  // not resynchronise. The view is valid during the call. The connection may be stopped here. Does
  // nothing unless overridden.
  virtual void OnUnpackError(const ConnPtr& conn, std::span<const std::byte> bad,
                             std::error_code error);

  // After one or more refusals with `Errc::kFull` it is called once, when at least half of
  // `Options::send_buffer_limit`, and the size of the largest refused call, are free. It comes
  // between the first event and `kClosed`, at most once in a turn of the loop, and never after a
  // stop. Does nothing unless overridden.
  //
  // Refusing a send and scheduling this call is one atomic step. A caller that holds its own lock
  // across `Send` and its handling of `kFull`, and takes the same lock here, cannot miss the
  // notification.
  virtual void OnSendReady(const ConnPtr& conn);

  // A dial has failed, or was stopped before the connection was established; `error` is what
  // `DialAndServe` returns in this case. It comes once, in place of `kConnected`, on the loop's
  // thread (on the calling thread of a `DialAndServe` without a loop), and never nested in `Dial`.
  // `Stats()` is final, with `CloseReason::kConnectFailed`. Does nothing unless overridden.
  virtual void OnDialFailed(const ConnPtr& conn, std::error_code error);

  // With `Options::half_close`: the peer has ended its stream. It comes once, after everything that
  // came before it (a pause holds it back), never after a stop was seen. Bytes of an unfinished
  // packet are dropped first. `Send` keeps working: an override has to end the connection, by a
  // stop or by `Conn::EndSend`. Unless overridden, it stops the connection gracefully.
  virtual void OnRecvEnd(const ConnPtr& conn);

  // The server drains (`Server::Drain`): a good moment to tell the peer that this connection ends.
  // It comes once for each connection, after its first event, never after a stop was seen; even
  // while paused. One that is accepted later gets it right after `kAccept`. Does nothing unless
  // overridden.
  virtual void OnDrain(const ConnPtr& conn);

  // The time of `Conn::SetTimer` has come. It is called even while reading is paused, but never
  // before the first event, nor once a stop or the peer's end of stream was seen. Does nothing
  // unless overridden.
  virtual void OnTimer(const ConnPtr& conn);
};

}  // namespace xtcp
