#include "conn/outbound.h"

#include <sys/uio.h>
#include <xtcp/error.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>

#include "base/check.h"
#include "socket/socket.h"
#include "sys/syscalls.h"

namespace xtcp::internal {

namespace {

// Sends in the connection's turn are charged for this much at a time, and this much credit is kept
// from turn to turn, so that most sends take no lock. With a small limit none is kept, since other
// sends would be refused for want of it.
constexpr std::size_t kLump = 64 << 10;
constexpr std::size_t kLeastLimitWithCredit = 16 * kLump;

// One gathered write takes this many chunks, 1 MiB.
constexpr int kPartsPerWrite = 64;

// A send of this many bytes or more is offered to the kernel at once: a copy of it would cost more
// than a system call.
constexpr std::size_t kLargeSend = 256 << 10;

}  // namespace

// ---- Sends on the loop's thread.

std::error_code Outbound::SendInTurn(std::span<const std::byte> bytes, Turn& turn, Intake& intake,
                                     const ConnContext& context, Deadlines& deadlines) {
  std::size_t ahead = sending_.empty() && bytes.size() <= turn.room() ? kLump : 0;
  if (const std::error_code error = intake.Charge(bytes.size(), &ahead, context)) return error;
  credit_ += bytes.size() + ahead;
  if (intake.has_pending()) {
    // They were sent before, so they go first.
    if (!QueueGathered(turn, deadlines)) return intake.Refuse(Errc::kNoMemory);
    TakePending(turn.service(), intake, deadlines);
  }
  if (bytes.size() >= kLargeSend && MayWriteNow(turn, intake)) {
    CountAccepted(bytes.size(), 1, turn.totals());
    WriteAtOnce(bytes, turn, deadlines);
    return {};
  }
  XTCP_DCHECK(turn.gathered().size() <= credit_, "more has gathered than was charged");
  turn.SetCharged(sending_.empty() ? credit_ - turn.gathered().size() : 0);
  if (MayGather(turn, bytes.size())) {
    std::memcpy(turn.Gather(bytes.size()), bytes.data(), bytes.size());
    return {};
  }
  if (!QueueGathered(turn, deadlines) || !Queue(bytes, turn.service(), deadlines)) {
    return intake.Refuse(Errc::kNoMemory);
  }
  turn.SetCharged(0);  // nothing may overtake them
  CountAccepted(bytes.size(), 1, turn.totals());
  return {};
}

std::error_code Outbound::SendElsewhere(std::span<const std::byte> bytes, const Service& service,
                                        Intake& intake, const ConnContext& context,
                                        Deadlines& deadlines) {
  std::size_t ahead = 0;
  if (const std::error_code error = intake.Charge(bytes.size(), &ahead, context)) return error;
  credit_ += bytes.size();
  if (intake.has_pending()) TakePending(service, intake, deadlines);
  if (!Queue(bytes, service, deadlines)) return intake.Refuse(Errc::kNoMemory);
  CountAccepted(bytes.size(), 1, *service.totals);
  return {};
}

std::error_code Outbound::SendParts(std::span<const Part> parts, std::size_t size, Turn* turn,
                                    const Service& service, Intake& intake,
                                    const ConnContext& context, Deadlines& deadlines) {
  std::size_t ahead = 0;
  if (const std::error_code error = intake.Charge(size, &ahead, context)) return error;
  credit_ += size;
  OutboundBuffer added;
  if (!added.AppendParts(parts, *service.pool)) return intake.Refuse(Errc::kNoMemory);
  if (turn != nullptr && !QueueGathered(*turn, deadlines)) {
    added.Clear(*service.pool);
    return intake.Refuse(Errc::kNoMemory);
  }
  if (intake.has_pending()) TakePending(service, intake, deadlines);
  NoteQueueBegins(service, deadlines);
  sending_.Splice(added, *service.pool);
  credit_ -= size;
  CountAccepted(size, 1, *service.totals);
  if (turn != nullptr) turn->SetCharged(0);  // nothing may overtake them
  return {};
}

void Outbound::CountAccepted(std::size_t bytes, std::size_t sends, LoopTotals& totals) {
  Add(account_.accepted_bytes, bytes);
  Add(account_.accepted_sends, sends);
  Add(totals.accepted_bytes, bytes);
}

void Outbound::CountGathered(Turn& turn) {
  CountAccepted(turn.gathered().size(), turn.gathered_sends(), turn.totals());
}

bool Outbound::Queue(std::span<const std::byte> bytes, const Service& service,
                     Deadlines& deadlines) {
  XTCP_DCHECK(bytes.size() <= credit_, "bytes are queued that nobody has charged");
  NoteQueueBegins(service, deadlines);
  if (!sending_.Append(bytes, *service.pool)) return false;
  credit_ -= bytes.size();
  return true;
}

bool Outbound::QueueGathered(Turn& turn, Deadlines& deadlines) {
  if (turn.gathered().empty()) return true;
  XTCP_DCHECK(sending_.empty(), "bytes have gathered while older ones were queued");
  if (!Queue(turn.gathered(), turn.service(), deadlines)) return false;
  CountGathered(turn);
  turn.ClearGathered();
  return true;
}

void Outbound::NoteQueueBegins(const Service& service, Deadlines& deadlines) {
  if (sending_.empty() && service.has_deadlines) deadlines.NoteOutput(sys::Now());
}

void Outbound::TakePending(const Service& service, Intake& intake, Deadlines& deadlines) {
  NoteQueueBegins(service, deadlines);
  Add(service.totals->accepted_bytes, intake.TakePending(sending_, account_, *service.pool));
}

// ---- Writing.

void Outbound::Flush(Turn& turn, Intake& intake, Deadlines& deadlines) {
  if (Has(intake.stops(), Stops::kNow)) return;  // after an immediate stop nothing is written
  bool more = false;
  if (error_ == 0 && !turn.rests() && !blocked_) {
    more = WriteGathered(turn, deadlines);
  } else if (!QueueGathered(turn, deadlines)) {  // it waits like what is queued
    turn.Doom(CloseReason::kNoMemory, Errc::kNoMemory);
  }
  while (more && turn.MayWrite()) {
    if (intake.has_pending()) TakePending(turn.service(), intake, deadlines);
    if (sending_.empty()) break;
    more = WriteQueued(turn, deadlines);
  }
  // A peer that would take much more is no reason to leave the others waiting: the poller tells at
  // once that its socket is writable.
  if (sending_.empty()) return;
  blocked_ = !turn.rests();
  turn.SetCharged(0);  // nothing may overtake it
}

bool Outbound::WriteGathered(Turn& turn, Deadlines& deadlines) {
  const std::span<const std::byte> bytes = turn.gathered();
  if (bytes.empty()) return true;
  XTCP_DCHECK(sending_.empty(), "what has gathered is written before what was queued");
  CountGathered(turn);
  turn.CountWrite();
  const ssize_t n = SendSome(turn.fd(), bytes);
  if (n < 0) HandleWriteError(errno, turn);
  const std::size_t taken = n < 0 ? 0 : static_cast<std::size_t>(n);
  NoteTaken(taken, turn, deadlines);
  turn.ClearGathered();
  if (taken == bytes.size()) {
    turn.SetCharged(credit_);
    return true;
  }
  if (!Queue(bytes.subspan(taken), turn.service(), deadlines)) {
    turn.Doom(CloseReason::kNoMemory, Errc::kNoMemory);
  }
  return false;
}

bool Outbound::WriteQueued(Turn& turn, Deadlines& deadlines) {
  std::array<iovec, kPartsPerWrite> parts;
  const int count = sending_.Gather(parts.data(), kPartsPerWrite);
  std::size_t size = 0;
  for (int i = 0; i < count; ++i) {
    iovec& part = parts[static_cast<std::size_t>(i)];
    part.iov_len = std::min(part.iov_len, kLargestWrite - size);
    size += part.iov_len;
  }
  turn.CountWrite();
  const ssize_t n = SendSome(turn.fd(), parts.data(), count);
  if (n < 0) {
    HandleWriteError(errno, turn);
    return false;
  }
  const std::size_t taken = static_cast<std::size_t>(n);
  sending_.Consume(taken, turn.pool(), turn.released());
  credit_ += taken;
  NoteTaken(taken, turn, deadlines);
  return taken == size;
}

bool Outbound::MayWriteNow(const Turn& turn, const Intake& intake) const {
  return turn.MayWrite() && !turn.doomed() && sending_.empty() && !intake.has_pending() &&
         error_ == 0 && !turn.rests() && !blocked_;
}

void Outbound::WriteAtOnce(std::span<const std::byte> bytes, Turn& turn, Deadlines& deadlines) {
  const std::span<const std::byte> gathered = turn.gathered();
  CountGathered(turn);
  std::array<iovec, 2> parts{
      iovec{const_cast<std::byte*>(gathered.data()), gathered.size()},
      iovec{const_cast<std::byte*>(bytes.data()), std::min(bytes.size(), kLargestWrite)}};
  turn.CountWrite();
  const ssize_t n = SendSome(turn.fd(), parts.data(), 2);
  if (n < 0) HandleWriteError(errno, turn);
  const std::size_t taken = n < 0 ? 0 : static_cast<std::size_t>(n);
  NoteTaken(taken, turn, deadlines);
  turn.ClearGathered();
  if (taken == gathered.size() + bytes.size()) {
    turn.SetCharged(credit_);
    return;
  }
  blocked_ = !turn.rests();
  const std::size_t of_gathered = std::min(taken, gathered.size());
  const bool queued = Queue(gathered.subspan(of_gathered), turn.service(), deadlines) &&
                      Queue(bytes.subspan(taken - of_gathered), turn.service(), deadlines);
  if (!queued) turn.Doom(CloseReason::kNoMemory, Errc::kNoMemory);
}

void Outbound::NoteTaken(std::size_t bytes, Turn& turn, Deadlines& deadlines) {
  if (bytes == 0) return;
  XTCP_DCHECK(bytes <= account_.accepted_bytes.load(std::memory_order_relaxed) -
                           account_.written_bytes.load(std::memory_order_relaxed),
              "more was written than was accepted");
  // Release: a reader of this count sees that the bytes were accepted.
  Add(account_.written_bytes, bytes);
  Add(turn.totals().written_bytes, bytes);
  turn.NoteTraffic();
  if (turn.wants_times()) deadlines.NoteOutput(sys::Now());
}

void Outbound::HandleWriteError(int error, Turn& turn) {
  if (error == EAGAIN || error == EWOULDBLOCK) return;
  if (error == ENOBUFS || error == ENOMEM) {
    turn.Starve(error);
  } else {
    error_ = error;  // the life decides what comes of it
  }
}

// ---- Room.

bool Outbound::OfferSendReady(Turn& turn, Intake& intake, const ConnContext& context,
                              Deadlines& deadlines) {
  if (!intake.has_refused() || turn.doomed()) return false;
  Settle(intake, context);
  if (!intake.TakeSendReady(context)) return false;
  BeginTurn(turn);
  turn.Call([&turn](Handler& handler) { handler.OnSendReady(turn.self()); });
  Flush(turn, intake, deadlines);
  return intake.has_refused();
}

void Outbound::Settle(Intake& intake, const ConnContext& context) {
  const bool keeps = context.send_buffer_limit >= kLeastLimitWithCredit && !intake.has_refused();
  const std::size_t keep = keeps ? kLump : 0;
  if (credit_ <= keep) return;
  // Room is given back in large steps, unless a send waits for it.
  const bool worth_it = sending_.empty() || credit_ - keep >= kLump || !keeps;
  if (!worth_it) return;
  intake.Release(credit_ - keep);
  credit_ = keep;
}

}  // namespace xtcp::internal
