#pragma once

#include <xtcp/conn.h>

#include <any>
#include <atomic>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <system_error>

#include "conn/conn_context.h"
#include "conn/deadlines.h"
#include "conn/inbound.h"
#include "conn/intake.h"
#include "conn/outbound.h"
#include "conn/phase.h"
#include "loop/turn.h"
#include "reactor/channel.h"
#include "socket/socket_address.h"

namespace xtcp::internal {

class ServiceLoop;

// One connection's life, served on its loop's thread. It ties the parts together, and none of them
// knows the whole:
//
//          any thread        │        loop thread, in turns
//                            │
//   Send, Stop, Pause ──► Intake ──► Outbound ──► socket
//   Stats           ◄──      │       Inbound  ◄── socket, ──► callbacks
//                            │       Deadlines: when it has to end
//                            │       Phase: how far it is on the way to its end
//
// A *turn* is one visit of the loop to the connection, whatever woke it: events, a timer, a post.
// There is at most one in an iteration. Callbacks run inside a turn; what they ask for (bytes to
// write, a stop, a pause) is carried out in `FinishTurn`.
class ConnImpl : public Conn, public Channel {
 public:
  ConnImpl(Ref<ConnContext> context, SendState state);
  ~ConnImpl() override;

  // Conn.
  using Conn::Send;
  std::error_code Send(std::span<const std::byte> bytes) override;
  using Conn::SendParts;
  std::error_code SendParts(std::span<const Part> parts) override;
  std::error_code SendPacket(const Packet& packet) override;
  StopReport Stop(StopMode mode) override;
  std::error_code DialAndServe(std::string_view address) override;
  std::error_code Dial(std::string_view address) override;
  void PauseRecv() override { Pause(true); }
  void ResumeRecv() override { Pause(false); }
  bool IsStopped() const override { return intake_.refuses(*context_); }
  ConnStats Stats() const override;
  Address LocalAddress() const override { return intake_.Local(); }
  Address RemoteAddress() const override { return intake_.Remote(); }
  std::any& UserData() override { return user_data_; }
  int Descriptor() const override { return fd_.get(); }
  std::string ToString() const override;
  std::error_code Post(Task task) override;
  void SetTimer(std::chrono::milliseconds delay) override;
  void CancelTimer() override;
  Loop loop() const override;
  // It may be asked before the dial, when no loop has the connection, which the analysis cannot know.
  Protocol::Decoder* decoder() XTCP_NO_THREAD_SAFETY_ANALYSIS override;
  void EndSend() override;

  // The rest is for its service, on its loop's thread.

  // Begins to serve: registers the socket and delivers the first event. With an error nothing has
  // happened, and the connection is to be dropped.
  std::error_code Begin(UniqueFd fd, ConnectionEnds ends, EventType first) XTCP_ON_LOOP;

  // The stops of its service, or of its group, reach this connection.
  void StopByService(Stops stops) XTCP_ON_LOOP;

  // Calls `call` as a callback of this connection.
  void CallBack(const std::function<void(const ConnPtr&)>& call) XTCP_ON_LOOP;

  // Notes that a visit with this mark came here. Returns false if the last one had the same.
  bool MarkVisited(bool mark) XTCP_ON_LOOP {
    const bool marked = visit_mark_ == mark;
    visit_mark_ = mark;
    return !marked;
  }

  // Calls OnDrain, once.
  void TellDrain() XTCP_ON_LOOP;

  // Ends the connection at once, because its loop is broken.
  void Abort(std::error_code error) XTCP_ON_LOOP;

  // Releases the threads that wait in `Stop`. To be called once, after the last callback.
  void ReleaseWaiters() { intake_.ReleaseWaiters(); }

  // Returns what a stop's report says of this connection, at its end.
  StopReport FinalReport() const { return intake_.Ending(out_.account()); }

  // Its place among the handles of its service on this loop.
  std::uint32_t index() const { return index_; }
  void set_index(std::uint32_t index) { index_ = index; }

 protected:
  // Channel.
  void HandleEvents(std::uint32_t events) XTCP_ON_LOOP override { Visit(events); }
  void HandleTimer() XTCP_ON_LOOP override { Visit(kTimerDue); }
  void HandlePosted() XTCP_ON_LOOP override;
  void HandleRetired() XTCP_ON_LOOP override;

  ConnContext& context() const { return *context_; }
  const Ref<ConnContext>& shared_context() const { return context_; }

  // ---- For a connection that is being dialled.

  bool StopWasAsked() const { return intake_.stop_asked(); }
  bool EnterState(SendState from, SendState to) { return intake_.Enter(from, to); }
  bool is_closed() const XTCP_ON_LOOP { return phase_ == Phase::kClosed; }

  // The dial has failed. Returns false if the connection had ended before. Any thread, as long as
  // the loop has not got the connection yet, which the analysis cannot know.
  bool CloseUnopened(std::error_code error) XTCP_NO_THREAD_SAFETY_ANALYSIS;

  // Begin a dial on the loop, and bring one that has begun to the loop's attention; `Intake` says
  // when.
  bool BeginDial();
  void PostDial();

  // The peer has reset the connection before `Begin`. What arrived before the reset is delivered.
  void NoteReset(int error) { out_.Break(error); }

  // ---- What differs for a dialled connection.

  virtual bool accepted() const { return true; }

  // Returns whether waiters are released when kClosed has returned. A dialled connection releases
  // them later, when it has left its loop.
  virtual bool ends_with_closed() const { return true; }

  // Waits until `ReleaseWaiters`.
  void WaitForEnd() const;

  // Destroys what the application has left with the connection. To be called inside a callback
  // scope, if callbacks can come.
  void DropUserData();

  // Makes the loop visit this connection.
  void Post();
  void Push();

 private:
  // Reasons for a turn, beside what epoll reports (EPOLLIN, …).
  static constexpr std::uint32_t kTimerDue = 1 << 5;
  static constexpr std::uint32_t kWasPosted = 1 << 6;

  // ---- Any thread.

  void Pause(bool pause);

  // Every send but the simplest, for which `Send` has no room charged. Inlined it would give `Send`
  // its own stack frame, and each packet 13 instructions.
  [[gnu::noinline]] std::error_code SendSlowly(std::span<const std::byte> bytes);

  // A send on the loop's thread, in the connection's own turn or elsewhere.
  std::error_code SendOnLoop(std::span<const std::byte> bytes) XTCP_ON_LOOP;

  // ---- Loop thread only.

  // Takes a turn now, or leaves it to a post. There is one turn in an iteration: a further reason
  // in the same one waits for the next.
  void Visit(std::uint32_t reasons) XTCP_ON_LOOP;

  // Takes the turn: handles what it was taken for, and finishes it.
  void TakeTurn(std::uint32_t reasons) XTCP_ON_LOOP;
  Turn& BeginTurn() XTCP_ON_LOOP;

  // Carries out what the turn's callbacks and system calls have led to. Each step may end the
  // connection.
  void FinishTurn(Turn& turn) XTCP_ON_LOOP;

  // Calls the application though there was no traffic. The time that it takes does not count as the
  // peer's silence.
  template <typename Function>
  void CallAside(Turn& turn, const Function& function) XTCP_ON_LOOP;

  // Runs the tasks of `Post`, as many as one turn may.
  void RunTasks(Turn& turn) XTCP_ON_LOOP;

  // Calls OnTimer if the time of the application's timer has come.
  void RunTimer(Turn& turn) XTCP_ON_LOOP;

  // Does with the input what the phase says: delivers it, discards it, or leaves it.
  void HandleInput(Turn& turn, std::uint32_t events) XTCP_ON_LOOP;

  // Draws the conclusion of what a read has met: the end of the stream, an error.
  void HandleReadEnd(Turn& turn, Inbound::ReadEnd end) XTCP_ON_LOOP;

  // Writing has failed: the connection closes, once what had arrived before is delivered.
  void HandleBrokenOutput(Turn& turn) XTCP_ON_LOOP;

  // Notes that the kernel has no memory, and gives up after too many tries.
  void NoteStarvation(Turn& turn) XTCP_ON_LOOP;

  // Moves on to the next phase, if it is time. Returns false when the connection is closed. Only
  // this and `HandleReadEnd` change the phase.
  bool AdvancePhase(Turn& turn) XTCP_ON_LOOP;

  // The peer has ended its stream, and the connection serves on.
  void HandleHalfClose(Turn& turn) XTCP_ON_LOOP;
  void EnterPhase(Phase to) XTCP_ON_LOOP;
  void BeginGracefulStop() XTCP_ON_LOOP;

  // Ends the connection; kClosed is delivered inside.
  void Close(Turn& turn, CloseReason reason, std::error_code error) XTCP_ON_LOOP;

  // Sets what the poller watches. Returns false when that failed, and the connection is closed.
  bool UpdateInterest(Turn& turn) XTCP_ON_LOOP;

  // Notes the time of the traffic in this turn.
  void NoteActivity(Turn& turn) XTCP_ON_LOOP;

  // Returns whether nothing is read for now, because the application has paused, or too much is
  // queued.
  bool reads_nothing() const XTCP_ON_LOOP { return intake_.paused() || in_.held(); }

  // Stops or starts the clocks of the deadlines of input, if reading was paused or resumed, or is
  // held or not. `paused` is what the caller has seen: another thread may change it at any moment,
  // so that a second look may give another answer.
  void FollowPause(bool paused) XTCP_ON_LOOP;

  // Arms the channel's timer for the first of the deadlines and the application's timer.
  void ScheduleTimer() XTCP_ON_LOOP;

  // Notes that the connection has to close if a deadline is over.
  void CheckDeadlines(Turn& turn) XTCP_ON_LOOP;
  Deadlines::Due NextDue() const XTCP_ON_LOOP;

  ServiceLoop& service() const { return *context_->service; }

  // Loop thread only, but for context_, which is constant, and intake_. What each turn touches comes
  // first, so that it lies in few cache lines. The attributes let small members use the bytes that
  // larger ones before them leave free.
  std::uint32_t index_ = 0;
  const Ref<ConnContext> context_;
  [[no_unique_address]] Inbound in_;
  Phase phase_ XTCP_OF_LOOP = Phase::kServing;
  std::uint8_t deferred_ XTCP_OF_LOOP = 0;       // reasons for the next turn
  std::uint8_t starved_count_ XTCP_OF_LOOP = 0;  // turns in a row in which the kernel had no memory
  std::uint32_t last_iteration_ XTCP_OF_LOOP = 0;  // the loop's, in which the last turn was
  [[no_unique_address]] Outbound out_;
  bool starved_ : 1 XTCP_OF_LOOP = false;   // wait for the timer, not for events
  bool parked_ : 1 XTCP_OF_LOOP = false;    // paused and hung up: out of the poller
  bool fin_seen_ : 1 XTCP_OF_LOOP = false;  // the peer's end of stream was read
  bool fin_sent_ : 1 XTCP_OF_LOOP = false;
  bool drain_told_ : 1 XTCP_OF_LOOP = false;
  bool visit_mark_ : 1 XTCP_OF_LOOP = false;
  // When the application's timer is due.
  Deadlines::Time timer_due_ XTCP_OF_LOOP = Deadlines::kNever;
  Deadlines deadlines_ XTCP_OF_LOOP;
  Intake intake_;
  std::any user_data_;
};

// Thousands of them are idle. decisions/0026 says what the bytes are for.
// (The std::any of other C++ libraries than libstdc++ may be larger.)
#ifdef __GLIBCXX__
static_assert(sizeof(void*) != 8 || sizeof(ConnImpl) <= 296);
#endif

}  // namespace xtcp::internal
