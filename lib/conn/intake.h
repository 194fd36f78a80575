#pragma once

#include <xtcp/conn.h>
#include <xtcp/stop_mode.h>

#include <atomic>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <system_error>

#include "base/mutex.h"
#include "base/thread_annotations.h"
#include "buffer/outbound_buffer.h"
#include "conn/age.h"
#include "conn/conn_context.h"
#include "conn/phase.h"
#include "conn/send_budget.h"
#include "conn/task_chain.h"
#include "loop/totals.h"
#include "reactor/channel.h"
#include "socket/socket_address.h"
#include "sys/syscalls.h"

namespace xtcp::internal {

// What any thread may touch of a connection, and the only owner of its lock:
//
//   any thread                                        its loop
//   Send ──────► state, budget ──► pending bytes ───► TakePending, at the end of a turn
//   Stop ──────► stops, state ──────────────────────► stops(): between packets, at the end of a turn
//   PauseRecv ─► paused ────────────────────────────► paused(): between packets
//   Stats ◄──── the account ◄──────────────────────── Open, Close
//
// What changes under the lock and wants the loop's attention answers true: then the caller pushes the
// connection into its loop's mailbox. A burst of changes is one push: as long as bytes are pending, the
// loop is on its way.
//
// Thread safety: as the headings say.
class Intake {
 public:
  using Time = std::chrono::nanoseconds;  // of sys::Now

  explicit Intake(SendState state) : state_(state) {}

  // ---- Any thread.

  // Queues `bytes`, which are not empty, for the loop. `*post`: whether `channel` is to be pushed.
  std::error_code Send(std::span<const std::byte> bytes, ConnContext& context, Channel& channel,
                       bool* post) XTCP_EXCLUDES(mu_);

  // Why a send would be refused now; none, if it depends on its size.
  std::error_code CheckState(const ConnContext& context) const;

  // Counts a send that was refused, and gives `error` back.
  std::error_code Refuse(std::error_code error) XTCP_EXCLUDES(mu_);

  // Notes a stop. `*post` as above.
  struct StopNote {
    bool was_open = false;  // it counts as a connection of the stop's report
    bool serves = false;    // there is an end to wait for
  };
  StopNote Stop(StopMode mode, const ConnContext& context, Channel& channel, bool* post)
      XTCP_EXCLUDES(mu_);

  // Waits until the connection has delivered its last callback.
  void WaitForEnd() const { sys::WaitWhile(ended_, 0); }
  bool has_ended() const { return ended_.load(std::memory_order_acquire) != 0; }

  // Pauses or resumes; whether `channel` is to be pushed.
  bool Pause(bool pause, Channel& channel) XTCP_EXCLUDES(mu_);

  // Queues a task for the loop; `*post` as above. `Errc::kClosed`, `kNoMemory`.
  std::error_code Post(Task task, Channel& channel, bool* post) XTCP_EXCLUDES(mu_);

  // What was asked for. Relaxed: a stop or a pause that must be seen is ordered before the look, by
  // the mailbox or because the same thread asked.
  bool paused() const { return (signals_.load(std::memory_order_relaxed) & kPaused) != 0; }
  Stops stops() const { return static_cast<Stops>(signals_.load() & kStopBits); }
  bool stop_asked() const { return stops() != Stops::kNone; }

  // Whether nothing keeps the next packet from its handler: no stop, no pause.
  bool MayDeliver() const { return signals_.load(std::memory_order_relaxed) == 0; }

  bool refuses(const ConnContext& context) const {
    return state_.load() >= SendState::kRefusing || stop_asked() || context.stopping();
  }

  // Whether bytes from other threads wait. On the loop's thread: those that were sent before, by
  // whatever orders them, are seen.
  bool has_pending() const { return pending_bytes_.load(std::memory_order_relaxed) != 0; }

  // Whether a send in the connection's own turn need not look further.
  bool open_and_nothing_pending() const {
    return state_.load(std::memory_order_relaxed) == SendState::kOpen && !has_pending();
  }

  // All of the account but what was received.
  void Fill(ConnStats* stats, const SendAccount& account, Time now) const XTCP_EXCLUDES(mu_);

  // What a stop's report says of this connection, once it has ended.
  StopReport Ending(const SendAccount& account) const XTCP_EXCLUDES(mu_);

  Address Local() const XTCP_EXCLUDES(mu_);
  Address Remote() const XTCP_EXCLUDES(mu_);

  // ---- Before and at the dial, on the thread that dials.

  // Moves on, if it is still in `from`.
  bool Enter(SendState from, SendState to) XTCP_EXCLUDES(mu_);

  // Begins to dial on a loop, and claims the post that begins it: false, and nothing happened, when it is
  // not in `kResolving`, or a stop came first.
  bool BeginDial(Channel& channel) XTCP_EXCLUDES(mu_);

  // Claims a post of a dial that has begun; whether `channel` is to be pushed.
  bool ClaimPost(Channel& channel) XTCP_EXCLUDES(mu_);

  // ---- The loop's thread.

  // The connection is established. `refuse`: it takes no sends all the same, since it was reset.
  void Open(ConnectionEnds ends, Time now, bool refuse) XTCP_EXCLUDES(mu_);

  // The stops of its service reach this connection.
  void NoteStops(Stops stops) XTCP_EXCLUDES(mu_);

  // Refuses sends from now on, though no stop was asked for.
  void Refuse() XTCP_EXCLUDES(mu_);

  // Charges a send on the loop's thread, and up to `*ahead` more bytes for those to come; `*ahead`
  // becomes what was charged. An error: it was refused, and counted.
  std::error_code Charge(std::size_t size, std::size_t* ahead, const ConnContext& context)
      XTCP_EXCLUDES(mu_);

  // Gives room back.
  void Release(std::size_t bytes) XTCP_EXCLUDES(mu_);

  // Whether a refused send waits for room; and whether OnSendReady is due: then it was the last time.
  bool has_refused() const { return has_refused_.load(std::memory_order_relaxed); }
  bool TakeSendReady(const ConnContext& context) XTCP_EXCLUDES(mu_);

  // Moves what other threads have sent to the end of `to`, and counts it in `account`. How many bytes
  // it was.
  std::size_t TakePending(OutboundBuffer& to, SendAccount& account, BlockPool& pool)
      XTCP_EXCLUDES(mu_);

  // After the last callback, once.
  void ReleaseWaiters();

  // Whether tasks wait, and the first of them, at most `most`; what is not taken out is destroyed with
  // the list.
  bool has_tasks() const { return has_tasks_.load(std::memory_order_relaxed); }
  TaskChain TakeTasks(std::size_t most) XTCP_EXCLUDES(mu_);

  // The end: no send, stop or pause has an effect after it, nothing is posted any more, and the account
  // is final. What is pending goes the way of `TakePending`.
  struct End {
    CloseReason reason = CloseReason::kNone;
    std::error_code error{};
    bool cut = false;
    std::uint64_t unacked_bytes = 0;
    Time now{0};
  };
  std::size_t Close(const End& end, OutboundBuffer& to, SendAccount& account, BlockPool& pool)
      XTCP_EXCLUDES(mu_);

  // The same for a dial that comes to nothing: false when it has ended before.
  bool CloseUnopened(std::error_code error, OutboundBuffer& to, SendAccount& account,
                     BlockPool& pool) XTCP_EXCLUDES(mu_);

 private:
  enum Signal : std::uint8_t {
    kStopBits = 3,  // a set of Stops
    kPaused = 4,
  };

  void EnterLocked(SendState to) XTCP_REQUIRES(mu_);
  void NoteStopsLocked(Stops stops) XTCP_REQUIRES(mu_);
  void CountRefused() XTCP_REQUIRES(mu_);
  std::error_code Admit(std::size_t size, const ConnContext& context) XTCP_REQUIRES(mu_);
  bool QueuePending(std::size_t size, Channel& channel) XTCP_REQUIRES(mu_);
  std::size_t CloseLocked(const End& end, OutboundBuffer& to, SendAccount& account, BlockPool& pool)
      XTCP_REQUIRES(mu_);
  std::size_t MovePending(OutboundBuffer& to, SendAccount& account, BlockPool& pool)
      XTCP_REQUIRES(mu_);

  mutable SmallMutex mu_;

  // Set once, after the last callback. Its waiters are its own: the end of one connection wakes nobody
  // who waits for another.
  std::atomic<std::uint32_t> ended_{0};

  // Written under mu_, read also without. Relaxed, all: a thread that must not miss a change is
  // ordered after it by the lock or by the mailbox.
  std::atomic<SendState> state_;
  std::atomic<std::uint8_t> signals_{0};
  std::atomic<bool> has_refused_{false};
  std::atomic<bool> has_tasks_{false};
  bool found_open_ XTCP_GUARDED_BY(mu_) = false;  // by a stop
  bool cut_ XTCP_GUARDED_BY(mu_) = false;
  std::uint8_t reason_ XTCP_GUARDED_BY(mu_) = 0;  // a CloseReason
  std::atomic<std::size_t> pending_bytes_{0};     // like those above
  OutboundBuffer pending_ XTCP_GUARDED_BY(mu_);
  TaskChain tasks_ XTCP_GUARDED_BY(mu_);
  std::size_t pending_sends_ XTCP_GUARDED_BY(mu_) = 0;
  SendBudget budget_ XTCP_GUARDED_BY(mu_);
  std::uint64_t refused_sends_ XTCP_GUARDED_BY(mu_) = 0;
  ConnectionEnds ends_ XTCP_GUARDED_BY(mu_);
  Age age_ XTCP_GUARDED_BY(mu_);
  std::uint64_t unacked_bytes_ XTCP_GUARDED_BY(mu_) = 0;
  std::error_code error_ XTCP_GUARDED_BY(mu_);
};

}  // namespace xtcp::internal
