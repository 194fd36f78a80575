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
//                            │       Phase: where it is on the way to its end
//
// A *turn* is one visit of the loop, at most one in an iteration, whatever woke it: events, a timer, a
// post. Callbacks run inside a turn; what they ask for (bytes to write, a stop, a pause) is carried
// out in `FinishTurn`.
class ConnImpl : public Conn, public Channel {
 public:
  ConnImpl(std::shared_ptr<ConnContext> context, SendState state);
  ~ConnImpl() override;

  // Conn.
  using Conn::Send;
  std::error_code Send(std::span<const std::byte> bytes) override;
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

  // The rest is for its service, on its loop's thread.

  // Begins to serve: registers the socket and delivers the first event. With an error nothing has
  // happened, and the connection is to be dropped.
  std::error_code Begin(UniqueFd fd, ConnectionEnds ends, EventType first);

  // The stops of its service or its group reach this connection.
  void StopByService(Stops stops);

  // Ends at once, for a loop that is broken.
  void Abort(std::error_code error);

  // Releases those who wait in `Stop`. Called once, after the last callback.
  void ReleaseWaiters() { intake_.ReleaseWaiters(); }

  // What a stop's report says of this connection, at its end.
  StopReport FinalReport() const { return intake_.Ending(out_.account()); }

  // Its place among the handles of its service on this loop.
  std::uint32_t index() const { return index_; }
  void set_index(std::uint32_t index) { index_ = index; }

 protected:
  // Channel.
  void HandleEvents(std::uint32_t events) override { Visit(events); }
  void HandleTimer() override { Visit(kTimerDue); }
  void HandlePosted() override;
  void HandleRetired() override;

  ConnContext& context() const { return *context_; }
  const std::shared_ptr<ConnContext>& shared_context() const { return context_; }

  // For a connection that is being dialled.
  bool StopWasAsked() const { return intake_.stop_asked(); }
  bool EnterState(SendState from, SendState to) { return intake_.Enter(from, to); }
  // The dial has failed; false: it has ended before.
  bool CloseUnopened(std::error_code error);
  // As `Intake` says; they push.
  bool BeginDial();
  void PostDial();
  bool is_closed() const { return phase_ == Phase::kClosed; }
  // Before `Begin`: the peer has reset the connection already. What arrived before is delivered.
  void NoteReset(int error) { out_.Break(error); }
  virtual bool accepted() const { return true; }

  // Whether waiters are released when kClosed has returned; a connection with a loop of its own waits
  // for that loop's end.
  virtual bool ends_with_closed() const { return true; }

  // Waits until `ReleaseWaiters`.
  void WaitForEnd() const;

  // Destroys what the application has left with the connection. Inside a callback scope.
  void DropUserData();

  // Makes the loop visit this connection.
  void Post();
  void Push();

 private:
  // Why a turn is taken: what epoll reported (EPOLLIN, …), and these.
  static constexpr std::uint32_t kTimerDue = 1 << 5;
  static constexpr std::uint32_t kWasPosted = 1 << 6;

  // ---- Any thread.

  void Pause(bool pause);
  std::error_code SendSlowly(std::span<const std::byte> bytes);
  std::error_code SendOnLoop(std::span<const std::byte> bytes);

  // ---- Loop thread only.

  // Takes a turn now, or leaves it to the post that will come.
  void Visit(std::uint32_t reasons);
  void TakeTurn(std::uint32_t reasons);
  Turn& BeginTurn();

  // Carries out what the turn's callbacks and system calls have led to. Each step may end the
  // connection.
  void FinishTurn(Turn& turn);

  // Calls the application without there being traffic: the time that it takes is not the peer's silence.
  template <typename Function>
  void CallAside(Turn& turn, const Function& function);
  void RunTasks(Turn& turn);
  void RunTimer(Turn& turn);

  // What came in: as the phase says, read and delivered, discarded, or left.
  void HandleInput(Turn& turn, std::uint32_t events);
  void HandleReadEnd(Turn& turn, Inbound::ReadEnd end);

  // Writing has failed: the connection closes, once what had arrived before is delivered.
  void HandleBrokenOutput(Turn& turn);

  // Notes that the kernel has no memory, and gives up after too many tries.
  void NoteStarvation(Turn& turn);

  // Moves on to the next phase, if it is time; false: the connection is closed. Only this and
  // `HandleReadEnd` change the phase.
  bool AdvancePhase(Turn& turn);
  void EnterPhase(Phase to);
  void BeginGracefulStop();
  void Close(Turn& turn, CloseReason reason, std::error_code error);

  // Sets what the poller watches; false: that failed, and the connection is closed.
  bool UpdateInterest(Turn& turn);

  void NoteActivity(Turn& turn);
  void FollowPause();
  void ScheduleTimer();
  void CheckDeadlines(Turn& turn);
  Deadlines::Due NextDue() const;

  ServiceLoop& service() const { return *context_->service; }

  // Constant after construction.
  const std::shared_ptr<ConnContext> context_;

  // Loop thread only.
  std::any user_data_;
  // (The attribute lets the small members after them use the bytes that these leave free.)
  [[no_unique_address]] Inbound in_;
  [[no_unique_address]] Outbound out_;
  [[no_unique_address]] Deadlines deadlines_;
  Phase phase_ = Phase::kServing;
  std::uint8_t deferred_ = 0;       // reasons for the next turn
  std::uint8_t starved_count_ = 0;  // turns in a row in which the kernel had no memory
  bool starved_ = false;            // wait for the timer, not for events
  bool parked_ = false;             // paused and hung up: out of the poller
  bool fin_seen_ = false;           // the peer's end of stream was read
  bool fin_sent_ = false;
  Deadlines::Time timer_due_ = Deadlines::kNever;  // of the application's
  std::uint32_t index_ = 0;
  std::uint32_t last_iteration_ = 0;  // of the loop, in which the last turn was

  Intake intake_;
};

// Thousands of them are idle. decisions/0026 says what the bytes are for.
static_assert(sizeof(void*) != 8 || sizeof(ConnImpl) <= 336);

}  // namespace xtcp::internal
