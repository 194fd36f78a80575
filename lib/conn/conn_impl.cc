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
#include "buffer/scratch.h"
#include "conn/service_loop.h"
#include "loop/group.h"
#include "loop/loop_access.h"
#include "socket/socket.h"
#include "sys/syscalls.h"
#include "types/pack.h"

namespace xtcp::internal {

ConnImpl::ConnImpl(Ref<ConnContext> context, SendState state)
    : context_(std::move(context)), intake_(state) {}

ConnImpl::~ConnImpl() {
  XTCP_DCHECK(!fd_.valid(), "a connection is destroyed with its socket");
  // Only a connection that was never served still has any of these. Nobody can call it any more.
  DropUserData();
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

// Tasks and the decoder may refer to the user data, so it goes last.
void ConnImpl::DropUserData() {
  intake_.TakeTasks(std::numeric_limits<std::size_t>::max());
  in_.DropDecoder();
  user_data_.reset();
}

void ConnImpl::HandleRetired() { service().ConnectionGone(*this); }

}  // namespace xtcp::internal
