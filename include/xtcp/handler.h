#pragma once

#include <xtcp/export.h>
#include <xtcp/protocol.h>

#include <cstddef>
#include <memory>
#include <span>
#include <system_error>

namespace xtcp {

class Conn;

// How a connection is held, by all who hold it; see `Conn`.
using ConnPtr = std::shared_ptr<Conn>;

// One connection's events, in this order: `kAccept` on a server or `kConnected` on a dialled
// connection first, any number of `kRecv` in wire order, then `kClosed`, exactly once and last. A
// failed dial has no event at all, but `Handler::OnDialFailed`.
enum class EventType { kAccept, kConnected, kRecv, kClosed };

// What the application does with events.
//
// Thread safety: the callbacks of one connection run on its loop's thread, never overlap, and each
// happens before the next. One handler serves many connections: its callbacks for *different*
// connections run at the same time when `Options::loops` is more than 1, or when several servers or
// connections share it.
//
// Inside every callback all of `Conn` and `Server` may be called, except that calls which wait do
// not wait (`Errc::kWouldDeadlock`). No lock of the library is held. An exception that leaves a
// callback is logged and ends that connection only (CloseReason::kException).
//
// Lifetime: shared by `Options`; a connection lets go of it when `kClosed` has returned.
class XTCP_API Handler {
 public:
  virtual ~Handler();

  // One event. `packet` is set for `kRecv` only; a packet that keeps a part of the receive buffer
  // must not be used after the call. After a stop of this connection was seen no `kRecv` comes.
  // `kClosed` is never nested in a stop: it comes when the callback has returned. The descriptor is
  // closed by then, and `conn->Stats()` is final and says why.
  virtual void OnEvent(EventType event, const ConnPtr& conn, PacketPtr packet) = 0;

  // `Unpack` reported an error; `bad` are the bytes it consumed, or all that wait when it could not
  // resynchronise. The view is valid during the call. Does nothing unless overridden. The
  // connection may be stopped here.
  virtual void OnUnpackError(const ConnPtr& conn, std::span<const std::byte> bad,
                             std::error_code error);

  // After one or more refusals with `Errc::kFull`, comes once when at least half of
  // `Options::send_buffer_limit`, and the size of the largest refused call, are free. Between the
  // first event and `kClosed`, at most once a turn of the loop, never after a stop. Does nothing
  // unless overridden.
  //
  // A refusal and the note that it happened are one step. So whoever holds a lock of his own across
  // `Send` and what he does about `kFull`, and takes it here, misses nothing.
  virtual void OnSendReady(const ConnPtr& conn);

  // A dial has failed, or was stopped before the connection was established: what `DialAndServe` would
  // have returned, or returns. It comes once, in place of `kConnected`, on the loop's thread (of
  // `DialAndServe` without a loop, on the calling thread), never nested in `Dial`. `Stats()` is final,
  // with `CloseReason::kConnectFailed`. Does nothing unless overridden.
  virtual void OnDialFailed(const ConnPtr& conn, std::error_code error);

  // The time of `Conn::SetTimer` has come. Also while reading is paused; never before the first event,
  // nor once a stop or the peer's end of stream was seen. Does nothing unless overridden.
  virtual void OnTimer(const ConnPtr& conn);
};

}  // namespace xtcp
