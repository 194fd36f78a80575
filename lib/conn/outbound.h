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
//   Send on its loop, in another turn ──► `sending_` ──────────┘      └──────► the rest waits
//                                             ▲                                in `sending_`
//   Send on another thread ──► Intake's pending bytes, taken at the end of     for EPOLLOUT
//                              a turn
//
// Older bytes are always in front: what has gathered or `sending_`, of which one is empty, then
// what is pending. On the loop's thread no lock is taken as long as the connection has *credit*:
// bytes that are charged to its budget for sends to come.
//
// Loop thread only, except for the account.
class Outbound {
 public:
  Outbound() = default;

  // ---- Around a turn.

  // Lends the turn the room that is charged. While something is queued nothing gathers, since it
  // would overtake the queue.
  void BeginTurn(Turn& turn) const { turn.SetCharged(sending_.empty() ? credit_ : 0); }

  // Writes what there is, until the kernel takes no more.
  void Flush(Turn& turn, Intake& intake, Deadlines& deadlines);

  // Calls OnSendReady when it is due, and writes what that sends. Returns whether a send was
  // refused again.
  bool OfferSendReady(Turn& turn, Intake& intake, const ConnContext& context, Deadlines& deadlines);

  // Gives room back that is not needed.
  void Settle(Intake& intake, const ConnContext& context);

  // ---- Sends on the loop's thread.

  // Returns whether a send in the connection's own turn fits into the room that is charged, so that
  // `Turn::Gather` may take it. The caller has looked at the state.
  static bool MayGather(const Turn& turn, std::size_t size) {
    return size - 1 < turn.charged_room();  // and not 0
  }

  // Queue other sends: those in its own turn, and those in another turn or in none. An error means
  // that nothing was queued, and the refusal is counted.
  std::error_code SendInTurn(std::span<const std::byte> bytes, Turn& turn, Intake& intake,
                             const ConnContext& context, Deadlines& deadlines);
  std::error_code SendElsewhere(std::span<const std::byte> bytes, const Service& service,
                                Intake& intake, const ConnContext& context, Deadlines& deadlines);

  // Queues parts of `size` bytes together; `turn` is null in another turn, or in none.
  std::error_code SendParts(std::span<const Part> parts, std::size_t size, Turn* turn,
                            const Service& service, Intake& intake, const ConnContext& context,
                            Deadlines& deadlines);

  // ---- What the life asks and tells.

  // Returns whether nothing that was accepted waits to be written.
  bool empty(const Turn& turn, const Intake& intake) const {
    return sending_.empty() && turn.gathered().empty() && !intake.has_pending();
  }
  bool has_queue() const { return !sending_.empty(); }

  // `Unblock` notes that the socket may take bytes again. `blocked` returns whether it is known
  // that it does not.
  void Unblock() { blocked_ = false; }
  bool blocked() const { return blocked_; }

  // The errno for which the socket takes no bytes any more, or 0.
  int error() const { return error_; }
  void Break(int error) { error_ = error; }

  // Drops what is queued: the connection is closed. Pending bytes are taken by `Intake::Close`.
  OutboundBuffer& queue() { return sending_; }
  void Clear(BlockPool& pool) { sending_.Clear(pool); }

  // Adds what the turn has gathered to the account.
  void CountGathered(Turn& turn);

  // It may be read on any thread.
  const SendAccount& account() const { return account_; }
  SendAccount& account() { return account_; }

 private:
  void CountAccepted(std::size_t bytes, std::size_t sends, LoopTotals& totals);

  // Returns whether nothing keeps a large send from being written in the middle of the turn.
  bool MayWriteNow(const Turn& turn, const Intake& intake) const;

  // Writes what the turn has gathered, and `bytes` after it. What the kernel does not take is
  // queued.
  void WriteAtOnce(std::span<const std::byte> bytes, Turn& turn, Deadlines& deadlines);

  // Puts `bytes`, which are charged, after what waits in `sending_`. Returns false without memory.
  bool Queue(std::span<const std::byte> bytes, const Service& service, Deadlines& deadlines);

  // Moves what the turn has gathered to `sending_`. Returns false without memory.
  bool QueueGathered(Turn& turn, Deadlines& deadlines);

  // Writes what the turn has gathered; what the kernel does not take is queued. Returns whether it
  // took all.
  bool WriteGathered(Turn& turn, Deadlines& deadlines);

  // Makes one gathered write of what waits in `sending_`. Returns whether the kernel took all that
  // it was offered.
  bool WriteQueued(Turn& turn, Deadlines& deadlines);

  // Takes over what other threads have sent.
  void TakePending(const Service& service, Intake& intake, Deadlines& deadlines);

  // Starts the write deadline, if nothing was queued before.
  void NoteQueueBegins(const Service& service, Deadlines& deadlines);

  // Counts bytes that the kernel took.
  void NoteTaken(std::size_t bytes, Turn& turn, Deadlines& deadlines);
  void HandleWriteError(int error, Turn& turn);

  OutboundBuffer sending_;  // what the kernel did not take yet
  std::size_t credit_ = 0;  // charged for what is gathered, and for sends to come
  SendAccount account_;
  int error_ = 0;
  bool blocked_ = false;  // something is left over, and waits for EPOLLOUT
};

}  // namespace xtcp::internal
