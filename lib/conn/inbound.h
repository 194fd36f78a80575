#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <span>

#include "buffer/inbound_buffer.h"
#include "conn/deadlines.h"
#include "conn/intake.h"
#include "loop/turn.h"

namespace xtcp::internal {

// The way of a byte in:
//
//   socket ──► the loop's read buffer ──► Unpack ──► OnEvent
//                ▲        │
//                └─ tail ─┘ the beginning of a packet waits in `buffer_`, and goes in front of what the
//                           next read brings. A long one stays there, and reads follow it.
//
// Packets that are complete are delivered in the turn that reads them, as many as one turn may
// (`Slice`); those that are left over, the *backlog*, in the next turn, before anything is read.
//
// Loop thread only, but for the counts.
class Inbound {
 public:
  // What a read met, beside bytes.
  enum class Met : std::uint8_t { kNothing, kNoMore, kEnd, kError };
  struct ReadEnd {
    Met met = Met::kNothing;
    int error = 0;  // an errno, with kError
  };

  // Reads once while reads are short (the poller is level-triggered, and tells of more), and delivers
  // what is complete; or delivers from the backlog.
  ReadEnd ReadAndDeliver(Turn& turn, const Intake& intake, Deadlines& deadlines);

  // Reads, and throws away.
  ReadEnd Discard(Turn& turn);

  // At the end of the stream: shows `Unpack` once more what it waits for the rest of, if there are
  // bytes that it has not seen. False: packets came of it that have to wait, and the end with them.
  bool DeliverUnseen(Turn& turn, const Intake& intake, Deadlines& deadlines);

  // Drops what waits: nobody will unpack it any more.
  void Clear(BlockPool& pool);

  bool has_backlog() const { return backlog_; }

  // Any thread.
  std::uint64_t received_bytes() const { return received_bytes_.load(std::memory_order_relaxed); }
  std::uint64_t received_packets() const {
    return received_packets_.load(std::memory_order_relaxed);
  }

 private:
  ReadEnd ReadAfterTail(Turn& turn, const Intake& intake, Deadlines& deadlines);
  ReadEnd ReadIntoBuffer(Turn& turn, const Intake& intake, Deadlines& deadlines);
  void NoteReceived(Turn& turn, std::size_t bytes);
  void DeliverWaiting(Turn& turn, const Intake& intake, Deadlines& deadlines);
  std::size_t Deliver(Turn& turn, const Intake& intake, std::span<const std::byte> view);
  bool HandleNoPacket(Turn& turn, const Intake& intake, std::span<const std::byte> rest,
                      const UnpackResult& result);
  void NoteUnfinishedPacket(const Turn& turn, Deadlines& deadlines, bool consumed);
  std::size_t PacketLimit(const Options& options) const;

  InboundBuffer buffer_;
  std::size_t need_ = 0;         // bytes that must wait before Unpack is asked again
  std::uint32_t last_read_ = 0;  // bytes
  bool backlog_ = false;         // complete packets may wait in buffer_
  bool unseen_ = false;          // bytes came that Unpack was not asked about
  bool got_packet_ = false;      // the first packet is complete

  // Single writer: the loop. Relaxed: counters.
  std::atomic<std::uint64_t> received_bytes_{0};
  std::atomic<std::uint64_t> received_packets_{0};
};

}  // namespace xtcp::internal
