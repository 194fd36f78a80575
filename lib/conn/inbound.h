#pragma once

#include <xtcp/protocol.h>

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>

#include "buffer/inbound_buffer.h"
#include "conn/deadlines.h"
#include "conn/intake.h"
#include "loop/turn.h"
#include "sys/sync.h"

namespace xtcp::internal {

// The way of a byte in:
//
//   socket ──► the loop's read buffer ──► Unpack ──► OnEvent
//                ▲        │
//                └─ tail ─┘ the beginning of a packet waits in `buffer_`, and goes in front of
//                           what the next read brings. A long one stays there, and reads follow it.
//
// Packets that are complete are delivered in the turn that reads them, as many as one turn may
// (`Slice`). Those that are left over, the *backlog*, are delivered in the next turn, before
// anything is read.
//
// Loop thread only, except for the counts.
class Inbound {
 public:
  // What a read has met beside bytes.
  enum class Met : std::uint8_t { kNothing, kNoMore, kEnd, kError };
  struct ReadEnd {
    Met met = Met::kNothing;
    int error = 0;  // an errno, with kError
  };

  // Delivers from the backlog if there is one. Otherwise reads, once while reads are short (the
  // poller is level-triggered, and tells of more), and delivers what is complete.
  ReadEnd ReadAndDeliver(Turn& turn, const Intake& intake, Deadlines& deadlines);

  // Reads once, and throws the bytes away.
  ReadEnd Discard(Turn& turn);

  // At the end of the stream, shows `Unpack` the beginning of a packet once more, if there are
  // bytes in it that it has not seen. Returns false when packets came of it that have to wait, and
  // the end of the stream with them.
  bool DeliverUnseen(Turn& turn, const Intake& intake, Deadlines& deadlines);

  // Drops what waits: it will not be unpacked any more.
  void Clear(BlockPool& pool);

  bool has_backlog() const { return backlog_; }

  // `Options::pause_recv_above`: input is held while so much is queued, until half of it is left.
  // `FollowHold` looks at the queue.
  bool held() const { return held_; }
  void FollowHold(const Turn& turn, const Intake& intake);

  // The connection's decoder, which is made if it was not yet; null if the protocol makes none. It
  // throws what the protocol throws.
  Protocol::Decoder* AskDecoder(const Protocol& protocol);
  bool has_decoder() const { return decoder_ != nullptr; }
  void DropDecoder() { decoder_.reset(); }

  // ---- Any thread.

  std::uint64_t received_bytes() const { return received_bytes_.load(std::memory_order_relaxed); }
  std::uint64_t received_packets() const {
    return received_packets_.load(std::memory_order_relaxed);
  }

 private:
  // Reads into the loop's buffer, after the tail of an unfinished packet, and delivers from there.
  ReadEnd ReadAfterTail(Turn& turn, const Intake& intake, Deadlines& deadlines);

  // Reads into `buffer_`, and delivers from there.
  ReadEnd ReadIntoBuffer(Turn& turn, const Intake& intake, Deadlines& deadlines);
  void NoteReceived(Turn& turn, std::size_t bytes);

  // Delivers what is complete in `buffer_`, of whose bytes `unfinished` tells.
  void DeliverWaiting(Turn& turn, const Intake& intake, Deadlines& deadlines,
                      InboundBuffer::Unfinished unfinished);

  // Delivers what is complete in `view`, and returns how many bytes that was. What remains is the
  // start of an unfinished packet, of which `*unfinished` tells, unless `backlog_` is set.
  std::size_t Deliver(Turn& turn, const Intake& intake, std::span<const std::byte> view,
                      InboundBuffer::Unfinished* unfinished);

  // Returns whether too much is queued for another packet.
  bool MustHold(const Turn& turn, const Intake& intake);

  // Handles an answer of `Unpack` that is not one good packet; `rest` is all that waits, of which
  // it has seen no more than the limit. Returns whether unpacking continues after the bytes that
  // the answer consumed.
  bool HandleNoPacket(Turn& turn, const Intake& intake, std::span<const std::byte> rest,
                      const UnpackResult& result);

  // Starts or ends the packet deadline, which runs from a packet's first byte to its last.
  void NoteUnfinishedPacket(const Turn& turn, Deadlines& deadlines, bool consumed);

  // Returns the limit for the packet that comes next.
  std::size_t PacketLimit(const Options& options) const;

  InboundBuffer buffer_;
  std::unique_ptr<Protocol::Decoder> decoder_;

  // Single writer: the loop. Relaxed: counters.
  sys::Atomic<std::uint64_t> received_bytes_{0};
  sys::Atomic<std::uint64_t> received_packets_{0};

  bool backlog_ : 1 = false;     // complete packets may wait in buffer_
  bool held_ : 1 = false;        // too much is queued
  bool got_packet_ : 1 = false;  // the first packet is complete
  bool has_asked_ : 1 = false;   // for a decoder
};

}  // namespace xtcp::internal
