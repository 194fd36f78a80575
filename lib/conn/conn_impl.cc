#include "conn/conn_impl.h"

#include <sys/epoll.h>
#include <xtcp/error.h>

#include <algorithm>
#include <exception>
#include <string>
#include <utility>

#include "base/callback_scope.h"
#include "base/log.h"
#include "base/thread_end.h"
#include "conn/worker.h"
#include "socket/socket.h"
#include "sys/syscalls.h"

namespace xtcp::internal {

namespace {

// A read or write for which the kernel has no memory is tried again this often, this many times.
constexpr std::chrono::milliseconds kStarvedPause{100};
constexpr int kStarvedTries = 100;

std::error_code SystemError(int error) { return {error, std::system_category()}; }

}  // namespace

ConnImpl::ConnImpl(std::shared_ptr<ConnContext> context, ConnState state)
    : context_(std::move(context)), state_(state) {}

ConnImpl::~ConnImpl() {
  // Only one that was never served still has any of these.
  MutexLock lock(mu_);
  pending_.Clear(context_->pool);
  sending_.Clear(context_->pool);
  inbound_.Clear(context_->pool);
}

// ---- Any thread.

StopReport ConnImpl::Stop(StopMode mode) {
  const bool waits = mode == StopMode::kGracefullyAndWait;
  const bool would_deadlock = waits && InsideCallback();
  bool runs = false;
  bool post = false;
  StopReport report;
  {
    MutexLock lock(mu_);
    const ConnState state = state_.load();
    runs = state > ConnState::kResolving;
    if (state != ConnState::kClosed) {
      NoteStop(mode);
      post = runs && ClaimPost();
    }
    report.connections = stopped_open_ ? 1 : 0;
  }
  if (post) context_->mailbox.Push(this);
  if (would_deadlock) report.error = Errc::kWouldDeadlock;
  if (waits && !would_deadlock && runs) {
    sys::WaitWhile(ended_, 0);
    report = Ending();
    if (report.connections == 0) report = {};  // it had ended before any stop
  }
  return report;
}

void ConnImpl::NoteStop(StopMode mode) {
  std::uint8_t signals = signals_.load();
  // The server's stop came first, though the loop has not seen it yet.
  if (context_->stopping_gracefully.load()) signals |= kStopGracefully;
  if (mode == StopMode::kImmediately) {
    signals_.store(signals | kStopNow);
  } else if ((signals & kStopNow) == 0) {  // a softer stop changes nothing
    signals_.store(signals | kStopGracefully);
  }
  if (state_.load() < ConnState::kOpen) return;
  state_.store(ConnState::kStopping);
  stopped_open_ = true;
}

std::error_code ConnImpl::DialAndServe(std::string_view) {
  return InsideCallback() ? Errc::kWouldDeadlock : Errc::kAlreadyUsed;
}

void ConnImpl::PauseRecv() { Ask(kPaused, 0); }

void ConnImpl::ResumeRecv() { Ask(0, kPaused); }

void ConnImpl::Ask(std::uint8_t set, std::uint8_t clear) {
  {
    MutexLock lock(mu_);
    const auto before = signals_.load();
    const auto after = static_cast<std::uint8_t>((before | set) & ~clear);
    if (after == before || state_.load() == ConnState::kClosed) return;
    signals_.store(after);
    if (state_.load() <= ConnState::kResolving || !ClaimPost()) return;
  }
  context_->mailbox.Push(this);
}

bool ConnImpl::IsStopped() const {
  return state_.load() >= ConnState::kStopping || StopWasAsked() || context_->stopping.load();
}

ConnStats ConnImpl::Stats() const {
  const Time now = sys::Now();  // no system call under the lock
  ConnStats stats;
  MutexLock lock(mu_);
  // In this order: what was written had been accepted before.
  stats.written_bytes = written_bytes_.load(std::memory_order_acquire);
  stats.accepted_bytes = accepted_bytes_.load(std::memory_order_relaxed) + pending_bytes_.load();
  stats.accepted_sends = accepted_sends_.load(std::memory_order_relaxed) + pending_sends_;
  stats.refused_sends = refused_sends_;
  stats.received_bytes = received_bytes_.load(std::memory_order_relaxed);
  stats.received_packets = received_packets_.load(std::memory_order_relaxed);
  stats.unacked_bytes = unacked_bytes_;
  stats.reason = static_cast<CloseReason>(reason_);
  stats.error = error_;
  if (opened_at_ != Time{0}) {
    const bool closed = state_.load() == ConnState::kClosed;
    // A connection may have begun since.
    const Time age = closed ? opened_at_ : std::max(now - opened_at_, Time{0});
    stats.age = std::chrono::duration_cast<std::chrono::milliseconds>(age);
  }
  return stats;
}

Address ConnImpl::LocalAddress() const {
  MutexLock lock(mu_);
  return ends_.Local();
}

Address ConnImpl::RemoteAddress() const {
  MutexLock lock(mu_);
  return ends_.Remote();
}

std::string ConnImpl::ToString() const {
  return LocalAddress().ToString() + (accepted() ? " <- " : " -> ") + RemoteAddress().ToString();
}

StopReport ConnImpl::Ending() const {
  MutexLock lock(mu_);
  StopReport report;
  report.connections = stopped_open_ ? 1 : 0;
  report.cut = cut_ ? 1 : 0;
  report.unsent_bytes = accepted_bytes_.load() + pending_bytes_.load() - written_bytes_.load();
  report.unacked_bytes = unacked_bytes_;
  return report;
}

bool ConnImpl::EnterState(ConnState from, ConnState to) {
  MutexLock lock(mu_);
  if (state_.load() != from) return false;
  state_.store(to);
  return true;
}

// ---- The loop's thread: begin and end.

std::error_code ConnImpl::Open(UniqueFd fd, ConnectionEnds ends, EventType first) {
  fd_ = std::move(fd);
  const std::error_code error = worker().loop().Watch(this, EPOLLIN);
  if (error) {
    fd_.Reset();
    return error;
  }
  const Options& options = worker().options();
  const Time now = sys::Now();
  write_at_ = now;
  {
    MutexLock lock(mu_);
    // A dial that was stopped just now is served like any stopped connection.
    const bool stopped = (signals_.load() & kStopSignals) != 0;
    const bool refuses = stopped || write_error_ != 0;
    state_.store(refuses ? ConnState::kStopping : ConnState::kOpen);
    stopped_open_ = stopped;
    ends_ = std::move(ends);
    opened_at_ = now;
  }
  BeginTurn();
  Deliver(first, nullptr);
  // Its times begin when the application has had its first word.
  worker().turn.traffic = true;
  if (options.first_packet_size > 0 && options.packet_deadline.count() > 0) {
    hard_due_ = sys::Now() + options.packet_deadline;
  }
  EndTurn();
  return {};
}

void ConnImpl::StopFromServer(bool gracefully, bool now) {
  if (phase_ == Phase::kClosed) return;
  {
    MutexLock lock(mu_);
    if (gracefully) NoteStop(StopMode::kGracefullyButNotWait);
    if (now) NoteStop(StopMode::kImmediately);
  }
  Visit(kWasPosted);
}

void ConnImpl::Abort(std::error_code error) {
  if (phase_ == Phase::kClosed) return;
  BeginTurn();
  Close(CloseReason::kSystemError, error);
  EndTurn();
}

void ConnImpl::CloseUnopened(std::error_code error) {
  {
    MutexLock lock(mu_);
    state_.store(ConnState::kClosed);
    TakePending();
    reason_ = static_cast<std::uint8_t>(CloseReason::kConnectFailed);
    error_ = error;
  }
  phase_ = Phase::kClosed;
  sending_.Clear(context_->pool);
}

void ConnImpl::AnnounceEnd() {
  ended_.store(1, std::memory_order_release);
  sys::NotifyAll(ended_);
}

void ConnImpl::Close(CloseReason reason, std::error_code error) {
  EventLoop& loop = worker().loop();
  LoopTotals& totals = worker().totals();
  // A graceful stop that was not left to its course.
  const std::uint8_t signals = signals_.load();
  const bool cut = (signals & kStopGracefully) != 0 &&
                   (reason == CloseReason::kLingerTimeout ||
                    (reason == CloseReason::kLocalStop && (signals & kStopNow) != 0));
  phase_ = Phase::kClosed;
  worker().turn.Clear();

  std::uint64_t unacked = 0;
  if (written_bytes_.load(std::memory_order_relaxed) > 0) {
    unacked = UnackedBytes(fd_.get());
    if (fin_sent_ && unacked > 0) --unacked;
  }
  const Time now = sys::Now();
  {
    MutexLock lock(mu_);
    if (ends_.IsUnix()) unacked = 0;  // there SIOCOUTQ counts memory
    state_.store(ConnState::kClosed);
    TakePending();
    unacked_bytes_ = unacked;
    reason_ = static_cast<std::uint8_t>(reason);
    error_ = error;
    cut_ = cut;
    opened_at_ = std::max(now - opened_at_, Time{1});
  }
  loop.Unwatch(this);
  loop.Disarm(this);
  fd_.Reset();
  sending_.Clear(context_->pool);
  inbound_.Clear(context_->pool);
  Add(totals.unacked_bytes, unacked);
  XTCP_LOG_LIMITED(kDebug, "%s closed: %s", ToString().c_str(),
                   std::string(xtcp::ToString(reason)).c_str());

  // Its place is free before the application hears of it: a newcomer may take it at once.
  worker().owner().ConnectionEnded(Ending());
  Deliver(EventType::kClosed, nullptr);
  user_data_.reset();
  if (accepted()) AnnounceEnd();
  // After the state above nobody posts any more; one who did before is waited for.
  if (!posted()) loop.Retire(this);
}

// ---- The loop's thread: turns.

void ConnImpl::HandleEvents(std::uint32_t events) { Visit(events); }

void ConnImpl::HandleTimer() { Visit(kTimerDue); }

void ConnImpl::HandlePosted() {
  if (phase_ == Phase::kClosed) {
    worker().loop().Retire(this);
    return;
  }
  Visit(kWasPosted | std::exchange(deferred_, 0));
}

// One turn an iteration. A further reason in the same one waits for the next; and while packets are
// left over, so does what epoll reports, for the post that delivers them: it comes after the events
// of connections that did not have as much.
void ConnImpl::Visit(std::uint32_t reasons) {
  const bool had_its_turn = last_iteration_ == worker().loop().iteration();
  const bool turn_will_come = (reasons & kWasPosted) == 0 && backlog_ && posted();
  if (had_its_turn || turn_will_come) {
    deferred_ |= reasons;
    Post();
  } else {
    TakeTurn(reasons);
  }
}

void ConnImpl::TakeTurn(std::uint32_t reasons) {
  BeginTurn();
  if ((reasons & (EPOLLOUT | EPOLLERR | EPOLLHUP)) != 0) blocked_ = false;
  if ((reasons & (EPOLLERR | EPOLLHUP)) != 0) starved_ = false;  // they would be reported for ever
  bool input = (reasons & (EPOLLIN | EPOLLERR | EPOLLHUP)) != 0;
  bool overdue = false;
  if ((reasons & kTimerDue) != 0) {
    FollowPause();  // asked for before the deadline, and seen with it
    if (std::exchange(starved_, false)) {
      blocked_ = false;
      input = true;
    }
    // What has arrived, or can leave, by now counts.
    overdue = NextDeadline().due <= sys::Now();
    if (overdue) {
      blocked_ = false;
      input = true;
    }
  }
  if ((reasons & kWasPosted) != 0) {
    if (phase_ == Phase::kServing && !paused()) {
      if (backlog_ || (write_error_ != 0 && !starved_)) input = true;
    } else if (write_error_ != 0) {
      DoomBySocket(write_error_);
    }
  }
  if (input) HandleInput(reasons);
  if (overdue) {
    Flush();
    NoteActivity();
    CheckDeadlines();
  }
  EndTurn();
}

void ConnImpl::HandleRetired() { worker().Erase(*this); }

void ConnImpl::Post() {
  if (ClaimPost()) context_->mailbox.Push(this);
}

void ConnImpl::BeginTurn() {
  Worker::Turn& turn = worker().turn;
  turn.conn = this;
  turn.doom = CloseReason::kNone;
  turn.traffic = false;
  turn.writes = 0;
  last_iteration_ = worker().loop().iteration();
}

void ConnImpl::EndTurn() {
  if (phase_ != Phase::kClosed) {
    Flush();
    OfferSendReady();
  }
  if (phase_ != Phase::kClosed) Advance();
  if (phase_ != Phase::kClosed) {
    NoteActivity();
    FollowPause();
    Watch();
  }
  if (phase_ != Phase::kClosed) {
    // The socket takes nothing more: read on until the input ends, too.
    if (write_error_ != 0 && !starved_) Post();
    ScheduleTimer();
  }
  ReleaseBudget();
  worker().turn.conn = nullptr;
}

// Noted at the end of the turn: the time that callbacks took is not the peer's silence.
void ConnImpl::NoteActivity() {
  if (!worker().turn.traffic || !worker().has_deadlines()) return;
  active_at_ = pause_followed_ ? Time{0} : sys::Now();
}

// What the callbacks and the system calls of this turn lead to.
void ConnImpl::Advance() {
  const std::uint8_t signals = signals_.load();
  if (worker().turn.doom != CloseReason::kNone) {
    Close(worker().turn.doom, worker().turn.doom_error);
    return;
  }
  if ((signals & kStopNow) != 0) {
    Close(CloseReason::kLocalStop, {});
    return;
  }
  const bool stopping = phase_ == Phase::kStopping || phase_ == Phase::kLingering;
  if ((signals & kStopGracefully) != 0 && !stopping) BeginGracefulStop();
  if (phase_ == Phase::kFlushing && NothingQueued()) {
    Close(CloseReason::kPeerClosed, {});
    return;
  }
  if (phase_ == Phase::kStopping && NothingQueued()) {
    // Closing with unread input would make the kernel send a reset, and the peer could lose what it
    // has not read yet (RFC 1122, 4.2.2.13). So: FIN, then read until the peer's.
    fin_sent_ = ShutdownWrite(fd_.get());
    phase_ = Phase::kLingering;
  }
  if (phase_ == Phase::kLingering && fin_seen_) Close(CloseReason::kLocalStop, {});
}

void ConnImpl::BeginGracefulStop() {
  phase_ = Phase::kStopping;
  backlog_ = false;
  inbound_.Clear(context_->pool);
  hard_due_ = sys::Now() + worker().options().linger_timeout;
}

void ConnImpl::Doom(CloseReason reason, std::error_code error) {
  Worker::Turn& turn = worker().turn;
  if (turn.doom != CloseReason::kNone) return;  // the first cause counts
  turn.doom = reason;
  turn.doom_error = error;
}

void ConnImpl::DoomBySocket(int error) {
  write_error_ = error;
  const bool reset = error == ECONNRESET || error == EPIPE;
  Doom(reset ? CloseReason::kPeerReset : CloseReason::kSystemError, SystemError(error));
}

void ConnImpl::Starve(int error) {
  starved_ = true;
  if (++starved_count_ < kStarvedTries) return;
  Doom(CloseReason::kSystemError, SystemError(error));
}

void ConnImpl::Watch() {
  std::uint32_t events = 0;
  if (!starved_) {
    const bool reads = phase_ == Phase::kServing ? !paused() : !fin_seen_;
    if (reads) {
      events |= EPOLLIN;
      parked_ = false;
    }
    if (blocked_ && write_error_ == 0) events |= EPOLLOUT;
  }
  if (parked_ && events == 0) return;  // output that waits wants to be tried again
  const std::error_code error = worker().loop().Rewatch(this, events);
  if (error) Close(CloseReason::kSystemError, error);
}

// ---- Deadlines. The timer is armed lazily: traffic only moves the times below, and a timer that
// comes too early looks again.

void ConnImpl::ScheduleTimer() {
  if (phase_ == Phase::kServing && !worker().has_deadlines() && !starved_) return;
  Time due = NextDeadline().due;
  if (starved_) due = std::min(due, sys::Now() + kStarvedPause);
  if (due != kNever) worker().loop().ArmNoLaterThan(this, due);
}

ConnImpl::Deadline ConnImpl::NextDeadline() const {
  const Options& options = worker().options();
  if (phase_ == Phase::kStopping || phase_ == Phase::kLingering) {
    return {hard_due_, CloseReason::kLingerTimeout};
  }
  Deadline next{kNever, CloseReason::kNone};
  const auto consider = [&next](Time due, CloseReason reason) {
    if (due < next.due) next = {due, reason};
  };
  if (options.write_deadline.count() > 0 && !sending_.empty()) {
    consider(write_at_ + options.write_deadline, CloseReason::kWriteDeadline);
  }
  if (phase_ == Phase::kFlushing) {
    consider(write_at_ + options.linger_timeout, CloseReason::kLingerTimeout);
  }
  if (phase_ == Phase::kServing && !pause_followed_) {
    consider(hard_due_, CloseReason::kPacketDeadline);
    if (options.read_deadline.count() > 0) {
      consider(active_at_ + options.read_deadline, CloseReason::kReadDeadline);
    }
  }
  return next;
}

void ConnImpl::CheckDeadlines() {
  if (phase_ == Phase::kServing && StopWasAsked()) return;  // the stop has its own time
  if (fin_seen_ && NothingQueued()) return;                 // it has ended in time
  const Deadline next = NextDeadline();
  if (next.due <= sys::Now()) Doom(next.reason);
}

// While paused, the times of input are kept relative to now, so that they stand still.
void ConnImpl::FollowPause() {
  if (phase_ == Phase::kServing && paused() != pause_followed_) ShiftTimes();
}

void ConnImpl::ShiftTimes() {
  pause_followed_ = !pause_followed_;
  const Time now = sys::Now();
  const Time shift = pause_followed_ ? -now : now;
  active_at_ += shift;
  if (hard_due_ != kNever) hard_due_ += shift;
}

// ---- User code.

void ConnImpl::Deliver(EventType event, PacketPtr packet) {
  try {
    worker().handler().OnEvent(event, self(), std::move(packet));
  } catch (const ForcedUnwind&) {
    throw;
  } catch (...) {
    NoteException();
  }
}

// Inside a catch block.
void ConnImpl::NoteException() {
  Add(worker().totals().exceptions, 1);
  Doom(CloseReason::kException);
  const Time now = sys::Now();
  try {
    throw;
  } catch (const std::exception& exception) {
    XTCP_LOG_LIMITED(kError, "%s: an exception left user code: %s", ToString().c_str(),
                     exception.what());
  } catch (...) {
    XTCP_LOG_LIMITED(kError, "%s: an exception left user code", ToString().c_str());
  }
}

const ConnPtr& ConnImpl::self() const { return worker().PtrOf(*this); }

}  // namespace xtcp::internal
