#pragma once

#include <sys/uio.h>

#include <cstddef>
#include <cstdint>
#include <span>

#include "buffer/block_pool.h"

namespace xtcp::internal {

// Bytes that wait to be written: a list of chunks of 16 KiB. One pointer wide; without bytes it
// holds no memory. No locks: a connection has two, one guarded by its lock for senders on other
// threads, and one that belongs to its loop; what is in the first moves to the second by `Splice`,
// without a copy.
//
// Every method that may need the pool takes it, so that a connection need not store it.
class OutboundBuffer {
 public:
  static constexpr std::size_t kBlockSize = 16 << 10;

  OutboundBuffer() = default;
  ~OutboundBuffer();  // must have been cleared
  OutboundBuffer(const OutboundBuffer&) = delete;
  OutboundBuffer& operator=(const OutboundBuffer&) = delete;

  bool empty() const { return last_ == nullptr; }

  // Bytes that fit behind the last one without a further chunk.
  std::size_t room() const { return last_ == nullptr ? 0 : kChunkBytes - last_->end; }

  // Copies all of `bytes`. False, and nothing changed, when an allocation fails.
  bool Append(std::span<const std::byte> bytes, BlockPool& pool);

  // Puts all of `other` behind the last byte; `other` is empty then. Chunks move as they are, but
  // what fits into the last one's room is copied, so that small pieces from two sides do not cost a
  // chunk each: two neighbours always hold more than one could.
  void Splice(OutboundBuffer& other, BlockPool& pool);

  // Fills in the first parts to write, at most `max`, and returns how many there are.
  int Gather(iovec* parts, int max) const;

  // Drops the first `n` bytes; drained chunks go back to the pool.
  void Consume(std::size_t n, BlockPool& pool);
  void Clear(BlockPool& pool);

 private:
  struct Chunk {
    Chunk* next;  // in a circle: the last one's next is the first
    std::uint32_t begin;
    std::uint32_t end;
    std::byte* bytes() { return reinterpret_cast<std::byte*>(this + 1); }
  };
  static constexpr std::size_t kChunkBytes = kBlockSize - sizeof(Chunk);

  void Link(OutboundBuffer& other);
  Chunk* TakeFirst();

  Chunk* last_ = nullptr;
};

}  // namespace xtcp::internal
