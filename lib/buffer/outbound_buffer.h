#pragma once

#include <sys/uio.h>
#include <xtcp/part.h>

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <memory>
#include <span>

#include "base/cache_line.h"
#include "base/check.h"
#include "buffer/block_pool.h"

namespace xtcp::internal {

// Bytes that wait to be written, in a list of chunks: of 16 KiB each, which hold bytes, and of
// those that refer to bytes of somebody else, together with their owner. In front of what it refers
// to, such a chunk holds a few bytes of its own: the head of an answer whose body is shared needs
// no chunk that is nearly empty.
//
// The buffer is one pointer wide, and without bytes it holds no memory. It has no lock: a
// connection has two buffers, one for senders on other threads, which the connection's lock guards,
// and one that belongs to its loop. `Splice` moves what is in the first to the second without a
// copy.
//
// Every method that may need the pool takes it as an argument, so that a connection need not store
// it.
class OutboundBuffer {
 public:
  static constexpr std::size_t kBlockSize = 16 << 10;

  // Copied bytes that a chunk which refers to others can hold in front of them.
  static constexpr std::size_t kLargestHead = 200;

  OutboundBuffer() = default;
  ~OutboundBuffer();  // it must be empty
  OutboundBuffer(const OutboundBuffer&) = delete;
  OutboundBuffer& operator=(const OutboundBuffer&) = delete;

  bool empty() const { return last_ == nullptr; }

  // How many bytes fit after the last one without another chunk.
  std::size_t room() const {
    return last_ == nullptr || last_->refers != 0 ? 0 : kChunkBytes - last_->end;
  }

  // Copies `bytes`, for which there is room, and asks for a cache line for those that come soon
  // after them. The loop's thread has read the earlier contents of the chunk, so its processor has
  // the lines; and where threads send by turns to many connections they have mostly left the caches.
  // A sender would wait for each of them with the connection's lock held.
  void AppendInRoom(std::span<const std::byte> bytes) {
    XTCP_DCHECK(bytes.size() <= room(), "bytes are appended for which there is no room");
    std::memcpy(last_->bytes() + last_->end, bytes.data(), bytes.size());
    last_->end = (last_->end + bytes.size()) & kEndMask;
    PrefetchForWrite(last_->bytes() + last_->end + kAskedAhead);
  }

  // Copies all of `bytes`. Returns false, and changes nothing, when an allocation fails.
  bool Append(std::span<const std::byte> bytes, BlockPool& pool);

  // Puts all parts after the last byte, as one: the bytes of those without an owner, and of small
  // ones, are copied, and the others are referred to. A copied part of at most `kLargestHead` bytes
  // shares the chunk of the reference that follows it. Returns false, and changes nothing, when an
  // allocation fails.
  bool AppendParts(std::span<const Part> parts, BlockPool& pool);

  // Puts all of `other` after the last byte, and leaves `other` empty. Chunks move as they are, but
  // those that fit into the room of the last one are copied there, so that small pieces from two
  // sides do not cost a chunk each: two neighbours always hold more than one chunk could.
  void Splice(OutboundBuffer& other, BlockPool& pool);

  // Fills in the first parts to write, at most `max`, and returns how many it has filled in.
  int Gather(iovec* parts, int max) const;

  // Drops the first `n` bytes. Chunks that are empty then go back to the pool; but those that refer
  // to somebody else's bytes go to `released`, since the owner's destructor may do anything.
  void Consume(std::size_t n, BlockPool& pool, OutboundBuffer& released);

  // Drops all bytes, and lets their owners go. Until it returns the buffer is empty already, so
  // that a destructor of an owner that comes here again does no harm. No lock may be held.
  void Clear(BlockPool& pool);

 private:
  static constexpr std::uint32_t kEndMask = 0x7fffffff;
  static constexpr std::size_t kAskedAhead = 4 * kCacheLine - 1;

  struct Reference;
  struct Chunk {
    Chunk* next;             // the chunks are a circle: after the last one comes the first
    std::uint32_t begin;     // the bytes are from here
    std::uint32_t end : 31;  // to here
    std::uint32_t refers : 1;
    std::byte* bytes() { return reinterpret_cast<std::byte*>(this + 1); }
  };
  struct Reference : Chunk {
    std::uint32_t head;  // so many bytes come first, which are in the chunk
    const std::byte* referred;
    std::shared_ptr<const void> owner;
    std::byte* head_bytes() { return reinterpret_cast<std::byte*>(this + 1); }
  };
  static constexpr std::size_t kChunkBytes = kBlockSize - sizeof(Chunk);
  static constexpr std::size_t kReferenceSize = BlockPool::kSmallest;
  static_assert(sizeof(Reference) + kLargestHead <= kReferenceSize);

  bool AppendReference(std::span<const std::byte> head, const Part& part, BlockPool& pool);
  void LinkOne(Chunk* chunk);
  static void Free(Chunk* chunk, BlockPool& pool);

  // Puts the chunks of `other` after the last one.
  void Link(OutboundBuffer& other);

  // Takes the first chunk out of the list.
  Chunk* TakeFirst();

  Chunk* last_ = nullptr;
};

}  // namespace xtcp::internal
