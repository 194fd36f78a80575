#include "buffer/outbound_buffer.h"

#include <algorithm>
#include <cstring>
#include <memory>
#include <new>
#include <utility>

#include "base/check.h"

namespace xtcp::internal {

namespace {

// A part of so many bytes or less is copied, though it has an owner: it costs less than a
// reference.
constexpr std::size_t kLargestCopied = 512;

constexpr std::size_t kLongestReference = std::size_t{1} << 30;

bool IsReferredTo(const Part& part) {
  return part.owner != nullptr && part.bytes.size() > kLargestCopied;
}

}  // namespace

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
    added.LinkOne(::new (memory) Chunk{nullptr, 0, 0, 0});
    added_room += kChunkBytes;
  }
  const auto fill = [&bytes](Chunk* chunk) {
    const std::size_t n = std::min(bytes.size(), kChunkBytes - chunk->end);
    std::memcpy(chunk->bytes() + chunk->end, bytes.data(), n);
    chunk->end = (chunk->end + n) & kEndMask;
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

bool OutboundBuffer::AppendParts(std::span<const Part> parts, BlockPool& pool) {
  OutboundBuffer added;
  while (!parts.empty()) {
    std::span<const std::byte> head;
    if (parts.size() > 1 && parts[0].bytes.size() <= kLargestHead && !IsReferredTo(parts[0]) &&
        IsReferredTo(parts[1])) {
      head = parts[0].bytes;
      parts = parts.subspan(1);
    }
    const bool good = IsReferredTo(parts[0]) ? added.AppendReference(head, parts[0], pool)
                                             : added.Append(parts[0].bytes, pool);
    if (!good) {
      added.Clear(pool);
      return false;
    }
    parts = parts.subspan(1);
  }
  Splice(added, pool);
  return true;
}

bool OutboundBuffer::AppendReference(std::span<const std::byte> head, const Part& part,
                                     BlockPool& pool) {
  std::span<const std::byte> left = part.bytes;
  while (!left.empty()) {
    void* const memory = pool.Take(kReferenceSize);
    if (memory == nullptr) return false;
    const std::size_t n = std::min(left.size(), kLongestReference);
    auto* const reference = ::new (memory)
        Reference{{nullptr, 0, static_cast<std::uint32_t>(head.size() + n) & kEndMask, 1},
                  static_cast<std::uint32_t>(head.size()),
                  left.data(),
                  part.owner};
    if (!head.empty()) std::memcpy(reference->head_bytes(), head.data(), head.size());
    LinkOne(reference);
    head = {};
    left = left.subspan(n);
  }
  return true;
}

void OutboundBuffer::LinkOne(Chunk* chunk) {
  OutboundBuffer one;
  one.last_ = chunk;
  chunk->next = chunk;
  Link(one);
}

void OutboundBuffer::Free(Chunk* chunk, BlockPool& pool) {
  if (chunk->refers == 0) {
    pool.Give(chunk, kBlockSize);
    return;
  }
  auto* const reference = static_cast<Reference*>(chunk);
  std::destroy_at(reference);
  pool.Give(reference, kReferenceSize);
}

void OutboundBuffer::Splice(OutboundBuffer& other, BlockPool& pool) {
  XTCP_DCHECK(&other != this, "a buffer is put after itself");
  while (!other.empty()) {
    Chunk* first = other.last_->next;
    const std::size_t held = first->end - first->begin;
    if (held > room() || first->refers != 0) break;
    std::memcpy(last_->bytes() + last_->end, first->bytes() + first->begin, held);
    last_->end = (last_->end + held) & kEndMask;
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
  const auto add = [&](const std::byte* bytes, std::size_t size) {
    parts[count++] = {const_cast<std::byte*>(bytes), size};
  };
  Chunk* chunk = last_->next;
  while (count < max) {
    if (chunk->refers == 0) {
      add(chunk->bytes() + chunk->begin, chunk->end - chunk->begin);
    } else {
      auto* const reference = static_cast<Reference*>(chunk);
      const std::uint32_t head = reference->head;
      std::uint32_t begin = reference->begin;
      if (begin < head) {
        add(reference->head_bytes() + begin, head - begin);
        begin = head;
      }
      if (count < max) add(reference->referred + (begin - head), reference->end - begin);
    }
    if (chunk == last_) break;
    chunk = chunk->next;
  }
  return count;
}

void OutboundBuffer::Consume(std::size_t n, BlockPool& pool, OutboundBuffer& released) {
  while (last_ != nullptr) {
    Chunk* first = last_->next;
    const std::size_t held = first->end - first->begin;
    if (n < held) {
      first->begin += static_cast<std::uint32_t>(n);
      return;
    }
    n -= held;
    Chunk* const used = TakeFirst();
    if (used->refers != 0) {
      released.LinkOne(used);
    } else {
      pool.Give(used, kBlockSize);
    }
    if (n == 0) return;
  }
  XTCP_DCHECK(n == 0, "more was written than was queued");
}

void OutboundBuffer::Clear(BlockPool& pool) {
  OutboundBuffer all;
  all.last_ = std::exchange(last_, nullptr);
  while (all.last_ != nullptr) Free(all.TakeFirst(), pool);
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
