#include "buffer/ring_buffer.h"

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
constexpr std::size_t kHead = 24;    // what a block holds beside bytes
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

struct Ring {
  ~Ring() { ring.Clear(pool); }
  bool Append(std::string_view text) { return ring.Append(Bytes(text), kFirst, pool); }

  // As a first block that holds `text` from place `head` of its `kCapacity` on.
  void Fill(std::size_t head, std::string_view text) {
    const std::string before(head, '.');
    REQUIRE(Append(before));
    // One byte stays, or the block would go.
    if (text.size() + head <= kCapacity) {
      REQUIRE(Append(text));
      ring.Consume(head, pool);
    } else {
      const std::size_t first = kCapacity - head;
      REQUIRE(Append(text.substr(0, first)));
      ring.Consume(head, pool);
      REQUIRE(Append(text.substr(first)));
    }
    REQUIRE(ring.capacity() == kCapacity);
    REQUIRE(ring.size() == text.size());
  }

  BlockPool pool;
  RingBuffer ring;
};

TEST_CASE("an empty ring buffer is one pointer and holds no memory") {
  Ring r;
  CHECK(sizeof(RingBuffer) == sizeof(void*));
  CHECK(r.ring.empty());
  CHECK(r.ring.capacity() == 0);
  CHECK(r.ring.View().empty());
  CHECK(r.ring.Free().empty());
  r.ring.Consume(0, r.pool);
  r.ring.Shrink(kFirst, r.pool);
  REQUIRE(r.Append(""));
  CHECK(r.ring.capacity() == 0);
  REQUIRE(r.Append("abc"));
  CHECK(r.ring.capacity() == kCapacity);
  r.ring.Consume(3, r.pool);
  CHECK(r.ring.capacity() == 0);
}

TEST_CASE("room that was reserved for nothing goes back as well") {
  Ring r;
  REQUIRE(r.ring.Reserve(1, kFirst, r.pool));
  CHECK(r.ring.empty());
  CHECK(r.ring.View().empty());
  CHECK(r.ring.Free().size() == kCapacity);
  r.ring.Commit(0);
  r.ring.Clear(r.pool);
  CHECK(r.ring.capacity() == 0);
}

TEST_CASE("what crosses the end of the ring is seen in one piece, wherever it begins", "[B7]") {
  for (std::size_t head = 1; head < kCapacity; ++head) {
    for (const std::size_t size :
         {std::size_t{1}, kCapacity - head, kCapacity - head + 1, kCapacity - 1, kCapacity}) {
      CAPTURE(head, size);
      Ring r;
      const std::string text = Pattern(size);
      r.Fill(head, text);
      REQUIRE(Text(r.ring.View()) == text);
      REQUIRE(Text(r.ring.View()) == text);
      REQUIRE(r.ring.capacity() == kCapacity);
      // What comes now goes behind it.
      REQUIRE(r.Append("more"));
      REQUIRE(Text(r.ring.View()) == text + "more");
    }
  }
}

TEST_CASE("the free part is first what is behind the bytes, then what is in front of them") {
  Ring r;
  r.Fill(100, Pattern(50));
  std::span<std::byte> free = r.ring.Free();
  CHECK(free.size() == kCapacity - 150);
  std::fill(free.begin(), free.end(), std::byte{'b'});
  r.ring.Commit(free.size());
  std::span<std::byte> front = r.ring.Free();
  CHECK(front.size() == 100);
  CHECK(front.data() + kCapacity == free.data() + free.size());
  std::fill(front.begin(), front.end(), std::byte{'f'});
  r.ring.Commit(front.size());
  CHECK(r.ring.Free().empty());
  CHECK(Text(r.ring.View()) ==
        Pattern(50) + std::string(kCapacity - 150, 'b') + std::string(100, 'f'));
}

TEST_CASE("a ring that crosses its end grows and shrinks without mixing its bytes", "[B7]") {
  for (std::size_t head = 1; head < kCapacity; head += 7) {
    CAPTURE(head);
    Ring r;
    const std::string text = Pattern(kCapacity);
    r.Fill(head, text);
    REQUIRE(r.Append(text));
    REQUIRE(r.ring.capacity() == 2 * kFirst - kHead);
    REQUIRE(Text(r.ring.View()) == text + text);
  }
  // One of 8 KiB that crosses its end shrinks.
  Ring r;
  constexpr std::size_t kLarge = (8 << 10) - kHead;
  REQUIRE(r.Append(Pattern(kLarge)));
  r.ring.Consume(kLarge - 10, r.pool);
  REQUIRE(r.Append(Pattern(20, kLarge)));
  REQUIRE(r.ring.capacity() == kLarge);
  r.ring.Shrink(kFirst, r.pool);
  CHECK(r.ring.capacity() == kCapacity);
  CHECK(Text(r.ring.View()) == Pattern(30, kLarge - 10));
}

TEST_CASE("a ring buffer holds at most twice its bytes, and grows by doubling", "[X1]") {
  Ring r;
  std::string text;
  const std::uint64_t before = Allocations();
  bool good = true;
  for (std::size_t i = 0; i < 100'000 && good; ++i) {
    const std::byte byte{static_cast<unsigned char>(i % 251)};
    good = r.ring.Append({&byte, 1}, kFirst, r.pool);
    good = good && r.ring.capacity() + kHead <= std::max(kFirst, 2 * (r.ring.size() + kHead));
  }
  CHECK(good);
  CHECK(Allocations() - before == 10);  // 256 to 128 Ki
  CHECK(Text(r.ring.View()) == Pattern(100'000));
}

TEST_CASE("a large need is met at once, a small one by a block of the first size", "[X1]") {
  Ring r;
  REQUIRE(r.ring.Reserve(1, 4096, r.pool));
  CHECK(r.ring.capacity() == 4096 - kHead);
  r.ring.Clear(r.pool);
  const std::string text = Pattern(100'000);
  const std::uint64_t before = Allocations();
  const bool reserved = r.ring.Reserve(text.size(), kFirst, r.pool);
  const bool appended = r.Append(text);
  CHECK(Allocations() - before == 1);
  CHECK(reserved);
  CHECK(appended);
  CHECK(r.ring.capacity() == (128 << 10) - kHead);
}

TEST_CASE("a ring buffer shrinks when little is left, not below its first size", "[X1]") {
  Ring r;
  const std::string large = Pattern(100'000);
  REQUIRE(r.Append(large));
  const std::size_t capacity = r.ring.capacity();
  r.ring.Shrink(kFirst, r.pool);
  CHECK(r.ring.capacity() == capacity);
  // A quarter is not little: it would soon have to grow again.
  r.ring.Consume(large.size() - capacity / 4, r.pool);
  r.ring.Shrink(kFirst, r.pool);
  CHECK(r.ring.capacity() == capacity);
  r.ring.Consume(r.ring.size() - 1000, r.pool);
  r.ring.Shrink(64 << 10, r.pool);
  CHECK(r.ring.capacity() == capacity);
  r.ring.Shrink(kFirst, r.pool);
  CHECK(r.ring.capacity() + kHead == 2048);
  CHECK(Text(r.ring.View()) == large.substr(large.size() - 1000));
  r.ring.Consume(990, r.pool);
  r.ring.Shrink(kFirst, r.pool);
  CHECK(r.ring.capacity() == kCapacity);
  CHECK(Text(r.ring.View()) == large.substr(large.size() - 10));
}

TEST_CASE("a size that cannot be had changes nothing", "[X4]") {
  Ring r;
  REQUIRE(r.Append("abc"));
  for (const std::size_t size :
       {~std::size_t{0}, ~std::size_t{0} / 2, ~std::size_t{0} / 4, std::size_t{1} << 60}) {
    CHECK_FALSE(r.ring.Reserve(size, kFirst, r.pool));
  }
  CHECK(r.ring.capacity() == kCapacity);
  CHECK(Text(r.ring.View()) == "abc");
}

TEST_CASE("whichever allocation fails, the bytes stay and the next try works", "[F4]") {
  const std::string text = Pattern(100'000);
  constexpr std::size_t kStep = 100;
  for (std::uint64_t n = 1; n <= 11; ++n) {
    CAPTURE(n);
    Ring r;
    std::size_t appended = 0;
    std::size_t failures = 0;
    bool kept = true;
    {
      const FailAllocations fail(n);
      while (appended < text.size()) {
        const std::size_t capacity = r.ring.capacity();
        const bool good = r.Append(std::string_view(text).substr(appended, kStep));
        if (good) appended += kStep;
        failures += !good;
        kept = kept && (good || r.ring.capacity() == capacity) && r.ring.size() == appended;
      }
    }
    REQUIRE(kept);
    REQUIRE(failures == (n <= 10 ? 1 : 0));
    REQUIRE(Text(r.ring.View()) == text);
    // Shrinking fails without a word.
    r.ring.Consume(text.size() - 10, r.pool);
    const std::size_t capacity = r.ring.capacity();
    {
      BlockPool empty;  // one that keeps nothing
      const FailAllocations fail(1);
      r.ring.Shrink(kFirst, empty);
    }
    REQUIRE(r.ring.capacity() == capacity);
    REQUIRE(Text(r.ring.View()) == text.substr(text.size() - 10));
  }
}

TEST_CASE("a million random operations agree with a queue of bytes", "[B7][X1]") {
  Ring r;
  std::deque<std::byte> model;
  test::Random random(11);
  std::vector<std::byte> bytes;
  unsigned char next = 0;
  std::size_t most = 0;  // bytes at once since the ring was last empty
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
        for (std::byte& b : bytes) b = std::byte{next++};
        // Some allocations fail, where one is needed.
        const bool room = step <= r.ring.capacity() - r.ring.size();
        bool appended = false;
        if (random.OneIn(10)) {
          const FailAllocations fail(1);
          appended = r.ring.Append(bytes, kFirst, r.pool);
          good = appended || (!room && fail.failed());
        } else {
          good = appended = r.ring.Append(bytes, kFirst, r.pool);
        }
        if (appended) model.insert(model.end(), bytes.begin(), bytes.end());
        break;
      }
      case 1: {
        good = r.ring.Reserve(1, kFirst, r.pool);
        const std::span<std::byte> free = r.ring.Free();
        const std::size_t n = std::min(step, free.size());
        for (std::size_t k = 0; k < n; ++k) model.push_back(free[k] = std::byte{next++});
        r.ring.Commit(n);
        good = good && !free.empty();
        break;
      }
      case 2: {
        const std::size_t n = std::min(2 * step, model.size());
        r.ring.Consume(n, r.pool);
        model.erase(model.begin(), model.begin() + static_cast<std::ptrdiff_t>(n));
        break;
      }
      case 3: {
        if (random.OneIn(50)) r.ring.Shrink(kFirst, r.pool);
        const std::span<const std::byte> view = r.ring.View();
        good = view.size() == model.size() && std::equal(view.begin(), view.end(), model.begin());
        break;
      }
    }
    if (model.size() > 6000) {
      r.ring.Clear(r.pool);
      model.clear();
    }
    if (model.empty()) most = 0;
    most = std::max(most, model.size());
    good = good && r.ring.size() == model.size() && r.ring.empty() == model.empty();
    good = good && (r.ring.capacity() == 0 ||
                    r.ring.capacity() + kHead <= std::max(kFirst, 2 * (most + 1 + kHead)));
  }
  CAPTURE(i);
  REQUIRE(good);
}

}  // namespace
}  // namespace xtcp::internal
