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
#include "conn/turn.h"
#include "reactor/channel.h"
#include "socket/socket_address.h"

namespace xtcp::internal {

class Worker;

// One connection's life, served on its worker's thread. It ties the parts together, and none of them
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
  void PauseRecv() override { Pause(true); }
  void ResumeRecv() override { Pause(false); }
  bool IsStopped() const override { return intake_.refuses(*context_); }
  ConnStats Stats() const override;
  Address LocalAddress() const override { return intake_.Local(); }
  Address RemoteAddress() const override { return intake_.Remote(); }
  std::any& UserData() override { return user_data_; }
  int Descriptor() const override { return fd_.get(); }
  std::string ToString() const override;

  // The rest is for the worker, on its loop's thread.

  // Begins to serve: registers the socket and delivers the first event. With an error nothing has
  // happened, and the connection is to be dropped.
  std::error_code Begin(UniqueFd fd, ConnectionEnds ends, EventType first);

  // The server's stops reach this connection.
  void StopFromServer(Stops stops);

  // Ends at once, for a loop that is broken.
  void Abort(std::error_code error);

  // Releases those who wait in `Stop`. Called once, after the last callback.
  void ReleaseWaiters() { intake_.ReleaseWaiters(); }

  // What a stop's report says of this connection, at its end.
  StopReport FinalReport() const { return intake_.Ending(out_.account()); }

  // Its place in the worker's table.
  std::uint32_t worker_index() const { return worker_index_; }
  void set_worker_index(std::uint32_t index) { worker_index_ = index; }

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
  // The dial has failed.
  void CloseUnopened(std::error_code error);
  // Before `Begin`: the peer has reset the connection already. What arrived before is delivered.
  void NoteReset(int error) { out_.Break(error); }
  virtual bool accepted() const { return true; }

 private:
  // Why a turn is taken: what epoll reported (EPOLLIN, …), and these.
  static constexpr std::uint32_t kTimerDue = 1 << 5;
  static constexpr std::uint32_t kWasPosted = 1 << 6;

  // ---- Any thread.

  void Pause(bool pause);
  std::error_code SendSlowly(std::span<const std::byte> bytes);
  std::error_code SendOnLoop(std::span<const std::byte> bytes);

  // Makes the loop visit this connection.
  void Post();

  // ---- Loop thread only.

  // Takes a turn now, or leaves it to the post that will come.
  void Visit(std::uint32_t reasons);
  void TakeTurn(std::uint32_t reasons);
  Turn& BeginTurn();

  // Carries out what the turn's callbacks and system calls have led to. Each step may end the
  // connection.
  void FinishTurn(Turn& turn);

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

  Worker& worker() const { return *context_->worker; }

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
  std::uint32_t worker_index_ = 0;
  std::uint32_t last_iteration_ = 0;  // of the loop, in which the last turn was

  Intake intake_;
};

// Thousands of them are idle. decisions/0026 says what the bytes are for.
static_assert(sizeof(void*) != 8 || sizeof(ConnImpl) <= 320);

}  // namespace xtcp::internal
