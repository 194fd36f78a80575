#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <system_error>

#include "buffer/outbound_buffer.h"
#include "conn/conn_context.h"
#include "conn/deadlines.h"
#include "conn/intake.h"
#include "loop/totals.h"
#include "loop/turn.h"

namespace xtcp::internal {

// The way of a byte out:
//
//   Send in the connection's own turn ──► gathers in the turn ─┐        the kernel
//                                                              ├─ one write ─► took all
//   Send on its loop, in another turn ──► `sending_` ──────────┘      └──────► the rest waits in
//                                             ▲                                `sending_` for EPOLLOUT
//   Send on another thread ──► Intake's pending bytes, taken at the end of a turn
//
// Older bytes are always in front: gathered or `sending_`, of which one is empty, then pending. On the
// loop's thread no lock is taken as long as the connection has *credit*: bytes that are charged to its
// budget for sends to come.
//
// Loop thread only, but for the account.
class Outbound {
 public:
  Outbound() = default;

  // ---- Around a turn.

  // Lends the turn the room that is charged. With a queue nothing gathers: it would be overtaken.
  void BeginTurn(Turn& turn) const { turn.SetCharged(sending_.empty() ? credit_ : 0); }

  // Writes what there is, until the kernel takes no more.
  void Flush(Turn& turn, Intake& intake, Deadlines& deadlines);

  // Calls OnSendReady when it is due, and writes what that sends. Whether a send was refused again.
  bool OfferSendReady(Turn& turn, Intake& intake, const ConnContext& context, Deadlines& deadlines);

  // Gives room back that is not needed.
  void Settle(Intake& intake, const ConnContext& context);

  // ---- Sends on the loop's thread.

  // In the connection's own turn, when all is well: queues bytes that fit into the charged room. The
  // caller has looked at the state.
  static bool MayGather(const Turn& turn, std::size_t size) {
    return size - 1 < turn.charged_room();  // and not 0
  }

  // In its own turn otherwise; and in another turn, or in none. An error: nothing was queued, and the
  // refusal is counted.
  std::error_code SendInTurn(std::span<const std::byte> bytes, Turn& turn, Intake& intake,
                             const ConnContext& context, Deadlines& deadlines);
  std::error_code SendElsewhere(std::span<const std::byte> bytes, const Service& service,
                                Intake& intake, const ConnContext& context, Deadlines& deadlines);

  // ---- What the life asks and tells.

  // Nothing that was accepted waits to be written.
  bool empty(const Turn& turn, const Intake& intake) const {
    return sending_.empty() && turn.gathered().empty() && !intake.has_pending();
  }
  bool has_queue() const { return !sending_.empty(); }

  // The socket may take bytes again; whether it is known that it does not.
  void Unblock() { blocked_ = false; }
  bool blocked() const { return blocked_; }

  // The socket takes no more bytes: an errno, or 0.
  int error() const { return error_; }
  void Break(int error) { error_ = error; }

  // Drops what is queued: the connection is closed. Pending bytes are taken by `Intake::Close`.
  OutboundBuffer& queue() { return sending_; }
  void Clear(BlockPool& pool) { sending_.Clear(pool); }

  // Adds what the turn has gathered to the account.
  void CountGathered(Turn& turn);

  // Any thread.
  const SendAccount& account() const { return account_; }
  SendAccount& account() { return account_; }

 private:
  void CountAccepted(std::size_t bytes, std::size_t sends, LoopTotals& totals);
  bool MayWriteNow(const Turn& turn, const Intake& intake) const;
  void WriteAtOnce(std::span<const std::byte> bytes, Turn& turn, Deadlines& deadlines);
  bool Queue(std::span<const std::byte> bytes, const Service& service, Deadlines& deadlines);
  bool QueueGathered(Turn& turn, Deadlines& deadlines);
  bool WriteGathered(Turn& turn, Deadlines& deadlines);
  bool WriteQueued(Turn& turn, Deadlines& deadlines);
  void TakePending(const Service& service, Intake& intake, Deadlines& deadlines);
  void NoteQueueBegins(const Service& service, Deadlines& deadlines);
  void NoteTaken(std::size_t bytes, Turn& turn, Deadlines& deadlines);
  void HandleWriteError(int error, Turn& turn);

  OutboundBuffer sending_;  // what the kernel did not take yet
  std::size_t credit_ = 0;  // charged for what is gathered, and for sends to come
  int error_ = 0;
  bool blocked_ = false;  // something is left over: wait for EPOLLOUT
  SendAccount account_;
};

}  // namespace xtcp::internal
