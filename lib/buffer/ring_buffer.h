#pragma once

#include <cstddef>
#include <span>

#include "buffer/block_pool.h"

namespace xtcp::internal {

// The bytes of one connection that wait for the rest of their packet, inbound. One pointer wide;
// without bytes it holds no memory. Its block comes from the loop's pool, starts at the size that
// `Reserve` is told, doubles when it is full, and goes back when the last byte is consumed.
//
// Loop thread only. Every method that may need the pool takes it, so that a connection need not
// store it.
class RingBuffer {
 public:
  RingBuffer() = default;
  ~RingBuffer();  // must have been cleared
  RingBuffer(const RingBuffer&) = delete;
  RingBuffer& operator=(const RingBuffer&) = delete;

  bool empty() const { return block_ == nullptr || block_->size == 0; }
  std::size_t size() const { return block_ == nullptr ? 0 : block_->size; }
  std::size_t capacity() const { return block_ == nullptr ? 0 : block_->capacity; }

  // All bytes, as one contiguous view. Bytes that cross the end of the ring are made linear first,
  // in place, once; after that they are until the ring wraps again.
  std::span<const std::byte> View();

  // Makes room for at least `more` bytes. A first block has at least `first_size` bytes in all;
  // growing doubles the block, or more where that is not enough. False, and nothing changed, when
  // the allocation fails.
  bool Reserve(std::size_t more, std::size_t first_size, BlockPool& pool);

  // The first contiguous free part, to read into; `Commit` takes what was read. Empty when full.
  std::span<std::byte> Free();
  void Commit(std::size_t n);

  // `Reserve` and copy. False, and nothing changed, when the allocation fails.
  bool Append(std::span<const std::byte> bytes, std::size_t first_size, BlockPool& pool);

  // Drops the first `n` bytes. The block goes back with the last of them.
  void Consume(std::size_t n, BlockPool& pool);

  // Moves few bytes out of a block that once held many. Where that fails they stay.
  void Shrink(std::size_t first_size, BlockPool& pool);

  void Clear(BlockPool& pool) { Consume(size(), pool); }

 private:
  struct Block {
    std::size_t capacity;  // of the bytes behind this head
    std::size_t head;      // where the first byte is
    std::size_t size;
    std::byte* bytes() { return reinterpret_cast<std::byte*>(this + 1); }
  };

  bool MoveTo(std::size_t block_size, BlockPool& pool);
  void GiveBack(BlockPool& pool);

  Block* block_ = nullptr;
};

}  // namespace xtcp::internal
