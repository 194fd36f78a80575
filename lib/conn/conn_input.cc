// The way of a byte in: read → (ring buffer) → Unpack → OnEvent.

#include <sys/epoll.h>
#include <xtcp/error.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <utility>

#include "base/check.h"
#include "base/poison.h"
#include "base/scope.h"
#include "conn/conn_impl.h"
#include "conn/slice.h"
#include "conn/worker.h"
#include "socket/socket.h"

namespace xtcp::internal {

namespace {

// An unfinished packet of more than this stays in the ring, and reads go there.
constexpr std::size_t kLargestTail = 32 << 10;

}  // namespace

void ConnImpl::HandleInput(std::uint32_t events) {
  if (starved_ || phase_ == Phase::kClosed) return;
  if (phase_ == Phase::kStopping || phase_ == Phase::kLingering) {
    Discard();
  } else if (phase_ == Phase::kFlushing) {
    // Nothing more comes in; an error shows in the write that EndTurn tries.
  } else if (!paused()) {
    ReadAndUnpack();
  } else if ((events & EPOLLERR) != 0) {
    const int error = TakeSocketError(fd_.get());
    DoomBySocket(error != 0 ? error : ECONNRESET);
  } else if ((events & EPOLLHUP) != 0) {
    // A Unix peer that wrote and closed. Hang-up cannot be masked (epoll_ctl(2)): it would wake the
    // loop for ever. So the socket leaves the poller until it is read again.
    parked_ = true;
    worker().loop().Unwatch(this);
  }
}

// One read a turn while reads are short: the poller is level-triggered, and tells of more.
void ConnImpl::ReadAndUnpack() {
  if (pause_followed_) ShiftTimes();  // resumed
  if (backlog_) {
    UnpackWaiting();
    return;
  }
  const std::size_t tail = inbound_.size();
  // The bytes of an unfinished packet move in front of the new ones, so that one view holds both,
  // unless they are many, or more than the last read brought: a peer that trickles would have them
  // copied again and again. Then the read goes straight into the ring.
  if (tail <= kLargestTail && tail <= last_read_) {
    ReadBehindTail();
    return;
  }
  std::size_t total = 0;
  for (int reads = 0; reads < Worker::kReadsPerTurn && total < Worker::kReadSize; ++reads) {
    bool more = false;
    total += ReadIntoTail(Worker::kReadSize - total, &more);
    if (!more || !MayDeliver() || backlog_ || worker().turn.doom != CloseReason::kNone) break;
  }
}

void ConnImpl::ReadBehindTail() {
  const std::span<std::byte> buffer = worker().read_buffer();
  Unpoison(buffer);
  const std::span<const std::byte> tail = inbound_.View();
  if (!tail.empty()) std::memcpy(buffer.data(), tail.data(), tail.size());
  const ssize_t n = Recv(fd_.get(), buffer.subspan(tail.size()));
  if (n <= 0) {
    HandleReadEnd(n, errno);
    return;
  }
  const std::size_t read = static_cast<std::size_t>(n);
  Received(read);
  const std::span<const std::byte> view = buffer.first(tail.size() + read);
  const AtScopeEnd over([view] { Poison(view); });
  const std::size_t used = Unpack(view);
  // Then the rest is thrown away.
  if (worker().turn.doom != CloseReason::kNone || StopWasAsked()) return;
  // When nothing was consumed the buffer still holds the tail.
  bool kept = true;
  if (used == 0) {
    kept = Keep(view.subspan(tail.size()));
  } else {
    inbound_.Clear(context_->pool);
    if (used < view.size()) kept = Keep(view.subspan(used));
  }
  if (!kept) {
    Doom(CloseReason::kNoMemory, Errc::kNoMemory);
    return;
  }
  NoteUnfinishedPacket(used > 0);
}

std::size_t ConnImpl::ReadIntoTail(std::size_t most, bool* more) {
  if (!inbound_.Reserve(1, worker().options().recv_buffer_size, context_->pool)) {
    Doom(CloseReason::kNoMemory, Errc::kNoMemory);
    return 0;
  }
  std::span<std::byte> free = inbound_.Free();
  if (free.size() > most) free = free.first(most);
  const ssize_t n = Recv(fd_.get(), free);
  if (n <= 0) {
    HandleReadEnd(n, errno);
    return 0;
  }
  const std::size_t read = static_cast<std::size_t>(n);
  Received(read);
  inbound_.Commit(read);
  UnpackWaiting();
  *more = read == free.size();
  return read;
}

void ConnImpl::Received(std::size_t bytes) {
  last_read_ = static_cast<std::uint32_t>(bytes);
  starved_count_ = 0;
  Add(received_bytes_, bytes);
  Add(worker().totals().received_bytes, bytes);
  worker().turn.traffic = true;
}

void ConnImpl::UnpackWaiting() {
  const std::size_t used = Unpack(inbound_.View());
  inbound_.Consume(used, context_->pool);
  if (used > 0) inbound_.Shrink(used, worker().options().recv_buffer_size, context_->pool);
  NoteUnfinishedPacket(used > 0);
}

bool ConnImpl::Keep(std::span<const std::byte> bytes) {
  return inbound_.Append(bytes, worker().options().recv_buffer_size, context_->pool);
}

// Delivers what is complete, and returns how many bytes that was. What stays is the begin of a
// packet, or `backlog_` is set.
std::size_t ConnImpl::Unpack(std::span<const std::byte> view) {
  if (view.size() < need_) {
    unseen_ = true;
    return 0;
  }
  need_ = 0;
  unseen_ = false;
  const Protocol& protocol = *context_->protocol;
  Handler& handler = worker().handler();
  const ConnPtr& conn = self();
  std::size_t limit = PacketLimit();
  const std::byte* next = view.data();
  const std::byte* const end = next + view.size();
  Slice slice;
  backlog_ = false;
  try {
    while (next != end) {
      if (!MayDeliver() || slice.IsOver()) {
        backlog_ = true;
        break;
      }
      const std::span<const std::byte> rest(next, end);
      // Released at once, so that the compiler knows of nothing to destroy after the handler.
      Packet* packet = nullptr;
      std::size_t consumed = 0;
      {
        UnpackResult result = protocol.Unpack(rest);
        // However the bytes were cut: one that could not have waited does not pass in one piece.
        const bool good = result.packet != nullptr && !result.error && result.size <= limit &&
                          result.size - 1 < rest.size();  // and not 0
        if (!good && !TakeOtherAnswer(rest, result)) break;
        consumed = result.size;
        next += consumed;
        if (good) packet = result.packet.release();
      }
      if (packet == nullptr) continue;
      if (!got_packet_) {
        got_packet_ = true;
        limit = PacketLimit();
      }
      Add(received_packets_, 1);
      handler.OnEvent(EventType::kRecv, conn, PacketPtr(packet));
      if constexpr (kDebugChecks) Poison({next - consumed, next});
    }
  } catch (const ForcedUnwind&) {
    throw;
  } catch (...) {
    NoteException();
  }
  if (backlog_ && MayDeliver()) Post();  // the rest gets its turn after the others
  return static_cast<std::size_t>(next - view.data());
}

// What `Unpack` said of `rest`, other than one good packet. Whether it goes on behind the answer's
// bytes.
bool ConnImpl::TakeOtherAnswer(std::span<const std::byte> rest, const UnpackResult& result) {
  const std::size_t limit = PacketLimit();
  const bool packet = result.packet != nullptr;
  if (result.size > rest.size() || (packet && (result.size == 0 || result.error))) {
    Doom(CloseReason::kProtocolError, Errc::kProtocolError);
    return false;
  }
  if (result.size > limit && (packet || result.error)) {
    Doom(CloseReason::kPacketTooLarge);
    return false;
  }
  if (result.error) {
    worker().handler().OnUnpackError(self(), result.size == 0 ? rest : rest.first(result.size),
                                     result.error);
    // No way to resynchronise; a stop that the handler asked for takes its course.
    if (result.size == 0 && !StopWasAsked()) Doom(CloseReason::kProtocolError, result.error);
  } else if (result.size == 0) {
    if (rest.size() >= limit || result.need > limit) Doom(CloseReason::kPacketTooLarge);
    need_ = result.need;
  }
  return result.size > 0;
}

// Whether nothing keeps the next packet from its handler: no stop, no pause.
bool ConnImpl::MayDeliver() const { return signals_.load(std::memory_order_relaxed) == 0; }

std::size_t ConnImpl::PacketLimit() const {
  const Options& options = worker().options();
  return got_packet_ || options.first_packet_size == 0 ? options.max_packet_size
                                                       : options.first_packet_size;
}

// The packet deadline runs from a packet's first byte to its last.
void ConnImpl::NoteUnfinishedPacket(bool consumed) {
  const Options& options = worker().options();
  if (options.packet_deadline.count() == 0) return;
  if (options.first_packet_size > 0 && !got_packet_) return;  // it runs from kAccept
  if (consumed || backlog_ || inbound_.empty()) hard_due_ = kNever;
  if (!inbound_.empty() && !backlog_ && hard_due_ == kNever) {
    hard_due_ = sys::Now() + options.packet_deadline;
  }
}

void ConnImpl::Discard() {
  if (fin_seen_) return;
  Unpoison(worker().read_buffer());
  const ssize_t n = Recv(fd_.get(), worker().read_buffer());
  if (n > 0) {
    Received(static_cast<std::size_t>(n));
  } else {
    HandleReadEnd(n, errno);
  }
}

// At the end of the stream: the protocol waits for more bytes than will come. Whether that is all.
bool ConnImpl::UnpackUnseen() {
  if (!unseen_ || phase_ != Phase::kServing) return true;
  need_ = 0;
  UnpackWaiting();
  return !backlog_;
}

void ConnImpl::HandleReadEnd(ssize_t result, int error) {
  if (result == 0) {
    if (!UnpackUnseen()) return;  // the end will be read again
    fin_seen_ = true;
    if (write_error_ != 0) {
      DoomBySocket(write_error_);
    } else if (phase_ == Phase::kServing) {
      // The end of input, not of output. Half a packet is of no use to anybody.
      inbound_.Clear(context_->pool);
      EnterState(ConnState::kOpen, ConnState::kStopping);
      phase_ = Phase::kFlushing;
      write_at_ = sys::Now();
    }
  } else if (error == EAGAIN || error == EWOULDBLOCK) {
    if (write_error_ != 0) DoomBySocket(write_error_);  // what had arrived before is delivered
  } else if (error == ENOBUFS || error == ENOMEM) {
    Starve(error);
  } else {
    DoomBySocket(error);
  }
}

}  // namespace xtcp::internal
