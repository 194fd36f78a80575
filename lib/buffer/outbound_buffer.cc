#include "buffer/outbound_buffer.h"

#include <algorithm>
#include <cstring>
#include <new>
#include <utility>

#include "base/check.h"

namespace xtcp::internal {

OutboundBuffer::~OutboundBuffer() {
  XTCP_CHECK(last_ == nullptr, "an outbound buffer is destroyed with its chunks");
}

bool OutboundBuffer::Append(std::span<const std::byte> bytes, BlockPool& pool) {
  // All chunks are allocated first, in a list of their own, so that nothing can fail half-way.
  OutboundBuffer added;
  std::size_t added_room = 0;
  while (room() + added_room < bytes.size()) {
    void* memory = pool.Take(kBlockSize);
    if (memory == nullptr) {
      added.Clear(pool);
      return false;
    }
    OutboundBuffer one;
    one.last_ = ::new (memory) Chunk{nullptr, 0, 0};
    one.last_->next = one.last_;
    added.Link(one);
    added_room += kChunkBytes;
  }
  const auto fill = [&bytes](Chunk* chunk) {
    const std::size_t n = std::min(bytes.size(), kChunkBytes - chunk->end);
    std::memcpy(chunk->bytes() + chunk->end, bytes.data(), n);
    chunk->end += static_cast<std::uint32_t>(n);
    bytes = bytes.subspan(n);
  };
  if (room() != 0 && !bytes.empty()) fill(last_);
  if (!added.empty()) {
    Chunk* chunk = added.last_->next;
    for (bool more = true; more; chunk = chunk->next) {
      fill(chunk);
      more = chunk != added.last_;
    }
    Link(added);
  }
  return true;
}

void OutboundBuffer::Splice(OutboundBuffer& other, BlockPool& pool) {
  while (!other.empty()) {
    Chunk* first = other.last_->next;
    const std::size_t held = first->end - first->begin;
    if (held > room()) break;
    std::memcpy(last_->bytes() + last_->end, first->bytes() + first->begin, held);
    last_->end += static_cast<std::uint32_t>(held);
    pool.Give(other.TakeFirst(), kBlockSize);
  }
  Link(other);
}

void OutboundBuffer::Link(OutboundBuffer& other) {
  if (other.empty()) return;
  // Exchanging the successors of two members joins two circles.
  if (last_ != nullptr) std::swap(last_->next, other.last_->next);
  last_ = std::exchange(other.last_, nullptr);
}

int OutboundBuffer::Gather(iovec* parts, int max) const {
  if (last_ == nullptr) return 0;
  int count = 0;
  Chunk* chunk = last_->next;
  while (count < max) {
    parts[count++] = {chunk->bytes() + chunk->begin, chunk->end - chunk->begin};
    if (chunk == last_) break;
    chunk = chunk->next;
  }
  return count;
}

void OutboundBuffer::Consume(std::size_t n, BlockPool& pool) {
  while (last_ != nullptr) {
    Chunk* first = last_->next;
    const std::size_t held = first->end - first->begin;
    if (n < held) {
      first->begin += static_cast<std::uint32_t>(n);
      return;
    }
    n -= held;
    pool.Give(TakeFirst(), kBlockSize);
    if (n == 0) return;
  }
  XTCP_DCHECK(n == 0, "more was written than was queued");
}

void OutboundBuffer::Clear(BlockPool& pool) {
  while (last_ != nullptr) pool.Give(TakeFirst(), kBlockSize);
}

OutboundBuffer::Chunk* OutboundBuffer::TakeFirst() {
  Chunk* first = last_->next;
  if (first == last_) {
    last_ = nullptr;
  } else {
    last_->next = first->next;
  }
  return first;
}

}  // namespace xtcp::internal
