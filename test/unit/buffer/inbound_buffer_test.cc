#include "buffer/inbound_buffer.h"

#include <algorithm>
#include <catch2/catch.hpp>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <string>
#include <string_view>
#include <vector>

#include "support/alloc_hook.h"
#include "support/random.h"

namespace xtcp::internal {
namespace {

using test::Allocations;
using test::FailAllocations;

constexpr std::size_t kFirst = 256;  // in all; kCapacity of them for bytes
// What a block holds beside bytes.
constexpr std::size_t kHead = 3 * sizeof(std::size_t) + sizeof(InboundBuffer::Unfinished);
constexpr std::size_t kCapacity = kFirst - kHead;

std::span<const std::byte> Bytes(std::string_view text) {
  return std::as_bytes(std::span(text.data(), text.size()));
}

std::string Text(std::span<const std::byte> bytes) {
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

// Bytes of which no two near each other are alike.
std::string Pattern(std::size_t size, std::size_t from = 0) {
  std::string text(size, '\0');
  for (std::size_t i = 0; i < size; ++i) text[i] = static_cast<char>((from + i) % 251);
  return text;
}

struct Buffer {
  ~Buffer() { buffer.Clear(pool); }
  bool Append(std::string_view text) { return buffer.Append(Bytes(text), kFirst, pool); }

  BlockPool pool;
  InboundBuffer buffer;
};

TEST_CASE("an empty inbound buffer is one pointer and holds no memory") {
  Buffer b;
  CHECK(sizeof(InboundBuffer) == sizeof(void*));
  CHECK(b.buffer.empty());
  CHECK(b.buffer.capacity() == 0);
  CHECK(b.buffer.View().empty());
  CHECK(b.buffer.Free().empty());
  b.buffer.Consume(0, b.pool);
  b.buffer.Shrink(0, kFirst, b.pool);
  REQUIRE(b.Append(""));
  CHECK(b.buffer.capacity() == 0);
  REQUIRE(b.Append("abc"));
  CHECK(b.buffer.capacity() == kCapacity);
  b.buffer.Consume(3, b.pool);
  CHECK(b.buffer.capacity() == 0);
}

TEST_CASE("room that was reserved for nothing goes back as well") {
  Buffer b;
  REQUIRE(b.buffer.Reserve(1, kFirst, b.pool));
  CHECK(b.buffer.empty());
  CHECK(b.buffer.View().empty());
  CHECK(b.buffer.Free().size() == kCapacity);
  b.buffer.Commit(0);
  b.buffer.Clear(b.pool);
  CHECK(b.buffer.capacity() == 0);
}

TEST_CASE("what reaches the end of the block moves to its front, wherever it begins", "[B7]") {
  for (std::size_t head = 1; head < kCapacity; ++head) {
    CAPTURE(head);
    Buffer b;
    const std::string text = Pattern(kCapacity - head);
    REQUIRE(b.Append(std::string(head, '.') + text));
    b.buffer.Consume(head, b.pool);
    REQUIRE(Text(b.buffer.View()) == text);
    const std::string more = Pattern(head, text.size());
    REQUIRE(b.Append(more));
    REQUIRE(b.buffer.capacity() == kCapacity);
    REQUIRE(Text(b.buffer.View()) == text + more);
    REQUIRE(b.buffer.Free().empty());
    // Now it is full, and grows.
    REQUIRE(b.Append("more"));
    REQUIRE(b.buffer.capacity() == 2 * kFirst - kHead);
    REQUIRE(Text(b.buffer.View()) == text + more + "more");
  }
}

TEST_CASE("the free part is what lies after the bytes") {
  Buffer b;
  REQUIRE(b.Append(Pattern(150)));
  b.buffer.Consume(100, b.pool);
  const std::span<std::byte> free = b.buffer.Free();
  CHECK(free.size() == kCapacity - 150);
  std::fill(free.begin(), free.end(), std::byte{'f'});
  b.buffer.Commit(free.size());
  CHECK(b.buffer.Free().empty());
  CHECK(Text(b.buffer.View()) == Pattern(50, 100) + std::string(kCapacity - 150, 'f'));
}

// Reads a stream of packets of `packet` bytes as a connection does, `read` bytes at a time, and
// returns how many bytes were moved for each that was read.
double MovedPerByte(std::size_t packet, std::size_t read) {
  Buffer b;
  std::size_t moved = 0;
  std::size_t total = 0;
  while (total < 40 * packet + (std::size_t{64} << 20)) {
    const std::byte* const before = b.buffer.View().data();
    const std::size_t size = b.buffer.size();
    if (!b.buffer.Reserve(1, 4096, b.pool)) FAIL("no memory");
    const std::size_t n = std::min(read, b.buffer.Free().size());
    b.buffer.Commit(n);
    if (b.buffer.View().data() != before) moved += size;
    total += n;
    const std::size_t used = b.buffer.size() / packet * packet;
    const std::byte* const next = b.buffer.View().data() + used;
    b.buffer.Consume(used, b.pool);
    if (used > 0) b.buffer.Shrink(used, 4096, b.pool);
    if (!b.buffer.empty() && b.buffer.View().data() != next) moved += b.buffer.size();
  }
  return static_cast<double>(moved) / static_cast<double>(total);
}

TEST_CASE("what is known of an unfinished packet moves with its bytes and goes with the last",
          "[B7]") {
  Buffer b;
  CHECK(b.buffer.unfinished().need == 0);
  b.buffer.Note({.need = 5, .last_read = 1, .unseen = true});  // there is nothing to note it of
  CHECK(b.buffer.unfinished().need == 0);
  REQUIRE(b.Append("a"));
  CHECK(b.buffer.unfinished().need == 0);
  b.buffer.Note({.need = 500, .last_read = 7, .unseen = true});
  REQUIRE(b.Append(Pattern(2 * kFirst)));  // into a larger block
  CHECK(b.buffer.unfinished().need == 500);
  CHECK(b.buffer.unfinished().last_read == 7);
  CHECK(b.buffer.unfinished().unseen);
  b.buffer.Consume(2 * kFirst + 1, b.pool);
  CHECK(b.buffer.unfinished().need == 0);
  CHECK_FALSE(b.buffer.unfinished().unseen);
}

TEST_CASE("a byte is moved less than once, however large its packet", "[X1][seen-21]") {
  for (const std::size_t packet :
       {60'000, 120'000, 200'000, 300'000, 500'000, 1'000'000, 3'000'000, 8'000'000}) {
    for (const std::size_t read : {3'000, 20'000, 100'000, 256 << 10}) {
      CAPTURE(packet, read);
      CHECK(MovedPerByte(packet, read) < 1);
    }
  }
}

TEST_CASE("an inbound buffer holds at most twice its bytes, and grows by doubling", "[X1]") {
  Buffer b;
  std::string text;
  const std::uint64_t before = Allocations();
  bool good = true;
  for (std::size_t i = 0; i < 100'000 && good; ++i) {
    const std::byte byte{static_cast<unsigned char>(i % 251)};
    good = b.buffer.Append({&byte, 1}, kFirst, b.pool);
    good = good && b.buffer.capacity() + kHead <= std::max(kFirst, 2 * (b.buffer.size() + kHead));
  }
  CHECK(good);
  CHECK(Allocations() - before == 10);  // 256 to 128 Ki
  CHECK(Text(b.buffer.View()) == Pattern(100'000));
}

TEST_CASE("a large need is met at once, a small one by a block of the first size", "[X1]") {
  Buffer b;
  REQUIRE(b.buffer.Reserve(1, 4096, b.pool));
  CHECK(b.buffer.capacity() == 4096 - kHead);
  b.buffer.Clear(b.pool);
  const std::string text = Pattern(100'000);
  const std::uint64_t before = Allocations();
  const bool reserved = b.buffer.Reserve(text.size(), kFirst, b.pool);
  const bool appended = b.Append(text);
  CHECK(Allocations() - before == 1);
  CHECK(reserved);
  CHECK(appended);
  CHECK(b.buffer.capacity() == (128 << 10) - kHead);
}

TEST_CASE("an inbound buffer shrinks when little is left, not below its first size", "[X1]") {
  Buffer b;
  const std::string large = Pattern(100'000);
  REQUIRE(b.Append(large));
  const std::size_t capacity = b.buffer.capacity();
  b.buffer.Shrink(0, kFirst, b.pool);
  CHECK(b.buffer.capacity() == capacity);
  // A quarter is not little: it would soon have to grow again.
  b.buffer.Consume(large.size() - capacity / 4, b.pool);
  b.buffer.Shrink(0, kFirst, b.pool);
  CHECK(b.buffer.capacity() == capacity);
  b.buffer.Consume(b.buffer.size() - 1000, b.pool);
  b.buffer.Shrink(0, 64 << 10, b.pool);
  CHECK(b.buffer.capacity() == capacity);
  b.buffer.Shrink(capacity / 2, kFirst, b.pool);  // a packet that large may come again
  CHECK(b.buffer.capacity() == capacity);
  b.buffer.Shrink(0, kFirst, b.pool);
  CHECK(b.buffer.capacity() + kHead == 2048);
  CHECK(Text(b.buffer.View()) == large.substr(large.size() - 1000));
  b.buffer.Consume(990, b.pool);
  b.buffer.Shrink(0, kFirst, b.pool);
  CHECK(b.buffer.capacity() == kCapacity);
  CHECK(Text(b.buffer.View()) == large.substr(large.size() - 10));
}

TEST_CASE("a size that cannot be had changes nothing", "[X4]") {
  Buffer b;
  REQUIRE(b.Append("abc"));
  constexpr std::size_t kMost = ~std::size_t{0};
  std::vector<std::size_t> sizes{kMost, kMost / 2};
  if constexpr (sizeof(std::size_t) == 8) sizes.insert(sizes.end(), {kMost / 4, kMost / 16});
  for (const std::size_t size : sizes) {
    CHECK_FALSE(b.buffer.Reserve(size, kFirst, b.pool));
  }
  CHECK(b.buffer.capacity() == kCapacity);
  CHECK(Text(b.buffer.View()) == "abc");
}

TEST_CASE("whichever allocation fails, the bytes stay and the next try works", "[F4]") {
  const std::string text = Pattern(100'000);
  constexpr std::size_t kStep = 100;
  for (std::uint64_t n = 1; n <= 11; ++n) {
    CAPTURE(n);
    Buffer b;
    std::size_t appended = 0;
    std::size_t failures = 0;
    bool kept = true;
    {
      const FailAllocations fail(n);
      while (appended < text.size()) {
        const std::size_t capacity = b.buffer.capacity();
        const bool good = b.Append(std::string_view(text).substr(appended, kStep));
        if (good) appended += kStep;
        failures += !good;
        kept = kept && (good || b.buffer.capacity() == capacity) && b.buffer.size() == appended;
      }
    }
    REQUIRE(kept);
    REQUIRE(failures == (n <= 10 ? 1 : 0));
    REQUIRE(Text(b.buffer.View()) == text);
    // Shrinking fails without a word.
    b.buffer.Consume(text.size() - 10, b.pool);
    const std::size_t capacity = b.buffer.capacity();
    {
      BlockPool empty;  // one that keeps nothing
      const FailAllocations fail(1);
      b.buffer.Shrink(0, kFirst, empty);
    }
    REQUIRE(b.buffer.capacity() == capacity);
    REQUIRE(Text(b.buffer.View()) == text.substr(text.size() - 10));
  }
}

TEST_CASE("a million random operations agree with a queue of bytes", "[B7][X1]") {
  Buffer b;
  std::deque<std::byte> model;
  test::Random random(11);
  std::vector<std::byte> bytes;
  unsigned char next = 0;
  std::size_t most = 0;  // bytes at once since the buffer was last empty
  bool good = true;
#if defined(__SANITIZE_THREAD__)
  constexpr int kOperations = 200'000;  // nothing here has threads, and a million takes 18 s
#else
  constexpr int kOperations = 1'000'000;
#endif
  int i = 0;
  for (; i < kOperations && good; ++i) {
    // Mostly small steps around a small size; now and then a large one.
    const std::size_t step = random.OneIn(100) ? random.Between(0, 3000) : random.Between(0, 90);
    switch (random.Between(0, 3)) {
      case 0: {
        bytes.resize(step);
        for (std::byte& byte : bytes) byte = std::byte{next++};
        // Some allocations fail, where one is needed.
        const bool room = step <= b.buffer.capacity() - b.buffer.size();
        bool appended = false;
        if (random.OneIn(10)) {
          const FailAllocations fail(1);
          appended = b.buffer.Append(bytes, kFirst, b.pool);
          good = appended || (!room && fail.failed());
        } else {
          good = appended = b.buffer.Append(bytes, kFirst, b.pool);
        }
        if (appended) model.insert(model.end(), bytes.begin(), bytes.end());
        break;
      }
      case 1: {
        good = b.buffer.Reserve(1, kFirst, b.pool);
        const std::span<std::byte> free = b.buffer.Free();
        const std::size_t n = std::min(step, free.size());
        for (std::size_t k = 0; k < n; ++k) model.push_back(free[k] = std::byte{next++});
        b.buffer.Commit(n);
        good = good && !free.empty();
        break;
      }
      case 2: {
        const std::size_t n = std::min(2 * step, model.size());
        b.buffer.Consume(n, b.pool);
        model.erase(model.begin(), model.begin() + static_cast<std::ptrdiff_t>(n));
        break;
      }
      case 3: {
        if (random.OneIn(50)) b.buffer.Shrink(0, kFirst, b.pool);
        const std::span<const std::byte> view = b.buffer.View();
        good = view.size() == model.size() && std::equal(view.begin(), view.end(), model.begin());
        break;
      }
    }
    if (model.size() > 6000) {
      b.buffer.Clear(b.pool);
      model.clear();
    }
    if (model.empty()) most = 0;
    most = std::max(most, model.size());
    good = good && b.buffer.size() == model.size() && b.buffer.empty() == model.empty();
    good = good && (b.buffer.capacity() == 0 ||
                    b.buffer.capacity() + kHead <= std::max(kFirst, 2 * (most + 1 + kHead)));
  }
  CAPTURE(i);
  REQUIRE(good);
}

}  // namespace
}  // namespace xtcp::internal
