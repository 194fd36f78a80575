// One turn of a connection: what it is taken for, what it reads, calls and writes, and what follows
// from that. The rest of its life is in conn_impl.cc.

#include <sys/epoll.h>
#include <xtcp/error.h>

#include <algorithm>
#include <cerrno>
#include <memory>

#include "base/check.h"
#include "base/scope.h"
#include "conn/conn_impl.h"
#include "conn/service_loop.h"
#include "socket/socket.h"
#include "sys/syscalls.h"

namespace xtcp::internal {

namespace {

// A read or write for which the kernel has no memory is tried again this often, this many times.
constexpr std::chrono::milliseconds kStarvedPause{100};
constexpr int kStarvedTries = 100;

// More tasks than this wait for the next turn.
constexpr std::size_t kTasksPerTurn = 1024;

constexpr std::uint32_t kReadable = EPOLLIN | EPOLLERR | EPOLLHUP;
constexpr std::uint32_t kWritable = EPOLLOUT | EPOLLERR | EPOLLHUP;

}  // namespace

void ConnImpl::HandlePosted() {
  if (phase_ == Phase::kClosed) {
    service().loop().Retire(this);
    return;
  }
  Visit(kWasPosted | std::exchange(deferred_, std::uint8_t{0}));
}

// While packets are left over, what epoll reports waits for the post that delivers them, which
// comes after the events of connections that did not have as much.
void ConnImpl::Visit(std::uint32_t reasons) {
  const bool had_its_turn = last_iteration_ == service().loop().iteration();
  const bool turn_will_come = (reasons & kWasPosted) == 0 && in_.has_backlog() && posted();
  if (had_its_turn || turn_will_come) {
    deferred_ = static_cast<std::uint8_t>(deferred_ | reasons);
    Post();
  } else {
    TakeTurn(reasons);
  }
}

void ConnImpl::TakeTurn(std::uint32_t reasons) {
  // An error would be reported for ever, so it is looked at, whether there is memory or not.
  if ((reasons & (EPOLLERR | EPOLLHUP)) != 0) starved_ = false;
  // A pause that was asked for before a deadline fell due may be seen together with it.
  if ((reasons & kTimerDue) != 0) FollowPause(intake_.paused());
  const bool retry = (reasons & kTimerDue) != 0 && starved_;
  if (retry) starved_ = false;
  const bool overdue = (reasons & kTimerDue) != 0 && NextDue().at <= sys::Now();
  Turn& turn = BeginTurn();
  // What has arrived, or can leave, when a deadline falls due is in time: it is handled first.
  bool input = (reasons & kReadable) != 0 || retry || overdue;
  if ((reasons & kWritable) != 0 || retry || overdue) out_.Unblock();
  if ((reasons & kWasPosted) != 0) {
    if (phase_ == Phase::kServing && !intake_.paused()) {
      // A socket that takes nothing more is read to its end.
      input = input || in_.has_backlog() || (out_.error() != 0 && !starved_);
    } else if (out_.error() != 0) {
      turn.DoomBySocket(out_.error());
    }
  }
  if ((reasons & (kTimerDue | kWasPosted)) != 0) RunTimer(turn);
  if (turn.hold_above() != Turn::kNeverHold || in_.held()) in_.FollowHold(turn, intake_);
  if (input) HandleInput(turn, reasons);
  if (overdue) {
    out_.Flush(turn, intake_, deadlines_);
    NoteActivity(turn);
    CheckDeadlines(turn);
  }
  FinishTurn(turn);
}

Turn& ConnImpl::BeginTurn() {
  XTCP_DCHECK(EventLoop::IsCurrent(context_->mailbox), "a turn begins on another thread");
  Turn& turn = service().turn();
  turn.Begin(this, service().PtrOf(index_), fd_.get(), service().service());
  if (starved_) turn.Rest();
  if (phase_ != Phase::kServing) turn.WantTimes();
  out_.BeginTurn(turn);
  const std::size_t above = turn.options().pause_recv_above;
  const bool may_hold = above > 0 && phase_ == Phase::kServing && out_.error() == 0;
  turn.WatchQueue(out_.account(), may_hold ? above : Turn::kNeverHold);
  last_iteration_ = service().loop().iteration();
  return turn;
}

void ConnImpl::FinishTurn(Turn& turn) {
  XTCP_DCHECK(turn.IsOf(this), "a turn is finished by another connection");
  const AtScopeEnd leave([&] {
    turn.Leave();
    turn.Release(context_->pool());
  });
  if (phase_ == Phase::kClosed) return;
  if (intake_.has_tasks()) RunTasks(turn);
  out_.Flush(turn, intake_, deadlines_);
  if (out_.error() != 0) HandleBrokenOutput(turn);
  if (phase_ == Phase::kServing && out_.OfferSendReady(turn, intake_, *context_, deadlines_)) {
    Post();  // a send was refused again: the next offer comes in the next turn
  }
  NoteStarvation(turn);
  if (!AdvancePhase(turn)) return;
  out_.Settle(intake_, *context_);
  NoteActivity(turn);
  if (in_.held()) in_.FollowHold(turn, intake_);
  FollowPause(intake_.paused());
  if (!UpdateInterest(turn)) return;
  // The next turn is asked for when packets are left over, or when the socket takes nothing more
  // and is read until its input ends.
  if (in_.has_backlog() && intake_.MayDeliver() && !in_.held()) Post();
  if (out_.error() != 0 && !starved_) Post();
  ScheduleTimer();
}

// ---- What is called though there was no traffic: visits, a drain, tasks, the application's timer.

template <typename Function>
void ConnImpl::CallAside(Turn& turn, const Function& function) {
  const bool timed = turn.service().has_deadlines;
  const auto before = timed ? sys::Now() : Deadlines::Time{0};
  turn.Call(function);
  if (timed) deadlines_.NoteAside(sys::Now() - before);
}

void ConnImpl::CallBack(const std::function<void(const ConnPtr&)>& call) {
  if (phase_ == Phase::kClosed) return;
  Turn& turn = BeginTurn();
  CallAside(turn, [&](Handler&) { call(turn.self()); });
  FinishTurn(turn);
}

void ConnImpl::TellDrain() {
  const bool lives = phase_ == Phase::kServing || phase_ == Phase::kFlushing;
  if (drain_told_ || !lives || intake_.stop_asked()) return;
  drain_told_ = true;
  Turn& turn = BeginTurn();
  CallAside(turn, [&](Handler& handler) { handler.OnDrain(turn.self()); });
  FinishTurn(turn);
}

void ConnImpl::RunTasks(Turn& turn) {
  TaskChain tasks = intake_.TakeTasks(kTasksPerTurn);
  while (!tasks.empty() && !turn.doomed()) {
    const std::unique_ptr<TaskChain::Node> node = tasks.TakeFirst();
    context_->loop->tasks.CountRun();
    CallAside(turn, [&](Handler&) { node->task(); });
  }
  if (intake_.has_tasks()) Post();
}

void ConnImpl::RunTimer(Turn& turn) {
  if (timer_due_ == Deadlines::kNever || timer_due_ > sys::Now()) return;
  timer_due_ = Deadlines::kNever;
  if (phase_ != Phase::kServing || intake_.stop_asked()) return;
  context_->loop->timers.CountRun();
  CallAside(turn, [&](Handler& handler) { handler.OnTimer(turn.self()); });
}

// ---- Input, and what it leads to.

void ConnImpl::HandleInput(Turn& turn, std::uint32_t events) {
  if (turn.rests()) return;
  if (phase_ == Phase::kStopping || phase_ == Phase::kLingering) {
    if (!fin_seen_) HandleReadEnd(turn, in_.Discard(turn));
  } else if (phase_ == Phase::kFlushing) {
    // Nothing more comes in; an error shows in the write that the turn ends with.
  } else if (!reads_nothing() && !fin_seen_) {
    FollowPause(false);
    HandleReadEnd(turn, in_.ReadAndDeliver(turn, intake_, deadlines_));
  } else if ((events & EPOLLERR) != 0) {
    const int error = TakeSocketError(fd_.get());
    turn.DoomBySocket(error != 0 ? error : ECONNRESET);
  } else if ((events & EPOLLHUP) != 0) {
    // A Unix peer that wrote and closed. Hang-up cannot be masked (epoll_ctl(2)): it would wake the
    // loop for ever. So the socket leaves the poller until it is read again.
    parked_ = true;
    service().loop().Unwatch(this);
  }
}

void ConnImpl::HandleReadEnd(Turn& turn, Inbound::ReadEnd end) {
  switch (end.met) {
    case Inbound::Met::kNothing:
      return;
    case Inbound::Met::kNoMore:
      if (out_.error() != 0) turn.DoomBySocket(out_.error());  // all that had arrived is delivered
      return;
    case Inbound::Met::kError:
      if (end.error == ENOBUFS || end.error == ENOMEM) {
        turn.Starve(end.error);
      } else {
        out_.Break(end.error);
        turn.DoomBySocket(end.error);
      }
      return;
    case Inbound::Met::kEnd:
      break;
  }
  // The end is read again when the packets before it are delivered.
  if (phase_ == Phase::kServing && !in_.DeliverUnseen(turn, intake_, deadlines_)) return;
  fin_seen_ = true;
  if (out_.error() != 0) {
    turn.DoomBySocket(out_.error());
  } else if (phase_ == Phase::kServing && turn.options().half_close) {
    HandleHalfClose(turn);
  } else if (phase_ == Phase::kServing) {
    // The end of input, not of output. Half a packet is of no use to anybody.
    in_.Clear(turn.pool());
    intake_.Refuse();
    EnterPhase(Phase::kFlushing);
    turn.WantTimes();
    deadlines_.NoteOutput(sys::Now());
  }
}

void ConnImpl::HandleHalfClose(Turn& turn) {
  in_.Clear(turn.pool());
  timer_due_ = Deadlines::kNever;
  deadlines_.EndPacket();
  if (intake_.stop_asked()) return;
  turn.Call([&turn](Handler& handler) { handler.OnRecvEnd(turn.self()); });
}

void ConnImpl::HandleBrokenOutput(Turn& turn) {
  if (phase_ == Phase::kServing && !intake_.paused() && !fin_seen_) {
    // What had arrived before the error is delivered: the input is read to its end.
    intake_.Refuse();
  } else {
    turn.DoomBySocket(out_.error());
  }
}

void ConnImpl::NoteStarvation(Turn& turn) {
  if (turn.traffic()) starved_count_ = 0;
  if (turn.starvation() == 0) return;
  starved_ = true;
  if (++starved_count_ >= kStarvedTries) {
    turn.Doom(CloseReason::kSystemError, {turn.starvation(), std::system_category()});
  }
}

// ---- The phases.

void ConnImpl::EnterPhase(Phase to) {
  XTCP_DCHECK(MayFollow(phase_, to), "a connection's phase makes a move that it may not");
  phase_ = to;
  timer_due_ = Deadlines::kNever;  // it serves no more
}

bool ConnImpl::AdvancePhase(Turn& turn) {
  const Stops stops = intake_.stops();
  if (turn.doomed()) {
    Close(turn, turn.doom(), turn.doom_error());
    return false;
  }
  if (Has(stops, Stops::kNow)) {
    Close(turn, CloseReason::kLocalStop, {});
    return false;
  }
  const bool stopping = phase_ == Phase::kStopping || phase_ == Phase::kLingering;
  if (Has(stops, Stops::kGraceful) && !stopping) BeginGracefulStop();
  const bool all_written = out_.empty(turn, intake_);
  const bool ends_send = phase_ == Phase::kServing && intake_.send_ended();
  if (ends_send && all_written && !fin_sent_) fin_sent_ = ShutdownWrite(fd_.get());
  if ((phase_ == Phase::kFlushing || (ends_send && fin_seen_)) && all_written) {
    Close(turn, CloseReason::kPeerClosed, {});
    return false;
  }
  if (phase_ == Phase::kStopping && all_written) {
    // Closing with unread input would make the kernel send a reset, and the peer could lose what it
    // has not read yet (RFC 1122, 4.2.2.13). So: FIN, then read until the peer's.
    if (!fin_sent_) fin_sent_ = ShutdownWrite(fd_.get());
    EnterPhase(Phase::kLingering);
  }
  if (phase_ == Phase::kLingering && fin_seen_) {
    Close(turn, CloseReason::kLocalStop, {});
    return false;
  }
  return true;
}

void ConnImpl::BeginGracefulStop() {
  EnterPhase(Phase::kStopping);
  in_.Clear(context_->pool());
  deadlines_.BeginLinger(sys::Now() + service().service().options->linger_timeout);
}

bool ConnImpl::UpdateInterest(Turn& turn) {
  std::uint32_t events = 0;
  if (!starved_) {
    const bool reads = !fin_seen_ && (phase_ != Phase::kServing || !reads_nothing());
    if (reads) {
      events |= EPOLLIN;
      parked_ = false;
    }
    if (out_.blocked() && out_.error() == 0) events |= EPOLLOUT;
  }
  // A parked socket stays out, unless there is something to read or to write again.
  if (parked_ && events == 0) return true;
  const std::error_code error = service().loop().Rewatch(this, events);
  if (error) Close(turn, CloseReason::kSystemError, error);
  return !error;
}

// ---- Deadlines.

// It is noted at the end of the turn, because the time that callbacks took is not the peer's
// silence.
void ConnImpl::NoteActivity(Turn& turn) {
  if (turn.traffic() && turn.service().has_deadlines) deadlines_.NoteActivity(sys::Now());
}

void ConnImpl::FollowPause(bool paused) {
  if (phase_ != Phase::kServing) return;
  const bool held = in_.held();
  const bool of_input = paused != deadlines_.input_clock_stopped();
  const bool of_packets = held != deadlines_.packet_clock_stopped();
  if (!of_input && !of_packets) return;
  const auto now = sys::Now();
  if (of_input && paused) deadlines_.StopInputClock(now);
  if (of_input && !paused) deadlines_.StartInputClock(now);
  if (of_packets && held) deadlines_.StopPacketClock(now);
  if (of_packets && !held) deadlines_.StartPacketClock(now);
}

Deadlines::Due ConnImpl::NextDue() const {
  return deadlines_.Next(*service().service().options, phase_, out_.has_queue());
}

void ConnImpl::ScheduleTimer() {
  const bool timed = service().service().has_deadlines || starved_;
  if (phase_ == Phase::kServing && !timed && timer_due_ == Deadlines::kNever) return;
  Deadlines::Time due = std::min(NextDue().at, timer_due_);
  if (starved_) due = std::min<Deadlines::Time>(due, sys::Now() + kStarvedPause);
  if (due != Deadlines::kNever) service().loop().ArmNoLaterThan(this, due);
}

void ConnImpl::CheckDeadlines(Turn& turn) {
  if (phase_ == Phase::kServing && intake_.stop_asked()) return;  // the stop has its own time
  if (phase_ != Phase::kServing && fin_seen_ && out_.empty(turn, intake_)) return;  // in time
  const Deadlines::Due next = NextDue();
  if (next.at <= sys::Now()) turn.Doom(next.reason);
}

}  // namespace xtcp::internal
