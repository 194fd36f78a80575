#include "conn/inbound.h"

#include <xtcp/error.h>
#include <xtcp/protocol.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "base/check.h"
#include "base/poison.h"
#include "base/scope.h"
#include "conn/slice.h"
#include "socket/socket.h"
#include "sys/syscalls.h"

namespace xtcp::internal {

namespace {

// A longer beginning of a packet is not copied in front of the next read: the read follows it.
constexpr std::size_t kLongestTail = 32 << 10;

// Says what a recv(2) has met that brought no bytes.
Inbound::ReadEnd NothingRead(ssize_t result, int error) {
  if (result == 0) return {Inbound::Met::kEnd};
  if (error == EAGAIN || error == EWOULDBLOCK) return {Inbound::Met::kNoMore};
  return {Inbound::Met::kError, error};
}

}  // namespace

Inbound::ReadEnd Inbound::ReadAndDeliver(Turn& turn, const Intake& intake, Deadlines& deadlines) {
  XTCP_DCHECK(!turn.rests(), "input is read while the kernel has no memory for it");
  if (backlog_) {
    DeliverWaiting(turn, intake, deadlines, buffer_.unfinished());
    return {};
  }
  // The beginning of a packet moves in front of the new bytes, so that one view holds both; unless
  // it is long, or longer than what the last read brought: a peer that trickles would have it
  // copied again and again.
  const std::size_t tail = buffer_.size();
  return tail <= kLongestTail && tail <= buffer_.unfinished().last_read
             ? ReadAfterTail(turn, intake, deadlines)
             : ReadIntoBuffer(turn, intake, deadlines);
}

Inbound::ReadEnd Inbound::ReadAfterTail(Turn& turn, const Intake& intake, Deadlines& deadlines) {
  const std::span<std::byte> memory = turn.read_buffer();
  std::size_t filled = 0;
  Unpoison(memory);
  const AtScopeEnd over([&] { Poison(memory, filled); });
  const std::span<const std::byte> tail = buffer_.View();
  if (!tail.empty()) std::memcpy(memory.data(), tail.data(), tail.size());
  const ssize_t n = RecvSome(turn.fd(), memory.subspan(tail.size()));
  if (n <= 0) return NothingRead(n, errno);
  const std::size_t read = static_cast<std::size_t>(n);
  NoteReceived(turn, read);
  filled = tail.size() + read;
  const std::span<const std::byte> view = memory.first(filled);
  InboundBuffer::Unfinished unfinished = buffer_.unfinished();
  unfinished.last_read = static_cast<std::uint32_t>(read);
  const std::size_t used = Deliver(turn, intake, view, &unfinished);
  if (turn.doomed() || intake.stop_asked()) return {};  // the rest is thrown away
  // The tail is still in the buffer: it goes, and the rest of the view comes; or, when nothing was
  // consumed, only the new bytes come.
  std::span<const std::byte> rest = view.subspan(tail.size());
  if (used > 0) {
    buffer_.Clear(turn.pool());
    rest = view.subspan(used);
  }
  if (!buffer_.Append(rest, turn.options().recv_buffer_size, turn.pool())) {
    turn.Doom(CloseReason::kNoMemory, Errc::kNoMemory);
    return {};
  }
  buffer_.Note(unfinished);
  NoteUnfinishedPacket(turn, deadlines, used > 0);
  return {};
}

Inbound::ReadEnd Inbound::ReadIntoBuffer(Turn& turn, const Intake& intake, Deadlines& deadlines) {
  std::size_t total = 0;
  for (int reads = 0; reads < Turn::kReads && total < Turn::kReadSize; ++reads) {
    if (!buffer_.Reserve(1, turn.options().recv_buffer_size, turn.pool())) {
      turn.Doom(CloseReason::kNoMemory, Errc::kNoMemory);
      break;
    }
    std::span<std::byte> free = buffer_.Free();
    if (free.size() > Turn::kReadSize - total) free = free.first(Turn::kReadSize - total);
    const ssize_t n = RecvSome(turn.fd(), free);
    if (n <= 0) return NothingRead(n, errno);
    const std::size_t read = static_cast<std::size_t>(n);
    total += read;
    NoteReceived(turn, read);
    buffer_.Commit(read);
    InboundBuffer::Unfinished unfinished = buffer_.unfinished();
    unfinished.last_read = static_cast<std::uint32_t>(read);
    DeliverWaiting(turn, intake, deadlines, unfinished);
    if (read < free.size() || backlog_ || turn.doomed() || !intake.MayDeliver()) break;
  }
  return {};
}

void Inbound::NoteReceived(Turn& turn, std::size_t bytes) {
  Add(received_bytes_, bytes);
  Add(turn.totals().received_bytes, bytes);
  turn.NoteTraffic();
}

void Inbound::DeliverWaiting(Turn& turn, const Intake& intake, Deadlines& deadlines,
                             InboundBuffer::Unfinished unfinished) {
  const std::size_t used = Deliver(turn, intake, buffer_.View(), &unfinished);
  buffer_.Note(unfinished);
  buffer_.Consume(used, turn.pool());
  if (used > 0) buffer_.Shrink(used, turn.options().recv_buffer_size, turn.pool());
  NoteUnfinishedPacket(turn, deadlines, used > 0);
}

bool Inbound::DeliverUnseen(Turn& turn, const Intake& intake, Deadlines& deadlines) {
  InboundBuffer::Unfinished unfinished = buffer_.unfinished();
  if (!unfinished.unseen) return true;
  unfinished.need = 0;
  DeliverWaiting(turn, intake, deadlines, unfinished);
  return !backlog_;
}

std::size_t Inbound::Deliver(Turn& turn, const Intake& intake, std::span<const std::byte> view,
                             InboundBuffer::Unfinished* unfinished) {
  if (view.size() < unfinished->need) {
    unfinished->unseen = true;
    return 0;
  }
  unfinished->need = 0;
  unfinished->unseen = false;
  backlog_ = false;
  const Protocol& protocol = *turn.service().protocol;
  const ConnPtr& conn = turn.self();
  const bool holds = turn.hold_above() != Turn::kNeverHold;
  std::size_t limit = PacketLimit(turn.options());
  const std::byte* next = view.data();
  const std::byte* const end = next + view.size();
  Slice slice;
  turn.Call([&](Handler& handler) {
    Protocol::Decoder* const decoder = AskDecoder(protocol);
    while (next != end) {
      if (!intake.MayDeliver() || slice.IsOver() || (holds && MustHold(turn, intake))) {
        backlog_ = true;
        break;
      }
      const auto waiting = static_cast<std::size_t>(end - next);
      const std::span<const std::byte> rest(next, std::min(waiting, limit));
      // Released at once, so that the compiler knows of nothing to destroy after the handler.
      Packet* packet = nullptr;
      std::size_t consumed = 0;
      {
        UnpackResult result = decoder == nullptr ? protocol.Unpack(rest) : decoder->Unpack(rest);
        // It saw no more than the limit. So a packet too large to wait for is refused even when it
        // arrives whole, however the stream was cut.
        const bool good = result.packet != nullptr && !result.error &&
                          result.size - 1 < rest.size();  // and not 0
        if (!good && !HandleNoPacket(turn, intake, {next, end}, result)) {
          unfinished->need = result.need;
          break;
        }
        consumed = result.size;
        next += consumed;
        if (good) packet = result.packet.release();
      }
      if (packet == nullptr) continue;
      if (!got_packet_) {
        got_packet_ = true;
        limit = PacketLimit(turn.options());
      }
      Add(received_packets_, 1);
      handler.OnEvent(EventType::kRecv, conn, PacketPtr(packet));
      if constexpr (kDebugChecks) Poison({next - consumed, next});
    }
  });
  return static_cast<std::size_t>(next - view.data());
}

bool Inbound::MustHold(const Turn& turn, const Intake& intake) {
  const std::size_t queued = turn.queued() + intake.pending_bytes();
  if (queued > turn.hold_above()) held_ = true;
  return held_;
}

void Inbound::FollowHold(const Turn& turn, const Intake& intake) {
  const std::size_t above = turn.hold_above();
  held_ = turn.queued() + intake.pending_bytes() > (held_ ? above / 2 : above);
}

Protocol::Decoder* Inbound::AskDecoder(const Protocol& protocol) {
  if (!has_asked_) {
    has_asked_ = true;
    decoder_ = protocol.NewDecoder();
  }
  return decoder_.get();
}

bool Inbound::HandleNoPacket(Turn& turn, const Intake& intake, std::span<const std::byte> rest,
                             const UnpackResult& result) {
  const std::size_t limit = PacketLimit(turn.options());
  const bool packet = result.packet != nullptr;
  if (result.size > std::min(rest.size(), limit) ||
      (packet && (result.size == 0 || result.error))) {
    turn.Doom(CloseReason::kProtocolError, Errc::kProtocolError);
    return false;
  }
  if (result.error) {
    turn.service().handler->OnUnpackError(
        turn.self(), result.size == 0 ? rest : rest.first(result.size), result.error);
    // There is no way to resynchronise; a stop that the handler asked for takes its course.
    if (result.size == 0 && !intake.stop_asked()) {
      turn.Doom(CloseReason::kProtocolError, result.error);
    }
  } else if (result.size == 0) {
    if (rest.size() >= limit || result.need > limit) turn.Doom(CloseReason::kPacketTooLarge);
  }
  return result.size > 0;
}

std::size_t Inbound::PacketLimit(const Options& options) const {
  return got_packet_ || options.first_packet_size == 0 ? options.max_packet_size
                                                       : options.first_packet_size;
}

void Inbound::NoteUnfinishedPacket(const Turn& turn, Deadlines& deadlines, bool consumed) {
  const Options& options = turn.options();
  if (options.packet_deadline.count() == 0) return;
  if (options.first_packet_size > 0 && !got_packet_) return;  // it runs since the first event
  // What was consumed ended the packet for which it ran, and packets of the backlog are complete.
  if (consumed || backlog_ || buffer_.empty()) deadlines.EndPacket();
  if (!buffer_.empty() && !backlog_ && !deadlines.packet_began()) {
    deadlines.BeginPacket(sys::Now() + options.packet_deadline);
  }
}

Inbound::ReadEnd Inbound::Discard(Turn& turn) {
  XTCP_DCHECK(buffer_.empty(), "input is discarded while bytes wait to be unpacked");
  const std::span<std::byte> memory = turn.read_buffer();
  Unpoison(memory);
  const AtScopeEnd over([memory] { Poison(memory, 0); });
  const ssize_t n = RecvSome(turn.fd(), memory);
  if (n <= 0) return NothingRead(n, errno);
  NoteReceived(turn, static_cast<std::size_t>(n));
  return {};
}

void Inbound::Clear(BlockPool& pool) {
  buffer_.Clear(pool);
  backlog_ = false;
}

}  // namespace xtcp::internal
