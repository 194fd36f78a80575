#pragma once

#include <xtcp/conn.h>

#include <any>
#include <atomic>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <system_error>

#include "base/mutex.h"
#include "base/thread_annotations.h"
#include "buffer/inbound_buffer.h"
#include "buffer/outbound_buffer.h"
#include "conn/conn_context.h"
#include "conn/send_budget.h"
#include "reactor/channel.h"
#include "socket/socket_address.h"

namespace xtcp::internal {

class Worker;
struct LoopTotals;

// What senders on any thread need to know of a connection's life.
enum class ConnState : std::uint8_t {
  kNew,        // made by NewConn, not dialled: Send queues
  kResolving,  // looking up the name, which nothing can interrupt: no stop waits for it
  kDialing,    // Send queues
  kOpen,       // Send queues, and the loop writes
  kStopping,   // Send is refused: a stop has begun, or the peer has ended its stream
  kClosed,
};

// Where the loop is with a connection. Input and output end separately:
//
//   kServing ── peer's FIN ──► kFlushing ── all written ──────────────────────────► kClosed
//      │                          │                                                   ▲
//      └────── graceful stop ─────┴──► kStopping ── all written, FIN ──► kLingering ──┘
//                                                     peer's FIN, error, or linger_timeout
//
// Errors, deadlines and an immediate stop lead from each of them to kClosed.
enum class Phase : std::uint8_t {
  kServing,    // reads, unpacks, writes
  kFlushing,   // the peer's end of stream was read; what is queued is written
  kStopping,   // a graceful stop: what was accepted is written, what comes is discarded
  kLingering,  // our FIN is out; what comes is discarded until the peer's end of stream
  kClosed,
};

// One connection, served on its worker's thread. The way of a byte: in through conn_input.cc, out
// through conn_output.cc; conn_impl.cc has the life around them.
//
// A *turn* is one visit of the loop, at most one in an iteration, whatever woke it: events, a timer,
// a post. Callbacks run inside a turn; what they ask for (bytes to write, a stop, a pause) is carried
// out in `EndTurn`.
class ConnImpl : public Conn, public Channel {
 public:
  ConnImpl(std::shared_ptr<ConnContext> context, ConnState state);
  ~ConnImpl() override;

  // Conn.
  using Conn::Send;
  std::error_code Send(std::span<const std::byte> bytes) override;
  std::error_code SendPacket(const Packet& packet) override;
  StopReport Stop(StopMode mode) override;
  std::error_code DialAndServe(std::string_view address) override;
  void PauseRecv() override;
  void ResumeRecv() override;
  bool IsStopped() const override;
  ConnStats Stats() const override;
  Address LocalAddress() const override;
  Address RemoteAddress() const override;
  std::any& UserData() override { return user_data_; }
  int Descriptor() const override { return fd_.get(); }
  std::string ToString() const override;

  // The rest is for the worker, on its loop's thread.

  // Begins to serve: registers the socket and delivers the first event. With an error nothing has
  // happened, and the connection is to be dropped.
  std::error_code Open(UniqueFd fd, ConnectionEnds ends, EventType first);

  // The server's stop reaches this connection; both, when one followed the other before the loop
  // saw it.
  void StopFromServer(bool gracefully, bool now);

  // Ends at once, for a loop that is broken.
  void Abort(std::error_code error);

  // Tells those who wait in `Stop` that all is over. Called once, after the last callback.
  void AnnounceEnd();

  // What a stop's report says of this connection, at its end.
  StopReport Ending() const;

  // Its place in the worker's table.
  std::uint32_t worker_index() const { return worker_index_; }
  void set_worker_index(std::uint32_t index) { worker_index_ = index; }

 protected:
  // Channel.
  void HandleEvents(std::uint32_t events) override;
  void HandleTimer() override;
  void HandlePosted() override;
  void HandleRetired() override;

  ConnContext& context() const { return *context_; }
  const std::shared_ptr<ConnContext>& shared_context() const { return context_; }

  // For a connection that is being dialled.
  bool StopWasAsked() const { return (signals_.load() & kStopSignals) != 0; }
  bool EnterState(ConnState from, ConnState to) XTCP_EXCLUDES(mu_);
  void CloseUnopened(std::error_code error) XTCP_EXCLUDES(mu_);
  // Before `Open`: the peer has reset the connection already. What arrived before is delivered.
  void NoteReset(int error) { write_error_ = error; }
  virtual bool accepted() const { return true; }

 private:
  // What other threads ask of the loop; it looks between packets and at the end of each turn.
  enum Signal : std::uint8_t {
    kPaused = 1,
    kStopGracefully = 2,
    kStopNow = 4,
    kStopSignals = kStopGracefully | kStopNow,
  };
  // Why a turn is taken: what epoll reported (EPOLLIN, …), and these.
  static constexpr std::uint32_t kTimerDue = 1 << 16;
  static constexpr std::uint32_t kWasPosted = 1 << 17;
  using Time = std::chrono::nanoseconds;  // of sys::Now
  static constexpr Time kNever = Time::max();

  // conn_input.cc
  void HandleInput(std::uint32_t events);
  void ReadAndUnpack();
  void ReadBehindTail();
  std::size_t ReadIntoTail(std::size_t most, bool* more);
  void Received(std::size_t bytes);
  void UnpackWaiting();
  bool UnpackUnseen();
  std::size_t Unpack(std::span<const std::byte> view);
  bool TakeOtherAnswer(std::span<const std::byte> rest, const UnpackResult& result);
  bool Keep(std::span<const std::byte> bytes);
  void NoteUnfinishedPacket(bool consumed);
  void Discard();
  void HandleReadEnd(ssize_t result, int error);
  bool MayDeliver() const;
  std::size_t PacketLimit() const;

  // conn_output.cc
  std::error_code SendSlowly(std::span<const std::byte> bytes) XTCP_EXCLUDES(mu_);
  std::error_code SendOnLoop(std::span<const std::byte> bytes) XTCP_EXCLUDES(mu_);
  std::error_code SendFromElsewhere(std::span<const std::byte> bytes) XTCP_EXCLUDES(mu_);
  std::error_code CheckState() const;
  std::error_code Refuse(std::error_code error) XTCP_EXCLUDES(mu_);
  void CountRefused() XTCP_REQUIRES(mu_);
  std::error_code Admit(std::size_t size) XTCP_REQUIRES(mu_);
  bool ChargeOrNote(std::size_t size) XTCP_REQUIRES(mu_);
  bool QueuePending(std::size_t size) XTCP_REQUIRES(mu_);
  bool ChargeOnLoop(std::size_t size);
  void CountAccepted(std::size_t size, LoopTotals& totals);
  bool MayWriteNow() const;
  void SendAtOnce(std::span<const std::byte> bytes);
  bool Enqueue(std::span<const std::byte> bytes);
  bool SpillTurn();
  bool QueueBehind(std::span<const std::byte> bytes);
  void NoteQueueBegins();
  void TakePending() XTCP_REQUIRES(mu_);
  void Flush();
  bool WriteTurn();
  bool WriteParts();
  void Written(std::size_t bytes);
  void HandleWriteError(int error);
  bool NothingQueued() const;
  void ReleaseBudget();
  void OfferSendReady();

  // conn_impl.cc
  void NoteStop(StopMode mode) XTCP_REQUIRES(mu_);
  void Post();
  void Visit(std::uint32_t reasons);
  void TakeTurn(std::uint32_t reasons);
  void BeginTurn();
  void EndTurn();
  void NoteActivity();
  void Advance();
  void BeginGracefulStop();
  void Doom(CloseReason reason, std::error_code error = {});
  void DoomBySocket(int error);
  void Starve(int error);
  void Close(CloseReason reason, std::error_code error);
  void Watch();
  void ScheduleTimer();
  void FollowPause();
  void ShiftTimes();
  void CheckDeadlines();
  struct Deadline {
    Time due;
    CloseReason reason;  // with which the connection ends then
  };
  Deadline NextDeadline() const;
  void Deliver(EventType event, PacketPtr packet);
  void NoteException();
  Worker& worker() const { return *context_->worker; }
  const ConnPtr& self() const;
  bool paused() const { return (signals_.load(std::memory_order_relaxed) & kPaused) != 0; }
  void Ask(std::uint8_t set, std::uint8_t clear) XTCP_EXCLUDES(mu_);

  // Constant after construction.
  const std::shared_ptr<ConnContext> context_;

  // Loop thread only.
  std::any user_data_;
  InboundBuffer inbound_;   // input that waits for the rest of its packet
  OutboundBuffer sending_;  // output that the kernel did not take yet
  Time active_at_{0};       // last byte received or taken; while paused: relative to now
  Time write_at_{0};        // last byte taken, or when the queue began
  Time hard_due_ = kNever;  // end of the packet deadline; after a stop, of the linger
  std::size_t need_ = 0;    // bytes that must wait before Unpack is asked again
  std::uint32_t worker_index_ = 0;
  std::uint32_t last_read_ = 0;       // bytes
  std::uint32_t last_iteration_ = 0;  // of the loop, in which the last turn was
  std::uint32_t deferred_ = 0;        // reasons for the next turn
  int write_error_ = 0;               // the socket takes no more output
  Phase phase_ = Phase::kServing;
  std::uint8_t starved_count_ = 0;  // reads or writes in a row that the kernel had no memory for
  bool blocked_ = false;            // something is left over: wait for EPOLLOUT
  bool starved_ = false;            // wait for the timer, not for events
  bool backlog_ = false;            // complete packets may wait in inbound_
  bool unseen_ = false;             // bytes came that Unpack was not asked about
  bool parked_ = false;             // paused and hung up: out of the poller
  bool got_packet_ = false;         // the first packet is complete
  bool fin_seen_ = false;           // the peer's end of stream was read
  bool fin_sent_ = false;
  bool pause_followed_ = false;  // deadlines stand still

  // Single writer: the loop. Relaxed, except that written_bytes_ is published after what was
  // accepted.
  std::atomic<std::uint64_t> received_bytes_{0};
  std::atomic<std::uint64_t> received_packets_{0};
  std::atomic<std::uint64_t> accepted_bytes_{0};  // without what is in pending_
  std::atomic<std::uint64_t> accepted_sends_{0};
  std::atomic<std::uint64_t> written_bytes_{0};

  // Set once, after the last callback. Its waiters are its own: the end of one connection wakes
  // nobody who waits for another.
  std::atomic<std::uint32_t> ended_{0};

  mutable Mutex mu_;

  // Written under mu_, read also without: whoever must not miss a change has it ordered before, by
  // the lock or by the mailbox.
  SendBudget budget_;
  std::atomic<std::size_t> pending_bytes_{0};
  std::atomic<ConnState> state_;
  std::atomic<std::uint8_t> signals_{0};
  std::atomic<bool> refused_{false};  // someone waits for OnSendReady; see SendBudget

  std::uint8_t reason_ XTCP_GUARDED_BY(mu_) = 0;    // a CloseReason
  bool stopped_open_ XTCP_GUARDED_BY(mu_) = false;  // a stop found it open
  bool cut_ XTCP_GUARDED_BY(mu_) = false;
  OutboundBuffer pending_ XTCP_GUARDED_BY(mu_);  // sent from other threads, on its way to sending_
  std::uint64_t pending_sends_ XTCP_GUARDED_BY(mu_) = 0;
  std::uint64_t refused_sends_ XTCP_GUARDED_BY(mu_) = 0;
  std::size_t largest_refused_ XTCP_GUARDED_BY(mu_) = 0;
  ConnectionEnds ends_ XTCP_GUARDED_BY(mu_);
  Time opened_at_ XTCP_GUARDED_BY(mu_){0};  // once closed: the age
  std::uint64_t unacked_bytes_ XTCP_GUARDED_BY(mu_) = 0;
  std::error_code error_ XTCP_GUARDED_BY(mu_);
};

}  // namespace xtcp::internal
