#include "conn/conn_impl.h"

#include <sys/epoll.h>
#include <xtcp/error.h>

#include <algorithm>
#include <cstring>
#include <limits>
#include <memory>
#include <string>
#include <utility>

#include "base/callback_scope.h"
#include "base/check.h"
#include "base/log.h"
#include "base/scope.h"
#include "buffer/scratch.h"
#include "conn/service_loop.h"
#include "loop/group.h"
#include "loop/loop_access.h"
#include "socket/socket.h"
#include "sys/syscalls.h"
#include "types/pack.h"

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

ConnImpl::ConnImpl(std::shared_ptr<ConnContext> context, SendState state)
    : context_(std::move(context)), intake_(state) {}

ConnImpl::~ConnImpl() {
  XTCP_DCHECK(!fd_.valid(), "a connection is destroyed with its socket");
  // Only a connection that was never served still has any of these.
  intake_.TakePending(out_.queue(), out_.account(), context_->pool());
  out_.Clear(context_->pool());
  in_.Clear(context_->pool());
}

// ---- Any thread.

std::error_code ConnImpl::Send(std::span<const std::byte> bytes) {
  // Nearly every send of a busy server: in the connection's own turn, and charged ahead.
  Turn* const turn = Turn::Current();
  if (turn != nullptr && turn->IsOf(this) && Outbound::MayGather(*turn, bytes.size()) &&
      intake_.open_and_nothing_pending() && !context_->stopping()) {
    const std::error_category& no_error = context_->no_error;
    std::memcpy(turn->Gather(bytes.size()), bytes.data(), bytes.size());
    return {0, no_error};
  }
  return SendSlowly(bytes);
}

std::error_code ConnImpl::SendSlowly(std::span<const std::byte> bytes) {
  if (bytes.empty()) return {};
  if (EventLoop::IsCurrent(context_->mailbox)) {
    service().loop().AssertOnThread();
    return SendOnLoop(bytes);
  }
  bool post = false;
  const std::error_code error = intake_.Send(bytes, *context_, *this, &post);
  if (post) Push();
  return error;
}

std::error_code ConnImpl::SendOnLoop(std::span<const std::byte> bytes) {
  Turn& turn = service().turn();
  if (turn.IsOf(this)) return out_.SendInTurn(bytes, turn, intake_, *context_, deadlines_);
  const std::error_code error =
      out_.SendElsewhere(bytes, service().service(), intake_, *context_, deadlines_);
  // A turn of its own writes; or gives back the room for want of which this send was refused.
  if (!error || intake_.has_refused()) Post();
  return error;
}

std::error_code ConnImpl::SendParts(std::span<const Part> parts) {
  std::size_t size = 0;
  for (const Part& part : parts) {
    if (part.bytes.size() > std::numeric_limits<std::size_t>::max() - size) {
      return intake_.Refuse(Errc::kTooLarge);
    }
    size += part.bytes.size();
  }
  if (size == 0) return {};
  if (!EventLoop::IsCurrent(context_->mailbox)) {
    bool post = false;
    const std::error_code error = intake_.SendParts(parts, size, *context_, *this, &post);
    if (post) Push();
    return error;
  }
  service().loop().AssertOnThread();
  Turn& turn = service().turn();
  const bool own = turn.IsOf(this);
  const std::error_code error = out_.SendParts(parts, size, own ? &turn : nullptr,
                                               service().service(), intake_, *context_, deadlines_);
  if (!own && (!error || intake_.has_refused())) Post();
  return error;
}

std::error_code ConnImpl::SendPacket(const Packet& packet) {
  // Don't pack when the send would be refused anyway.
  if (const std::error_code error = intake_.CheckState(*context_)) return intake_.Refuse(error);
  Scratch scratch(context_->pool());
  std::span<std::byte> packed;
  bool too_large = false;
  const auto allocate = [&](std::size_t size, std::span<std::byte>* room) {
    too_large = size > context_->send_buffer_limit;
    if (too_large) return false;
    std::byte* const bytes = scratch.Take(size);
    if (bytes == nullptr) return false;
    packed = *room = {bytes, size};
    return true;
  };
  std::error_code error = PackPacket(*context_->protocol, packet, allocate);
  if (too_large) error = Errc::kTooLarge;
  return error ? intake_.Refuse(error) : Send(packed);
}

StopReport ConnImpl::Stop(StopMode mode) {
  const bool waits = mode == StopMode::kGracefullyAndWait;
  const bool would_deadlock = waits && InsideCallback();
  bool post = false;
  const Intake::StopNote note = intake_.Stop(mode, *context_, *this, &post);
  if (post) Push();
  StopReport report;
  report.connections = note.was_open ? 1 : 0;
  if (would_deadlock) report.error = Errc::kWouldDeadlock;
  if (waits && !would_deadlock && note.serves) {
    WaitForEnd();
    report = FinalReport();
    if (report.connections == 0) report = {};  // it had ended before any stop
  }
  return report;
}

std::error_code ConnImpl::Dial(std::string_view) { return Errc::kAlreadyUsed; }

std::error_code ConnImpl::DialAndServe(std::string_view) {
  return InsideCallback() ? Errc::kWouldDeadlock : Errc::kAlreadyUsed;
}

void ConnImpl::Pause(bool pause) {
  if (intake_.Pause(pause, *this)) Push();
}

ConnStats ConnImpl::Stats() const {
  ConnStats stats;
  intake_.Fill(&stats, out_.account(), sys::Now());  // the clock is read before the lock is taken
  stats.received_bytes = in_.received_bytes();
  stats.received_packets = in_.received_packets();
  // What has gathered in its own turn was accepted as well.
  if (EventLoop::IsCurrent(context_->mailbox) && service().turn().IsOf(this)) {
    stats.accepted_bytes += service().turn().gathered().size();
    stats.accepted_sends += service().turn().gathered_sends();
  }
  return stats;
}

std::string ConnImpl::ToString() const {
  return LocalAddress().ToString() + (accepted() ? " <- " : " -> ") + RemoteAddress().ToString();
}

Protocol::Decoder* ConnImpl::decoder() {
  return phase_ == Phase::kClosed && !in_.has_decoder() ? nullptr
                                                        : in_.AskDecoder(*context_->protocol);
}

void ConnImpl::EndSend() {
  if (intake_.EndSend(*this)) Push();
}

std::error_code ConnImpl::Post(Task task) {
  bool post = false;
  const std::error_code error = intake_.Post(std::move(task), *this, &post);
  if (post) Push();
  return error;
}

Loop ConnImpl::loop() const { return LoopAccess::Make(context_->loop); }

void ConnImpl::Post() {
  if (ClaimPost()) Push();
}

void ConnImpl::Push() {
  if (EventLoop::IsCurrent(context_->mailbox)) {
    service().loop().PushLocally(this);
  } else {
    context_->mailbox.Push(this);
  }
}

void ConnImpl::WaitForEnd() const {
  if (const std::shared_ptr<Group> group = context_->loop->group.lock()) {
    group->TurnUntil([this] { return intake_.has_ended(); });
  }
  intake_.WaitForEnd();
}

// ---- Any callback on its loop.

void ConnImpl::SetTimer(std::chrono::milliseconds delay) {
  if (!EventLoop::IsCurrent(context_->mailbox) || !fd_.valid()) return;
  EventLoop& loop = service().loop();
  loop.AssertOnThread();
  if (phase_ != Phase::kServing || fin_seen_) return;
  if (delay.count() <= 0) {
    timer_due_ = loop.iteration_began();
    Post();
  } else {
    constexpr std::chrono::milliseconds kLongest = std::chrono::years(100);
    timer_due_ = loop.iteration_began() + std::min(delay, kLongest);
    // Its own turn arms it at the end.
    if (!service().turn().IsOf(this)) loop.ArmNoLaterThan(this, timer_due_);
  }
}

void ConnImpl::CancelTimer() {
  if (!EventLoop::IsCurrent(context_->mailbox) || !fd_.valid()) return;  // there is none to cancel
  service().loop().AssertOnThread();
  timer_due_ = Deadlines::kNever;
}

// ---- The loop's thread: begin and end.

template <typename Function>
void ConnImpl::CallAside(Turn& turn, const Function& function) {
  const bool timed = turn.service().has_deadlines;
  const auto before = timed ? sys::Now() : Deadlines::Time{0};
  turn.Call(function);
  if (timed) deadlines_.NoteAside(sys::Now() - before);
}

std::error_code ConnImpl::Begin(UniqueFd fd, ConnectionEnds ends, EventType first) {
  fd_ = std::move(fd);
  if (const std::error_code error = service().loop().Watch(this, EPOLLIN)) {
    fd_.Reset();
    return error;
  }
  intake_.Open(std::move(ends), sys::Now(), out_.error() != 0);
  Turn& turn = BeginTurn();
  turn.Call([&](Handler& handler) { handler.OnEvent(first, turn.self(), nullptr); });
  // Its times begin when the application has had its first word.
  turn.NoteTraffic();
  const Options& options = turn.options();
  if (options.first_packet_size > 0 && options.packet_deadline.count() > 0) {
    deadlines_.BeginPacket(sys::Now() + options.packet_deadline);
  }
  FinishTurn(turn);
  return {};
}

void ConnImpl::StopByService(Stops stops) {
  if (phase_ == Phase::kClosed) return;
  intake_.NoteStops(stops);
  Visit(kWasPosted);
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

void ConnImpl::Abort(std::error_code error) {
  if (phase_ == Phase::kClosed) return;
  Turn& turn = BeginTurn();
  Close(turn, CloseReason::kSystemError, error);
  FinishTurn(turn);
}

bool ConnImpl::CloseUnopened(std::error_code error) {
  if (!intake_.CloseUnopened(error, out_.queue(), out_.account(), context_->pool())) return false;
  EnterPhase(Phase::kClosed);
  out_.Clear(context_->pool());
  return true;
}

bool ConnImpl::BeginDial() {
  if (!intake_.BeginDial(*this)) return false;
  Push();
  return true;
}

void ConnImpl::PostDial() {
  if (intake_.ClaimPost(*this)) Push();
}

// The order is the same whatever ends the connection; docs/design.md gives the reasons.
void ConnImpl::Close(Turn& turn, CloseReason reason, std::error_code error) {
  XTCP_DCHECK(turn.IsOf(this), "a connection is closed in the turn of another one");
  EventLoop& loop = service().loop();
  const Stops stops = intake_.stops();
  EnterPhase(Phase::kClosed);
  out_.CountGathered(turn);
  turn.ClearGathered();

  Intake::End end{.reason = reason, .error = error};
  // It was cut if it was asked to end gracefully and could not do so to the end.
  end.cut = Has(stops, Stops::kGraceful) &&
            (reason == CloseReason::kLingerTimeout ||
             (reason == CloseReason::kLocalStop && Has(stops, Stops::kNow)));
  if (out_.account().written_bytes.load(std::memory_order_relaxed) > 0) {
    end.unacked_bytes = UnackedBytes(fd_.get());
    if (fin_sent_ && end.unacked_bytes > 0) --end.unacked_bytes;  // our FIN counts as one
  }
  end.now = sys::Now();
  Add(turn.totals().accepted_bytes, intake_.Close(end, out_.queue(), out_.account(), turn.pool()));
  const StopReport report = FinalReport();
  Add(turn.totals().unacked_bytes, report.unacked_bytes);

  loop.Unwatch(this);
  loop.Disarm(this);
  fd_.Reset();
  out_.Clear(turn.pool());
  turn.Release(turn.pool());
  in_.Clear(turn.pool());
  XTCP_LOG_LIMITED(kDebug, "%s closed: %s", ToString().c_str(),
                   std::string(xtcp::ToString(reason)).c_str());

  // Its place is free before the application hears of it, so that a newcomer may take it at once.
  service().ConnectionEnded(report);
  turn.Call([&](Handler& handler) { handler.OnEvent(EventType::kClosed, turn.self(), nullptr); });
  DropUserData();
  if (ends_with_closed()) ReleaseWaiters();
  // Once the state is closed no thread posts any more. A post that was claimed before is waited
  // for: `HandlePosted` retires the connection then.
  if (!posted()) loop.Retire(this);
}

void ConnImpl::DropUserData() {
  intake_.TakeTasks(std::numeric_limits<std::size_t>::max());
  in_.DropDecoder();
  user_data_.reset();
}

void ConnImpl::HandleRetired() { service().ConnectionGone(*this); }

// ---- The loop's thread: turns.

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

// ---- Tasks and the application's timer.

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
