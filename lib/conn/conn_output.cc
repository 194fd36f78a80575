// The way of a byte out: Send → (outbound buffer) → write.
//
// On the loop's thread `Send` needs no lock. In the connection's own turn the bytes gather in the
// worker's turn buffer and leave in one write at the end; what the kernel does not take waits in
// `sending_`. On other threads `Send` fills `pending_` under the lock and posts the connection to
// its loop, which splices `pending_` behind `sending_`. Older bytes are always in front: turn
// buffer, then `sending_`, of which one is empty, then `pending_`.

#include <sys/uio.h>
#include <xtcp/error.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <utility>

#include "buffer/scratch.h"
#include "conn/conn_impl.h"
#include "conn/worker.h"
#include "socket/socket.h"
#include "sys/syscalls.h"
#include "types/pack.h"

namespace xtcp::internal {

namespace {

// Sends on the loop charge the budget for this much at a time, so that most of them touch no
// atomic.
constexpr std::size_t kLump = 64 << 10;

// One gathered write takes this many chunks, 1 MiB, and a turn makes this many.
constexpr int kPartsPerWrite = 64;
constexpr int kWritesPerTurn = 4;

// A send of this many bytes or more is offered to the kernel at once: a copy of it would cost more
// than a system call.
constexpr std::size_t kLargeSend = 256 << 10;

}  // namespace

// ---- Any thread.

inline void ConnImpl::CountAccepted(std::size_t size, LoopTotals& totals) {
  Add(accepted_bytes_, size);
  Add(accepted_sends_, 1);
  Add(totals.accepted_bytes, size);
}

std::error_code ConnImpl::Send(std::span<const std::byte> bytes) {
  // Nearly every send of a busy server: in the connection's own turn, and charged ahead. Then
  // `sending_` is empty, and there is room in the turn's buffer.
  if (EventLoop::IsCurrent(context_->mailbox)) {
    Worker::Turn& turn = worker().turn;
    if (turn.conn == this && bytes.size() - 1 < turn.lump() &&  // and not 0
        pending_bytes_.load(std::memory_order_relaxed) == 0 &&
        state_.load(std::memory_order_relaxed) == ConnState::kOpen &&
        !context_->stopping.load(std::memory_order_relaxed)) {
      std::byte* const to = std::exchange(turn.next, turn.next + bytes.size());
      CountAccepted(bytes.size(), worker().totals());
      const std::error_category& no_error = context_->no_error;
      std::memcpy(to, bytes.data(), bytes.size());
      return {0, no_error};
    }
  }
  return SendSlowly(bytes);
}

std::error_code ConnImpl::SendSlowly(std::span<const std::byte> bytes) {
  if (bytes.empty()) return {};
  return EventLoop::IsCurrent(context_->mailbox) ? SendOnLoop(bytes) : SendFromElsewhere(bytes);
}

std::error_code ConnImpl::SendPacket(const Packet& packet) {
  // Packing is for nothing when the answer is known.
  if (const std::error_code error = CheckState()) return Refuse(error);
  Scratch scratch(context_->pool);
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
  return error ? Refuse(error) : Send(packed);
}

std::error_code ConnImpl::CheckState() const {
  switch (state_.load()) {
    case ConnState::kNew:
    case ConnState::kResolving:
    case ConnState::kDialing:
      return (signals_.load() & kStopSignals) != 0 ? Errc::kStopping : std::error_code{};
    case ConnState::kOpen:
      if (context_->stopping.load(std::memory_order_relaxed)) return Errc::kStopping;
      return {};
    case ConnState::kStopping:
      return Errc::kStopping;
    case ConnState::kClosed:
      break;
  }
  return Errc::kClosed;
}

std::error_code ConnImpl::Refuse(std::error_code error) {
  MutexLock lock(mu_);
  CountRefused();
  return error;
}

void ConnImpl::CountRefused() {
  if (state_.load() != ConnState::kClosed) ++refused_sends_;  // then the account is final
}

// The whole decision about `size` bytes: null, and they are charged; or why not, counted and noted.
std::error_code ConnImpl::Admit(std::size_t size) {
  std::error_code error = CheckState();
  if (!error && size > context_->send_buffer_limit) error = Errc::kTooLarge;
  if (!error && !ChargeOrNote(size)) error = Errc::kFull;
  if (error) CountRefused();
  return error;
}

bool ConnImpl::ChargeOrNote(std::size_t size) {
  if (budget_.TryCharge(size, context_->send_buffer_limit)) return true;
  // The note first, then another try: see SendBudget.
  const bool noted = refused_.exchange(true);
  if (budget_.TryCharge(size, context_->send_buffer_limit)) {
    refused_.store(noted);
    return true;
  }
  largest_refused_ = std::max(largest_refused_, size);
  return false;
}

// ---- Other threads than the loop's.

std::error_code ConnImpl::SendFromElsewhere(std::span<const std::byte> bytes) {
  std::size_t room = 0;
  bool post = false;
  {
    MutexLock lock(mu_);
    if (const std::error_code refusal = Admit(bytes.size())) return refusal;
    room = pending_.room();
    if (bytes.size() <= room) {
      pending_.Append(bytes, context_->pool);
      post = QueuePending(bytes.size());
    }
  }
  std::error_code error;
  if (bytes.size() > room) {
    // What does not fit behind the last byte gets its chunks, and is copied, without the lock.
    // Meanwhile the connection may have ended, or others may have used the room: then `head` takes
    // a chunk of its own.
    const std::span<const std::byte> head = bytes.first(room);
    OutboundBuffer tail;
    if (!tail.Append(bytes.subspan(room), context_->pool)) error = Errc::kNoMemory;
    {
      MutexLock lock(mu_);
      if (!error) error = CheckState();
      if (!error && !pending_.Append(head, context_->pool)) error = Errc::kNoMemory;
      if (!error) {
        pending_.Splice(tail, context_->pool);
        post = QueuePending(bytes.size());
      } else {
        CountRefused();
        budget_.Release(bytes.size());
        // Somebody may have been refused because of what is given back here.
        post = state_.load() == ConnState::kOpen && ClaimPost();
      }
    }
    tail.Clear(context_->pool);
  }
  if (post) context_->mailbox.Push(this);
  return error;
}

// Counts what was put into `pending_`; whether it is to be posted.
bool ConnImpl::QueuePending(std::size_t size) {
  // The loop looks after the post, or after something that happened after this call.
  pending_bytes_.store(pending_bytes_.load() + size);
  ++pending_sends_;
  context_->accepted_elsewhere.fetch_add(size, std::memory_order_relaxed);
  // Before the connection stands there is no loop; it looks when it begins.
  return state_.load() == ConnState::kOpen && ClaimPost();
}

// ---- The loop's thread.

std::error_code ConnImpl::SendOnLoop(std::span<const std::byte> bytes) {
  if (const std::error_code error = CheckState()) return Refuse(error);
  Worker& worker = this->worker();
  if (!ChargeOnLoop(bytes.size())) {
    MutexLock lock(mu_);
    if (const std::error_code error = Admit(bytes.size())) return error;
  }
  if (bytes.size() >= kLargeSend && MayWriteNow()) {
    CountAccepted(bytes.size(), worker.totals());
    SendAtOnce(bytes);
    return {};
  }
  // Its own turn writes; or, without memory, offers to others what is given back here.
  if (worker.turn.conn != this) Post();
  if (!Enqueue(bytes)) {
    budget_.Release(bytes.size());
    return Refuse(Errc::kNoMemory);
  }
  CountAccepted(bytes.size(), worker.totals());
  return {};
}

// Whether this is the connection's own turn, and nothing keeps it from writing in the middle of it.
bool ConnImpl::MayWriteNow() const {
  const Worker::Turn& turn = worker().turn;
  return turn.conn == this && turn.writes < kWritesPerTurn && turn.doom == CloseReason::kNone &&
         sending_.empty() && pending_bytes_.load(std::memory_order_relaxed) == 0 &&
         write_error_ == 0 && !starved_ && !blocked_;
}

// Writes what this turn has gathered, and `bytes` after it; what the kernel does not take is queued.
void ConnImpl::SendAtOnce(std::span<const std::byte> bytes) {
  Worker::Turn& turn = worker().turn;
  const std::size_t gathered = turn.size();
  iovec parts[] = {{turn.bytes.get(), gathered},
                   {const_cast<std::byte*>(bytes.data()), std::min(bytes.size(), kLargestWrite)}};
  ++turn.writes;
  const ssize_t n = SendMsg(fd_.get(), parts, 2);
  if (n < 0) HandleWriteError(errno);
  const std::size_t taken = n < 0 ? 0 : static_cast<std::size_t>(n);
  Written(taken);
  if (taken == gathered + bytes.size()) {
    turn.Clear();
    return;
  }
  blocked_ = !starved_;
  const std::size_t of_turn = std::min(taken, gathered);
  const bool queued = QueueBehind({turn.bytes.get() + of_turn, gathered - of_turn}) &&
                      QueueBehind(bytes.subspan(taken - of_turn));
  turn.Clear();
  if (!queued) Doom(CloseReason::kNoMemory, Errc::kNoMemory);
}

// Charges `size` bytes. In the connection's turn, as long as its sends gather in the turn's buffer,
// some more for those to come; but not near the limit: there other senders need what would only be
// set aside.
bool ConnImpl::ChargeOnLoop(std::size_t size) {
  const std::size_t limit = context_->send_buffer_limit;
  Worker::Turn& turn = worker().turn;
  // Asked in this order, `size + kLump` cannot overflow.
  if (turn.conn == this && sending_.empty() && size <= turn.room() && size + kLump <= turn.room() &&
      budget_.charged() + size + kLump <= limit / 2 && budget_.TryCharge(size + kLump, limit)) {
    turn.ahead += kLump;
    return true;
  }
  return budget_.TryCharge(size, limit);
}

bool ConnImpl::Enqueue(std::span<const std::byte> bytes) {
  Worker::Turn& turn = worker().turn;
  if (pending_bytes_.load(std::memory_order_relaxed) != 0) {
    // Sent before, from another thread: those go first.
    if (!SpillTurn()) return false;
    NoteQueueBegins();
    MutexLock lock(mu_);
    TakePending();
  }
  if (turn.conn == this && sending_.empty() && bytes.size() <= turn.room()) {
    std::memcpy(turn.next, bytes.data(), bytes.size());
    turn.next += bytes.size();
    turn.ahead += bytes.size();
    return true;
  }
  return SpillTurn() && QueueBehind(bytes);
}

// Moves what this turn has gathered to `sending_`.
bool ConnImpl::SpillTurn() {
  Worker::Turn& turn = worker().turn;
  if (turn.conn != this) return true;
  if (!QueueBehind({turn.bytes.get(), turn.size()})) return false;
  turn.Clear();
  return true;
}

// Puts `bytes` behind what waits in `sending_`.
bool ConnImpl::QueueBehind(std::span<const std::byte> bytes) {
  NoteQueueBegins();
  return sending_.Append(bytes, context_->pool);
}

// The write deadline runs from here on, if nothing was queued before.
void ConnImpl::NoteQueueBegins() {
  if (sending_.empty() && worker().has_deadlines()) write_at_ = sys::Now();
}

void ConnImpl::TakePending() {
  sending_.Splice(pending_, context_->pool);
  Add(accepted_bytes_, pending_bytes_.exchange(0));
  Add(accepted_sends_, std::exchange(pending_sends_, 0));
}

// Writes what there is, until the kernel takes no more.
void ConnImpl::Flush() {
  if ((signals_.load() & kStopNow) != 0) return;  // from then on nothing is written
  bool more = false;
  if (write_error_ == 0 && !starved_ && !blocked_) {
    more = WriteTurn();
  } else if (!SpillTurn()) {  // the turn's bytes wait like the others
    Doom(CloseReason::kNoMemory, Errc::kNoMemory);
  }
  for (; more && worker().turn.writes < kWritesPerTurn; ++worker().turn.writes) {
    if (pending_bytes_.load(std::memory_order_relaxed) != 0) {
      NoteQueueBegins();
      MutexLock lock(mu_);
      TakePending();
    }
    if (sending_.empty()) break;
    more = WriteParts();
  }
  if (!sending_.empty()) blocked_ = !starved_;
}

// Writes what this turn has gathered; what the kernel does not take goes to `sending_`. Whether it
// took all.
bool ConnImpl::WriteTurn() {
  Worker::Turn& turn = worker().turn;
  const std::span<const std::byte> bytes(turn.bytes.get(), turn.size());
  turn.Clear();
  if (bytes.empty()) return true;
  ++turn.writes;
  const ssize_t n = xtcp::internal::Send(fd_.get(), bytes);
  if (n < 0) HandleWriteError(errno);
  const std::size_t taken = n < 0 ? 0 : static_cast<std::size_t>(n);
  Written(taken);
  if (taken == bytes.size()) return true;
  if (!QueueBehind(bytes.subspan(taken))) {
    Doom(CloseReason::kNoMemory, Errc::kNoMemory);
  }
  return false;
}

// One gathered write of what waits in `sending_`. Whether the kernel took all that it was offered.
bool ConnImpl::WriteParts() {
  std::array<iovec, kPartsPerWrite> parts;
  const int count = sending_.Gather(parts.data(), kPartsPerWrite);
  std::size_t size = 0;
  for (int i = 0; i < count; ++i) size += parts[static_cast<std::size_t>(i)].iov_len;
  const ssize_t n = SendMsg(fd_.get(), parts.data(), count);
  if (n < 0) {
    HandleWriteError(errno);
    return false;
  }
  const std::size_t taken = static_cast<std::size_t>(n);
  sending_.Consume(taken, context_->pool);
  Written(taken);
  return taken == size;
}

void ConnImpl::Written(std::size_t bytes) {
  if (bytes == 0) return;
  starved_count_ = 0;
  // Release: whoever reads this count sees that the bytes were accepted.
  written_bytes_.store(written_bytes_.load(std::memory_order_relaxed) + bytes,
                       std::memory_order_release);
  Add(worker().totals().written_bytes, bytes);
  worker().turn.release += bytes;
  worker().turn.traffic = true;
  if (worker().has_deadlines() || phase_ != Phase::kServing) write_at_ = sys::Now();
}

void ConnImpl::HandleWriteError(int error) {
  if (error == EAGAIN || error == EWOULDBLOCK) return;
  if (error == ENOBUFS || error == ENOMEM) {
    Starve(error);
    return;
  }
  if (phase_ != Phase::kServing || paused()) {
    DoomBySocket(error);
    return;
  }
  // What had arrived before is delivered: EndTurn sees to it that the input is read to its end, and
  // then the connection closes with this error.
  write_error_ = error;
  EnterState(ConnState::kOpen, ConnState::kStopping);
}

bool ConnImpl::NothingQueued() const {
  return sending_.empty() && worker().turn.size() == 0 && pending_bytes_.load() == 0;
}

// Gives back what this turn wrote, or set aside and did not need.
void ConnImpl::ReleaseBudget() {
  worker().turn.Clear();
  const std::size_t bytes = std::exchange(worker().turn.release, 0);
  if (bytes != 0) budget_.Release(bytes);
}

void ConnImpl::OfferSendReady() {
  ReleaseBudget();
  if (!refused_.load() || phase_ != Phase::kServing) return;
  if (worker().turn.doom != CloseReason::kNone) return;
  {
    MutexLock lock(mu_);
    const std::size_t limit = context_->send_buffer_limit;
    const std::size_t wanted = std::max(limit - limit / 2, largest_refused_);
    if (!refused_.load() || state_.load() != ConnState::kOpen || CheckState()) return;
    if (limit - budget_.charged() < wanted) return;
    refused_.store(false);
    largest_refused_ = 0;
  }
  try {
    worker().handler().OnSendReady(self());
  } catch (const ForcedUnwind&) {
    throw;
  } catch (...) {
    NoteException();
  }
  Flush();
  ReleaseBudget();
  if (refused_.load()) Post();  // at most once a turn
}

}  // namespace xtcp::internal
