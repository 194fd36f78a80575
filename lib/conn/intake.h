#pragma once

#include <xtcp/conn.h>
#include <xtcp/stop_mode.h>

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <system_error>
#include <variant>

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
#include "sys/sync.h"
#include "sys/syscalls.h"

namespace xtcp::internal {

// What only a connection that lives has, and what only one that has ended has.
struct Sends {
  SendBudget budget;
  std::size_t pending = 0;  // how many calls brought the bytes that wait for the loop
};
struct Outcome {
  std::error_code error;
  std::uint64_t unacked_bytes = 0;
};

// What any thread may touch of a connection, and the only owner of its lock:
//
//   any thread                                        its loop
//   Send ──────► state, budget ──► pending bytes ───► TakePending, at the end of a turn
//   Stop ──────► stops, state ──────────────────────► stops(): between packets, at a turn's end
//   PauseRecv ─► paused ────────────────────────────► paused(): between packets
//   Stats ◄──── the account ◄──────────────────────── Open, Close
//
// A change under the lock that needs the loop's attention claims the post and says so: then the
// caller pushes the connection into its loop's mailbox, without the lock. A burst of changes is one
// push: as long as bytes are pending, the loop is on its way.
//
// Thread safety: what the headings say.
class Intake {
 public:
  using Time = std::chrono::nanoseconds;  // of sys::Now

  explicit Intake(SendState state) : state_(state) {}

  // ---- Any thread.

  // Queues `bytes`, which are not empty, for the loop. `*post` says whether `channel` is to be
  // pushed.
  std::error_code Send(std::span<const std::byte> bytes, ConnContext& context, Channel& channel,
                       bool* post) XTCP_EXCLUDES(mu_);

  // Returns why a send would be refused now, and no error if that depends on its size.
  std::error_code CheckState(const ConnContext& context) const;

  // Queues parts of `size` bytes together.
  std::error_code SendParts(std::span<const Part> parts, std::size_t size, ConnContext& context,
                            Channel& channel, bool* post) XTCP_EXCLUDES(mu_);

  // Counts a send that was refused, and returns `error`.
  std::error_code Refuse(std::error_code error) XTCP_EXCLUDES(mu_);

  // Notes a stop. `*post` is as above.
  struct StopNote {
    bool was_open = false;  // it counts as a connection of the stop's report
    bool serves = false;    // there is an end to wait for
  };
  StopNote Stop(StopMode mode, const ConnContext& context, Channel& channel, bool* post)
      XTCP_EXCLUDES(mu_);

  // Waits until the connection has delivered its last callback.
  void WaitForEnd() const { sys::WaitWhile(ended_, 0); }
  bool has_ended() const { return ended_.load(std::memory_order_acquire) != 0; }

  // Pauses or resumes. Returns whether `channel` is to be pushed.
  bool Pause(bool pause, Channel& channel) XTCP_EXCLUDES(mu_);

  // Ends the output once what was accepted is written; whether `channel` is to be pushed.
  bool EndSend(Channel& channel) XTCP_EXCLUDES(mu_);
  bool send_ended() const { return (signals_.load(std::memory_order_relaxed) & kEndSend) != 0; }

  // Queues a task for the loop; `*post` is as above. Returns `Errc::kClosed` or `kNoMemory`.
  std::error_code Post(Task task, Channel& channel, bool* post) XTCP_EXCLUDES(mu_);

  // Return what was asked for. Relaxed: a stop or a pause that must be seen is ordered before the
  // look, by the mailbox or because the same thread asked.
  bool paused() const { return (signals_.load(std::memory_order_relaxed) & kPaused) != 0; }
  Stops stops() const { return static_cast<Stops>(signals_.load() & kStopBits); }
  bool stop_asked() const { return stops() != Stops::kNone; }

  // Returns whether nothing keeps the next packet from its handler: no stop and no pause.
  bool MayDeliver() const {
    return (signals_.load(std::memory_order_relaxed) & (kStopBits | kPaused)) == 0;
  }

  bool refuses(const ConnContext& context) const {
    return state_.load() >= SendState::kRefusing || stop_asked() || send_ended() ||
           context.stopping();
  }

  // Returns whether bytes from other threads wait. On the loop's thread every send is seen that was
  // ordered before the look, by whatever means.
  std::size_t pending_bytes() const { return pending_bytes_.load(std::memory_order_relaxed); }
  bool has_pending() const { return pending_bytes() != 0; }

  // Returns whether a send in the connection's own turn need not look further.
  bool open_and_nothing_pending() const {
    return state_.load(std::memory_order_relaxed) == SendState::kOpen && !has_pending();
  }

  // Fills in all of the account except what was received.
  void Fill(ConnStats* stats, const SendAccount& account, Time now) const XTCP_EXCLUDES(mu_);

  // Returns what a stop's report says of this connection, once it has ended.
  StopReport Ending(const SendAccount& account) const XTCP_EXCLUDES(mu_);

  Address Local() const XTCP_EXCLUDES(mu_);
  Address Remote() const XTCP_EXCLUDES(mu_);

  // ---- Before and at the dial, on the thread that dials.

  // Moves from `from` to `to`. Returns false when it is not in `from` any more.
  bool Enter(SendState from, SendState to) XTCP_EXCLUDES(mu_);

  // Begins to dial on a loop, and claims the post that begins it. Returns false, and nothing
  // happened, when it is not in `kResolving` any more or a stop came first.
  bool BeginDial(Channel& channel) XTCP_EXCLUDES(mu_);

  // Claims a post for a dial that has begun. Returns whether `channel` is to be pushed.
  bool ClaimPost(Channel& channel) XTCP_EXCLUDES(mu_);

  // ---- The loop's thread.

  // The connection is established. With `refuse` it takes no sends all the same, since it was
  // reset.
  void Open(ConnectionEnds ends, Time now, bool refuse) XTCP_EXCLUDES(mu_);

  // The stops of its service reach this connection.
  void NoteStops(Stops stops) XTCP_EXCLUDES(mu_);

  // Refuses sends from now on, though no stop was asked for.
  void Refuse() XTCP_EXCLUDES(mu_);

  // Charges a send on the loop's thread, and up to `*ahead` more bytes for those to come; `*ahead`
  // becomes what was charged ahead. An error means that the send was refused, and counted.
  std::error_code Charge(std::size_t size, std::size_t* ahead, const ConnContext& context)
      XTCP_EXCLUDES(mu_);

  // Gives room back that was charged and is not needed.
  void Release(std::size_t bytes) XTCP_EXCLUDES(mu_);

  // `has_refused` returns whether a refused send waits for room. `TakeSendReady` returns whether
  // OnSendReady is due, and does so once for those that were refused until then.
  bool has_refused() const { return has_refused_.load(std::memory_order_relaxed); }
  bool TakeSendReady(const ConnContext& context) XTCP_EXCLUDES(mu_);

  // Moves what other threads have sent to the end of `to`, and counts it in `account`. Returns the
  // number of bytes.
  std::size_t TakePending(OutboundBuffer& to, SendAccount& account, BlockPool& pool)
      XTCP_EXCLUDES(mu_);

  // Releases the threads in `WaitForEnd`. To be called once, after the last callback.
  void ReleaseWaiters();

  // `has_tasks` returns whether tasks wait. `TakeTasks` takes the first of them out, at most
  // `most`.
  bool has_tasks() const { return has_tasks_.load(std::memory_order_relaxed); }
  TaskChain TakeTasks(std::size_t most) XTCP_EXCLUDES(mu_);

  // The connection has ended: no send, stop or pause has an effect after it, nothing is posted any
  // more, and the account is final. What is pending is moved and counted as by `TakePending`.
  struct End {
    CloseReason reason = CloseReason::kNone;
    std::error_code error{};
    bool cut = false;
    std::uint64_t unacked_bytes = 0;
    Time now{0};
  };
  std::size_t Close(const End& end, OutboundBuffer& to, SendAccount& account, BlockPool& pool)
      XTCP_EXCLUDES(mu_);

  // Does the same for a dial that comes to nothing. Returns false when it had ended before.
  bool CloseUnopened(std::error_code error, OutboundBuffer& to, SendAccount& account,
                     BlockPool& pool) XTCP_EXCLUDES(mu_);

 private:
  enum Signal : std::uint8_t {
    kStopBits = 3,  // a set of Stops
    kPaused = 4,
    kEndSend = 8,
  };

  // The only place that changes `state_`.
  void EnterLocked(SendState to) XTCP_REQUIRES(mu_);
  void NoteStopsLocked(Stops stops) XTCP_REQUIRES(mu_);
  void CountRefused() XTCP_REQUIRES(mu_);

  // Makes the whole decision about a send of `size` bytes: no error, and they are charged; or the
  // reason for which it is refused, counted and noted.
  std::error_code Admit(std::size_t size, const ConnContext& context) XTCP_REQUIRES(mu_);

  // Every send but the simplest.
  std::error_code SendSlowly(std::span<const std::byte> bytes, ConnContext& context,
                             Channel& channel, bool* post) XTCP_EXCLUDES(mu_);

  // What senders need while there are any; null once the connection has ended.
  Sends* sends() XTCP_REQUIRES(mu_) { return std::get_if<Sends>(&sends_); }

  // Counts what was put into `pending_`. Returns whether `channel` is to be pushed.
  bool QueuePending(std::size_t size, Channel& channel) XTCP_REQUIRES(mu_);
  std::size_t CloseLocked(const End& end, OutboundBuffer& to, SendAccount& account, BlockPool& pool)
      XTCP_REQUIRES(mu_);
  std::size_t MovePending(OutboundBuffer& to, SendAccount& account, BlockPool& pool)
      XTCP_REQUIRES(mu_);

  mutable SmallMutex mu_;

  // It is set once, after the last callback. Its waiters are its own, so that the end of one
  // connection wakes no thread that waits for another.
  sys::Atomic<std::uint32_t> ended_{0};

  OutboundBuffer pending_ XTCP_GUARDED_BY(mu_);
  sys::Atomic<std::size_t> pending_bytes_{0};  // like those below

  // The attribute lets the small members use the bytes that it leaves free.
  [[no_unique_address]] std::variant<Sends, Outcome> sends_ XTCP_GUARDED_BY(mu_);

  // These are written under mu_, and read without it as well. All are relaxed: a thread that must
  // not miss a change is ordered after it by the lock or by the mailbox.
  sys::Atomic<SendState> state_;
  sys::Atomic<std::uint8_t> signals_{0};
  sys::Atomic<bool> has_refused_{false};
  sys::Atomic<bool> has_tasks_{false};
  bool found_open_ XTCP_GUARDED_BY(mu_) = false;  // a stop has found it open
  bool cut_ XTCP_GUARDED_BY(mu_) = false;
  std::uint8_t reason_ XTCP_GUARDED_BY(mu_) = 0;  // a CloseReason
  TaskChain tasks_ XTCP_GUARDED_BY(mu_);
  std::uint64_t refused_sends_ XTCP_GUARDED_BY(mu_) = 0;
  Age age_ XTCP_GUARDED_BY(mu_);
  [[no_unique_address]] ConnectionEnds ends_ XTCP_GUARDED_BY(mu_);
};

}  // namespace xtcp::internal
