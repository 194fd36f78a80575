#include "conn/intake.h"

#include <xtcp/error.h>

#include <memory>
#include <new>
#include <utility>

#include "base/check.h"

namespace xtcp::internal {

// ---- Any thread.

[[gnu::always_inline]] inline bool Intake::QueuePending(std::size_t size, Channel& channel) {
  const std::size_t before = pending_bytes_.load(std::memory_order_relaxed);
  pending_bytes_.store(before + size, std::memory_order_relaxed);
  ++sends()->pending;
  // With bytes in front of these the loop is on its way, or waits for room in the socket. Before
  // the connection is established there is no loop; it looks when it begins.
  return before == 0 && state_.load() == SendState::kOpen && channel.ClaimPost();
}

std::error_code Intake::Send(std::span<const std::byte> bytes, ConnContext& context,
                             Channel& channel, bool* post) {
  {
    MutexLock lock(mu_);
    // Nearly every send: nothing is against it, and there is room after the last byte.
    if (state_.load() == SendState::kOpen && !context.stopping() &&
        bytes.size() <= pending_.room() &&
        sends()->budget.ChargeIfFree(bytes.size(), context.send_buffer_limit)) {
      pending_.AppendInRoom(bytes);
      *post = QueuePending(bytes.size(), channel);
      return {0, context.no_error};
    }
  }
  return SendSlowly(bytes, context, channel, post);
}

std::error_code Intake::SendSlowly(std::span<const std::byte> bytes, ConnContext& context,
                                   Channel& channel, bool* post) {
  std::size_t room = 0;
  {
    MutexLock lock(mu_);
    const bool first_refusal = !has_refused();
    if (const std::error_code refusal = Admit(bytes.size(), context)) {
      // The loop may have set room aside that it does not need. From now on it gives all back.
      *post = first_refusal && has_refused() && state_.load() == SendState::kOpen &&
              channel.ClaimPost();
      return refusal;
    }
    room = pending_.room();
    if (bytes.size() <= room) {
      pending_.AppendInRoom(bytes);
      *post = QueuePending(bytes.size(), channel);
      return {0, context.no_error};
    }
  }
  // What does not fit after the last byte gets its chunks, and is copied, without the lock.
  // Meanwhile the connection may have ended, or another thread may have used the room: then `head`
  // takes a chunk of its own.
  const std::span<const std::byte> head = bytes.first(room);
  OutboundBuffer tail;
  std::error_code error;
  if (!tail.Append(bytes.subspan(room), context.pool())) error = Errc::kNoMemory;
  {
    MutexLock lock(mu_);
    if (!error) error = CheckState(context);
    if (!error && !pending_.Append(head, context.pool())) error = Errc::kNoMemory;
    if (!error) {
      pending_.Splice(tail, context.pool());
      *post = QueuePending(bytes.size(), channel);
    } else {
      CountRefused();
      if (sends() != nullptr) sends()->budget.Release(bytes.size());
      // Another send may have been refused for want of what is given back here.
      *post = has_refused() && state_.load() == SendState::kOpen && channel.ClaimPost();
    }
  }
  tail.Clear(context.pool());
  return error;
}

std::error_code Intake::SendParts(std::span<const Part> parts, std::size_t size,
                                  ConnContext& context, Channel& channel, bool* post) {
  // They are copied, and referred to, without the lock; and only if they may be queued.
  OutboundBuffer added;
  std::error_code error = CheckState(context);
  if (!error && size > context.send_buffer_limit) error = Errc::kTooLarge;
  if (!error && !added.AppendParts(parts, context.pool())) error = Errc::kNoMemory;
  if (error) return Refuse(error);
  {
    MutexLock lock(mu_);
    const bool first_refusal = !has_refused();
    error = Admit(size, context);
    if (!error) {
      pending_.Splice(added, context.pool());
      *post = QueuePending(size, channel);
    } else {
      // The loop may have set room aside that it does not need. From now on it gives all back.
      *post = first_refusal && has_refused() && state_.load() == SendState::kOpen &&
              channel.ClaimPost();
    }
  }
  added.Clear(context.pool());
  return error;
}

std::error_code Intake::CheckState(const ConnContext& context) const {
  switch (state_.load()) {
    case SendState::kNew:
    case SendState::kResolving:
    case SendState::kDialing:
      return stop_asked() || send_ended() ? Errc::kStopping : std::error_code{};
    case SendState::kOpen:
      return context.stopping() ? Errc::kStopping : std::error_code{};
    case SendState::kRefusing:
      return Errc::kStopping;
    case SendState::kClosed:
      break;
  }
  return Errc::kClosed;
}

std::error_code Intake::Refuse(std::error_code error) {
  MutexLock lock(mu_);
  CountRefused();
  return error;
}

void Intake::CountRefused() {
  if (state_.load() != SendState::kClosed) ++refused_sends_;  // then the account is final
}

std::error_code Intake::Admit(std::size_t size, const ConnContext& context) {
  std::error_code error = CheckState(context);
  if (!error && size > context.send_buffer_limit) error = Errc::kTooLarge;
  if (!error && !sends()->budget.TryCharge(size, context.send_buffer_limit)) {
    error = Errc::kFull;
    has_refused_.store(true, std::memory_order_relaxed);
  }
  if (error) CountRefused();
  return error;
}

Intake::StopNote Intake::Stop(StopMode mode, const ConnContext& context, Channel& channel,
                              bool* post) {
  MutexLock lock(mu_);
  StopNote note;
  const SendState state = state_.load();
  note.serves = state > SendState::kResolving;
  if (state != SendState::kClosed) {
    // The stops of its service came first, even if the loop has not seen them yet.
    NoteStopsLocked(Add(stops() | context.all_stops(), mode));
    *post = note.serves && channel.ClaimPost();
  }
  note.was_open = found_open_;
  return note;
}

void Intake::NoteStops(Stops stops) {
  MutexLock lock(mu_);
  NoteStopsLocked(stops);
}

void Intake::NoteStopsLocked(Stops stops) {
  const std::uint8_t signals = signals_.load();
  signals_.store(static_cast<std::uint8_t>(signals | static_cast<std::uint8_t>(stops)));
  if (state_.load() < SendState::kOpen) return;
  if (state_.load() == SendState::kOpen) EnterLocked(SendState::kRefusing);
  found_open_ = true;
}

bool Intake::Pause(bool pause, Channel& channel) {
  MutexLock lock(mu_);
  const std::uint8_t before = signals_.load();
  const auto after = static_cast<std::uint8_t>(pause ? before | kPaused : before & ~kPaused);
  if (after == before || state_.load() == SendState::kClosed) return false;
  signals_.store(after);
  return state_.load() > SendState::kResolving && channel.ClaimPost();
}

bool Intake::EndSend(Channel& channel) {
  MutexLock lock(mu_);
  const std::uint8_t before = signals_.load();
  const SendState state = state_.load();
  if ((before & kEndSend) != 0 || state == SendState::kClosed) return false;
  signals_.store(static_cast<std::uint8_t>(before | kEndSend));
  if (state == SendState::kOpen) EnterLocked(SendState::kRefusing);
  return state >= SendState::kOpen && channel.ClaimPost();
}

std::error_code Intake::Post(Task task, Channel& channel, bool* post) {
  std::unique_ptr<TaskChain::Node> node;
  try {
    node = std::make_unique<TaskChain::Node>(std::move(task));
  } catch (const std::bad_alloc&) {
    return Errc::kNoMemory;
  }
  MutexLock lock(mu_);
  if (state_.load() == SendState::kClosed) return Errc::kClosed;
  const bool first = tasks_.empty();
  tasks_.Append(std::move(node));
  has_tasks_.store(true, std::memory_order_relaxed);
  // Before the first event nothing runs, and the first turn looks by itself.
  *post = first && state_.load() >= SendState::kOpen && channel.ClaimPost();
  return {};
}

TaskChain Intake::TakeTasks(std::size_t most) {
  MutexLock lock(mu_);
  TaskChain taken = tasks_.Split(most);
  has_tasks_.store(!tasks_.empty(), std::memory_order_relaxed);
  return taken;
}

void Intake::Fill(ConnStats* stats, const SendAccount& account, Time now) const {
  MutexLock lock(mu_);
  // They are read in this order, since what was written had been accepted before.
  stats->written_bytes = account.written_bytes.load(std::memory_order_acquire);
  stats->accepted_bytes = account.accepted_bytes.load() + pending_bytes_.load();
  stats->accepted_sends = account.accepted_sends.load();
  stats->refused_sends = refused_sends_;
  stats->reason = static_cast<CloseReason>(reason_);
  if (const auto* const sends = std::get_if<Sends>(&sends_)) {
    stats->accepted_sends += sends->pending;
  } else {
    stats->unacked_bytes = std::get<Outcome>(sends_).unacked_bytes;
    stats->error = std::get<Outcome>(sends_).error;
  }
  stats->age = std::chrono::duration_cast<std::chrono::milliseconds>(age_.At(now));
}

StopReport Intake::Ending(const SendAccount& account) const {
  MutexLock lock(mu_);
  StopReport report;
  report.connections = found_open_ ? 1 : 0;
  report.cut = cut_ ? 1 : 0;
  report.unsent_bytes = account.accepted_bytes.load() - account.written_bytes.load();
  if (const auto* const outcome = std::get_if<Outcome>(&sends_)) {
    report.unacked_bytes = outcome->unacked_bytes;
  }
  return report;
}

Address Intake::Local() const {
  MutexLock lock(mu_);
  return ends_.Local();
}

Address Intake::Remote() const {
  MutexLock lock(mu_);
  return ends_.Remote();
}

// ---- The life.

bool Intake::Enter(SendState from, SendState to) {
  MutexLock lock(mu_);
  if (state_.load() != from) return false;
  EnterLocked(to);
  return true;
}

bool Intake::BeginDial(Channel& channel) {
  MutexLock lock(mu_);
  if (state_.load() != SendState::kResolving || stop_asked()) return false;
  EnterLocked(SendState::kDialing);
  return channel.ClaimPost();
}

bool Intake::ClaimPost(Channel& channel) {
  MutexLock lock(mu_);
  const SendState state = state_.load();
  return state >= SendState::kDialing && state != SendState::kClosed && channel.ClaimPost();
}

void Intake::EnterLocked(SendState to) {
  XTCP_DCHECK(MayFollow(state_.load(), to),
              "a connection's send state makes a move that it may not");
  state_.store(to);
}

void Intake::Open(ConnectionEnds ends, Time now, bool refuse) {
  MutexLock lock(mu_);
  // A dial that was stopped just now is served like any stopped connection.
  found_open_ = stop_asked();
  const bool refuses = found_open_ || refuse || send_ended();
  EnterLocked(refuses ? SendState::kRefusing : SendState::kOpen);
  ends_ = std::move(ends);
  age_.Begin(now);
}

void Intake::Refuse() { Enter(SendState::kOpen, SendState::kRefusing); }

std::error_code Intake::Charge(std::size_t size, std::size_t* ahead, const ConnContext& context) {
  MutexLock lock(mu_);
  const std::error_code error = Admit(size, context);
  if (error || !sends()->budget.TryChargeAhead(*ahead, context.send_buffer_limit)) *ahead = 0;
  return error;
}

void Intake::Release(std::size_t bytes) {
  MutexLock lock(mu_);
  if (sends() != nullptr) sends()->budget.Release(bytes);
}

bool Intake::TakeSendReady(const ConnContext& context) {
  MutexLock lock(mu_);
  if (state_.load() != SendState::kOpen || CheckState(context)) return false;
  if (!sends()->budget.TakeReady(context.send_buffer_limit)) return false;
  has_refused_.store(false, std::memory_order_relaxed);
  return true;
}

std::size_t Intake::TakePending(OutboundBuffer& to, SendAccount& account, BlockPool& pool) {
  MutexLock lock(mu_);
  return MovePending(to, account, pool);
}

std::size_t Intake::MovePending(OutboundBuffer& to, SendAccount& account, BlockPool& pool) {
  to.Splice(pending_, pool);
  const std::size_t bytes = pending_bytes_.load(std::memory_order_relaxed);
  Add(account.accepted_bytes, bytes);
  if (sends() != nullptr) Add(account.accepted_sends, std::exchange(sends()->pending, 0));
  pending_bytes_.store(0, std::memory_order_relaxed);
  return bytes;
}

void Intake::ReleaseWaiters() {
  XTCP_DCHECK(!has_ended(), "threads that wait for a connection are released twice");
  ended_.store(1, std::memory_order_release);
  sys::NotifyAll(ended_);
}

std::size_t Intake::Close(const End& end, OutboundBuffer& to, SendAccount& account,
                          BlockPool& pool) {
  MutexLock lock(mu_);
  return CloseLocked(end, to, account, pool);
}

bool Intake::CloseUnopened(std::error_code error, OutboundBuffer& to, SendAccount& account,
                           BlockPool& pool) {
  MutexLock lock(mu_);
  if (state_.load() == SendState::kClosed) return false;
  CloseLocked({.reason = CloseReason::kConnectFailed, .error = error}, to, account, pool);
  return true;
}

std::size_t Intake::CloseLocked(const End& end, OutboundBuffer& to, SendAccount& account,
                                BlockPool& pool) {
  EnterLocked(SendState::kClosed);
  reason_ = static_cast<std::uint8_t>(end.reason);
  cut_ = end.cut;
  age_.End(end.now);
  const std::size_t moved = MovePending(to, account, pool);
  // On Unix sockets SIOCOUTQ counts memory.
  sends_ = Outcome{end.error, ends_.IsUnix() ? 0 : end.unacked_bytes};
  return moved;
}

}  // namespace xtcp::internal
