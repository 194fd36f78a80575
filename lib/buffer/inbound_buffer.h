#pragma once

#include <cstddef>
#include <span>

#include "buffer/block_pool.h"

namespace xtcp::internal {

// The bytes of one connection that wait for the rest of their packet. The buffer is one pointer
// wide, and without bytes it holds no memory. Its block comes from the loop's pool, starts at the
// size that `Reserve` is told, grows when it is full, and goes back when the last byte is consumed.
//
//   block:   | consumed | bytes ......... | free ...... |
//                       head         head + size    capacity
//
// The bytes never wrap around, since `Protocol::Unpack` wants them in one piece. When the free part
// at the end is used up they move to the front of the block, and when the block is full they move
// into one of twice its size. Bytes that move are the beginning of one unfinished packet. Nothing
// in front of them is consumed until that packet is, so they move to the front once at most.
//
// Loop thread only. Every method that may need the pool takes it as an argument, so that a
// connection need not store it.
class InboundBuffer {
 public:
  InboundBuffer() = default;
  ~InboundBuffer();  // it must be empty
  InboundBuffer(const InboundBuffer&) = delete;
  InboundBuffer& operator=(const InboundBuffer&) = delete;

  bool empty() const { return block_ == nullptr || block_->size == 0; }
  std::size_t size() const { return block_ == nullptr ? 0 : block_->size; }
  std::size_t capacity() const { return block_ == nullptr ? 0 : block_->capacity; }

  // Returns all bytes.
  std::span<const std::byte> View() const;

  // What is known of the packet whose beginning the bytes are. It lies in the block, so it goes
  // with the last byte, and `Note` has no effect when there is none.
  struct Unfinished {
    std::size_t need = 0;         // bytes that must wait before Unpack is asked again
    std::uint32_t last_read = 0;  // how many bytes the last read brought
    bool unseen = false;          // bytes came that Unpack was not asked about
  };
  Unfinished unfinished() const { return block_ == nullptr ? Unfinished() : block_->unfinished; }
  void Note(const Unfinished& unfinished) {
    if (block_ != nullptr) block_->unfinished = unfinished;
  }

  // Makes room for at least `more` bytes after the last one. A first block has at least
  // `first_size` bytes in all. Returns false, and changes nothing, when an allocation fails.
  bool Reserve(std::size_t more, std::size_t first_size, BlockPool& pool);

  // Returns the free part, to read into. `Commit` adds what was read.
  std::span<std::byte> Free();
  void Commit(std::size_t n);

  // Reserves room and copies. Returns false, and changes nothing, when the allocation fails.
  bool Append(std::span<const std::byte> bytes, std::size_t first_size, BlockPool& pool);

  // Drops the first `n` bytes. The block goes back with the last of them.
  void Consume(std::size_t n, BlockPool& pool);

  // Moves few bytes out of a block that once held many, unless `packet`, the number of bytes that
  // were just consumed, says that such a block will be needed again. If the allocation fails they
  // stay.
  void Shrink(std::size_t packet, std::size_t first_size, BlockPool& pool);

  void Clear(BlockPool& pool) { Consume(size(), pool); }

 private:
  struct Block {
    std::size_t capacity;  // of the bytes after this head
    std::size_t head;      // where the first byte is
    std::size_t size;
    Unfinished unfinished;
    std::byte* bytes() { return reinterpret_cast<std::byte*>(this + 1); }
  };

  // Moves the bytes to the front of their block.
  void MoveToFront();

  // Moves the bytes into a new block. Returns false, and changes nothing, when the allocation
  // fails.
  bool MoveTo(std::size_t block_size, BlockPool& pool);

  // Returns the block to the pool.
  void GiveBack(BlockPool& pool);

  Block* block_ = nullptr;
};

}  // namespace xtcp::internal
