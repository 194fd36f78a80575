#include "buffer/ring_buffer.h"

#include <algorithm>
#include <cstring>
#include <new>

#include "base/check.h"

namespace xtcp::internal {

RingBuffer::~RingBuffer() {
  XTCP_CHECK(block_ == nullptr, "a ring buffer is destroyed with its block");
}

std::span<const std::byte> RingBuffer::View() {
  if (empty()) return {};
  Block& b = *block_;
  if (b.head + b.size > b.capacity) {
    std::rotate(b.bytes(), b.bytes() + b.head, b.bytes() + b.capacity);
    b.head = 0;
  }
  return {b.bytes() + b.head, b.size};
}

bool RingBuffer::Reserve(std::size_t more, std::size_t first_size, BlockPool& pool) {
  if (more <= capacity() - size()) return true;
  if (more > ~std::size_t{0} / 4 - size()) return false;
  std::size_t total = sizeof(Block) + size() + more;
  total = std::max(total, block_ == nullptr ? first_size : 2 * (sizeof(Block) + block_->capacity));
  return MoveTo(BlockPool::BlockSize(total), pool);
}

void RingBuffer::Shrink(std::size_t first_size, BlockPool& pool) {
  if (block_ == nullptr) return;
  const std::size_t enough = std::max(first_size, sizeof(Block) + 2 * block_->size);
  if (BlockPool::BlockSize(enough) * 2 < sizeof(Block) + block_->capacity) {
    MoveTo(BlockPool::BlockSize(enough), pool);
  }
}

bool RingBuffer::MoveTo(std::size_t block_size, BlockPool& pool) {
  void* memory = pool.Take(block_size);
  if (memory == nullptr) return false;
  Block* block = ::new (memory) Block{block_size - sizeof(Block), 0, size()};
  if (block_ != nullptr) {
    const std::size_t first = std::min(block_->size, block_->capacity - block_->head);
    std::memcpy(block->bytes(), block_->bytes() + block_->head, first);
    std::memcpy(block->bytes() + first, block_->bytes(), block_->size - first);
    GiveBack(pool);
  }
  block_ = block;
  return true;
}

std::span<std::byte> RingBuffer::Free() {
  if (block_ == nullptr) return {};
  Block& b = *block_;
  const std::size_t tail = b.head + b.size;
  if (tail < b.capacity) return {b.bytes() + tail, b.capacity - tail};
  return {b.bytes() + (tail - b.capacity), b.capacity - b.size};
}

void RingBuffer::Commit(std::size_t n) {
  XTCP_DCHECK(n <= capacity() - size(), "more was read than there was room for");
  if (n != 0) block_->size += n;
}

bool RingBuffer::Append(std::span<const std::byte> bytes, std::size_t first_size, BlockPool& pool) {
  if (!Reserve(bytes.size(), first_size, pool)) return false;
  while (!bytes.empty()) {
    const std::span<std::byte> free = Free();
    const std::size_t n = std::min(free.size(), bytes.size());
    std::memcpy(free.data(), bytes.data(), n);
    Commit(n);
    bytes = bytes.subspan(n);
  }
  return true;
}

void RingBuffer::Consume(std::size_t n, BlockPool& pool) {
  if (block_ == nullptr) return;
  XTCP_DCHECK(n <= block_->size, "more was consumed than there is");
  block_->size -= n;
  block_->head += n;
  if (block_->head >= block_->capacity) block_->head -= block_->capacity;
  if (block_->size == 0) GiveBack(pool);
}

void RingBuffer::GiveBack(BlockPool& pool) {
  pool.Give(block_, sizeof(Block) + block_->capacity);
  block_ = nullptr;
}

}  // namespace xtcp::internal
