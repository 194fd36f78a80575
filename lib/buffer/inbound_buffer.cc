#include "buffer/inbound_buffer.h"

#include <algorithm>
#include <cstring>
#include <new>

#include "base/check.h"
#include "base/poison.h"

namespace xtcp::internal {

InboundBuffer::~InboundBuffer() {
  XTCP_CHECK(block_ == nullptr, "an inbound buffer is destroyed with its block");
}

std::span<const std::byte> InboundBuffer::View() const {
  if (empty()) return {};
  return {block_->bytes() + block_->head, block_->size};
}

bool InboundBuffer::Reserve(std::size_t more, std::size_t first_size, BlockPool& pool) {
  if (block_ != nullptr && more <= block_->capacity - block_->head - block_->size) return true;
  if (more > ~std::size_t{0} / 4 - size()) return false;  // no arithmetic below overflows
  const std::size_t wanted = sizeof(Block) + size() + more;
  if (block_ == nullptr) return MoveTo(BlockPool::BlockSize(std::max(wanted, first_size)), pool);
  if (wanted <= sizeof(Block) + block_->capacity) {
    MoveToFront();
    return true;
  }
  return MoveTo(BlockPool::BlockSize(std::max(wanted, 2 * (sizeof(Block) + block_->capacity))),
                pool);
}

void InboundBuffer::Shrink(std::size_t packet, std::size_t first_size, BlockPool& pool) {
  if (block_ == nullptr) return;
  const std::size_t enough =
      std::max(first_size, sizeof(Block) + std::max(packet, 2 * block_->size));
  if (BlockPool::BlockSize(enough) * 2 < sizeof(Block) + block_->capacity) {
    MoveTo(BlockPool::BlockSize(enough), pool);
  }
}

void InboundBuffer::MoveToFront() {
  Unpoison({block_->bytes(), block_->capacity});
  std::memmove(block_->bytes(), block_->bytes() + block_->head, block_->size);
  block_->head = 0;
}

bool InboundBuffer::MoveTo(std::size_t block_size, BlockPool& pool) {
  void* memory = pool.Take(block_size);
  if (memory == nullptr) return false;
  Block* block = ::new (memory) Block{block_size - sizeof(Block), 0, size(), unfinished()};
  if (block_ != nullptr) {
    std::memcpy(block->bytes(), block_->bytes() + block_->head, block_->size);
    GiveBack(pool);
  }
  block_ = block;
  return true;
}

std::span<std::byte> InboundBuffer::Free() {
  if (block_ == nullptr) return {};
  const std::size_t end = block_->head + block_->size;
  return {block_->bytes() + end, block_->capacity - end};
}

void InboundBuffer::Commit(std::size_t n) {
  XTCP_DCHECK(n <= Free().size(), "more was read than there was room for");
  if (n != 0) block_->size += n;
}

bool InboundBuffer::Append(std::span<const std::byte> bytes, std::size_t first_size,
                           BlockPool& pool) {
  if (bytes.empty()) return true;
  if (!Reserve(bytes.size(), first_size, pool)) return false;
  std::memcpy(Free().data(), bytes.data(), bytes.size());
  Commit(bytes.size());
  return true;
}

void InboundBuffer::Consume(std::size_t n, BlockPool& pool) {
  if (block_ == nullptr) return;
  XTCP_DCHECK(n <= block_->size, "more was consumed than there is");
  Poison(View().first(n));
  block_->size -= n;
  block_->head += n;
  if (block_->size == 0) {
    GiveBack(pool);
  } else if (block_->head / 8 >= block_->size) {
    MoveToFront();  // it is cheap now; later more of the next packet would have to be moved
  }
}

void InboundBuffer::GiveBack(BlockPool& pool) {
  Unpoison({block_->bytes(), block_->capacity});
  pool.Give(block_, sizeof(Block) + block_->capacity);
  block_ = nullptr;
}

}  // namespace xtcp::internal
