#include "buffer/outbound_buffer.h"

#include <algorithm>
#include <array>
#include <catch2/catch.hpp>
#include <climits>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "support/alloc_hook.h"
#include "support/random.h"

namespace xtcp::internal {
namespace {

using test::Allocations;
using test::FailAllocations;

// Bytes that a chunk holds, beside a pointer and two numbers of 32 bits.
constexpr std::size_t kChunk = OutboundBuffer::kBlockSize - sizeof(void*) - 8;

std::span<const std::byte> Bytes(std::string_view text) {
  return std::as_bytes(std::span(text.data(), text.size()));
}

std::string Pattern(std::size_t size, std::size_t from = 0) {
  std::string text(size, '\0');
  for (std::size_t i = 0; i < size; ++i) text[i] = static_cast<char>((from + i) % 251);
  return text;
}

std::string Text(const std::vector<iovec>& parts) {
  std::string text;
  for (const iovec& part : parts) {
    text.append(static_cast<const char*>(part.iov_base), part.iov_len);
  }
  return text;
}

struct Outbound {
  ~Outbound() {
    buffer.Clear(pool);
    other.Clear(pool);
    released.Clear(pool);
  }
  bool Append(std::string_view text) { return buffer.Append(Bytes(text), pool); }

  static std::vector<iovec> Parts(const OutboundBuffer& buffer, int max = 100'000) {
    std::vector<iovec> parts(static_cast<std::size_t>(max));
    parts.resize(static_cast<std::size_t>(buffer.Gather(parts.data(), max)));
    return parts;
  }

  // All of it, as a write would see it, without consuming.
  std::string Text() const { return internal::Text(Parts(buffer)); }

  BlockPool pool;
  OutboundBuffer buffer;
  OutboundBuffer other;
  OutboundBuffer released;
};

TEST_CASE("an empty outbound buffer is one pointer and holds no memory") {
  Outbound o;
  CHECK(sizeof(OutboundBuffer) == sizeof(void*));
  CHECK(o.buffer.empty());
  CHECK(o.buffer.room() == 0);
  iovec part;
  CHECK(o.buffer.Gather(&part, 1) == 0);
  o.buffer.Consume(0, o.pool, o.released);
  const std::uint64_t before = Allocations();
  const bool appended = o.Append("");
  CHECK(Allocations() == before);
  CHECK(appended);
  CHECK(o.buffer.empty());
  REQUIRE(o.Append("abc"));
  CHECK_FALSE(o.buffer.empty());
  CHECK(o.buffer.room() == kChunk - 3);
  o.buffer.Consume(0, o.pool, o.released);
  CHECK(o.Text() == "abc");
  o.buffer.Consume(3, o.pool, o.released);
  CHECK(o.buffer.empty());
}

TEST_CASE("bytes for which there is room follow the last one", "[B4]") {
  Outbound o;
  REQUIRE(o.Append("abc"));
  const std::string rest = Pattern(o.buffer.room() - 2);
  const std::uint64_t before = Allocations();
  o.buffer.AppendInRoom(Bytes("de"));
  o.buffer.AppendInRoom(Bytes(rest));  // to the last byte of the chunk
  CHECK(Allocations() == before);
  CHECK(o.buffer.room() == 0);
  CHECK(o.Text() == "abcde" + rest);
  REQUIRE(o.Append("f"));
  CHECK(o.Text() == "abcde" + rest + "f");
}

TEST_CASE("what is spliced comes behind, and the other is empty", "[B4]") {
  Outbound o;
  REQUIRE(o.Append("one "));
  REQUIRE(o.other.Append(Bytes("two "), o.pool));
  o.buffer.Splice(o.other, o.pool);
  CHECK(o.other.empty());
  REQUIRE(o.Append("three"));
  CHECK(o.Text() == "one two three");
  o.buffer.Splice(o.other, o.pool);
  CHECK(o.Text() == "one two three");
  o.other.Splice(o.buffer, o.pool);
  CHECK(o.buffer.empty());
  o.buffer.Splice(o.other, o.pool);
  CHECK(o.Text() == "one two three");
}

TEST_CASE("bytes fill a chunk to its end before they begin another") {
  for (const std::size_t first : {std::size_t{1}, kChunk - 1, kChunk, kChunk + 1, 3 * kChunk}) {
    for (const std::size_t second : {std::size_t{1}, kChunk - 1, kChunk, 2 * kChunk + 1}) {
      CAPTURE(first, second);
      Outbound o;
      REQUIRE(o.Append(Pattern(first)));
      REQUIRE(o.Append(Pattern(second, first)));
      REQUIRE(Outbound::Parts(o.buffer).size() == (first + second + kChunk - 1) / kChunk);
      REQUIRE(o.Text() == Pattern(first + second));
    }
  }
}

TEST_CASE("what was consumed is gone, to the byte, and its chunks are used again") {
  const std::string text = Pattern(5 * kChunk);
  for (std::size_t chunks = 0; chunks <= 4; ++chunks) {
    for (const std::size_t more : {std::size_t{0}, std::size_t{1}, kChunk - 1, kChunk}) {
      const std::size_t n = chunks * kChunk + more;
      CAPTURE(n);
      Outbound o;
      REQUIRE(o.Append(text));
      o.buffer.Consume(n, o.pool, o.released);
      REQUIRE(o.buffer.empty() == (n == text.size()));
      REQUIRE(o.Text() == text.substr(n));
      const std::uint64_t before = Allocations();
      const bool appended = o.buffer.Append(Bytes(text).first(n / kChunk * kChunk), o.pool);
      const std::uint64_t allocations = Allocations() - before;
      REQUIRE(appended);
      REQUIRE(allocations == 0);
    }
  }
}

TEST_CASE("gathering stops at the number of parts; more than IOV_MAX chunks are no matter") {
  Outbound o;
  const std::string large = Pattern((IOV_MAX + 10) * kChunk);
  REQUIRE(o.Append(large));
  CHECK(Outbound::Parts(o.buffer).size() == IOV_MAX + 10);
  const std::vector<iovec> three = Outbound::Parts(o.buffer, 3);
  CHECK(three.size() == 3);
  CHECK(Text(three) == large.substr(0, 3 * kChunk));
  iovec untouched{&o, 7};
  CHECK(o.buffer.Gather(&untouched, 0) == 0);
  CHECK(untouched.iov_base == &o);
  const std::vector<iovec> most = Outbound::Parts(o.buffer, IOV_MAX);
  CHECK(most.size() == IOV_MAX);
  o.buffer.Consume(IOV_MAX * kChunk + 5, o.pool, o.released);
  CHECK(o.Text() == large.substr(IOV_MAX * kChunk + 5));
}

TEST_CASE("whichever allocation fails, nothing was appended and the next try works", "[B3][F4]") {
  const std::string text = Pattern(5 * kChunk, 100);
  for (std::uint64_t n = 1; n <= 5; ++n) {
    CAPTURE(n);
    Outbound o;
    REQUIRE(o.Append(Pattern(100)));
    bool appended = true;
    {
      const FailAllocations fail(n);
      appended = o.Append(text);
    }
    REQUIRE_FALSE(appended);
    REQUIRE(o.Text() == Pattern(100));
    // Those that were had went back to the pool.
    const std::uint64_t before = Allocations();
    appended = o.Append(text);
    const std::uint64_t allocations = Allocations() - before;
    REQUIRE(appended);
    REQUIRE(allocations == 5 - (n - 1));
    REQUIRE(o.Text() == Pattern(100 + text.size()));
  }
}

TEST_CASE("what fits into the last chunk needs no memory", "[F4]") {
  Outbound o;
  REQUIRE(o.Append("x"));
  const std::string rest(o.buffer.room(), 'r');
  bool appended = false;
  bool one_more = true;
  {
    const FailAllocations none(1, FailAllocations::kAlways);
    appended = o.Append(rest);
    one_more = o.Append("y");
  }
  CHECK(appended);
  CHECK_FALSE(one_more);
  CHECK(o.Text() == "x" + rest);
}

// The memory is that of a peer that does not read, while its own loop and another thread send to it
// in turn (ConnImpl::Enqueue splices each time).
TEST_CASE("memory is at most twice the bytes, however small the pieces", "[R1]") {
  Outbound o;
  std::size_t bytes = 0;
  for (int i = 0; i < 200; ++i) {
    REQUIRE(o.other.Append(Bytes(Pattern(50)), o.pool));  // another thread: pending_
    o.buffer.Splice(o.other, o.pool);                     // the loop: sending_
    REQUIRE(o.Append(Pattern(50)));
    bytes += 100;
  }
  const std::size_t chunks = Outbound::Parts(o.buffer).size();
  CHECK(chunks * OutboundBuffer::kBlockSize <= 2 * (bytes + OutboundBuffer::kBlockSize));
}

TEST_CASE("a million random operations agree with queues of bytes", "[B4][B7]") {
  // Two buffers and their models; bytes are compared when they are consumed, each of them once.
  struct Pair {
    OutboundBuffer buffer;
    std::deque<char> model;
  };
  BlockPool pool;
  std::array<Pair, 2> pairs;
  OutboundBuffer released;
  std::weak_ptr<std::string> last_owner;
  test::Random random(13);
  char next = 0;
  std::string bytes;
  std::array<iovec, 8> parts;
  bool good = true;
#if defined(__SANITIZE_THREAD__)
  constexpr int kOperations = 200'000;  // nothing here has threads, and a million takes 6 s
#else
  constexpr int kOperations = 1'000'000;
#endif
  int i = 0;
  const auto append = [&](Pair& pair) {
    // Mostly messages; now and then several chunks.
    bytes.resize(random.OneIn(300) ? random.Between(0, 40'000) : random.Between(0, 40));
    for (char& c : bytes) c = next++;
    bool appended = false;
    if (random.OneIn(5)) {
      // A copied head, and a body that is referred to when it is large enough.
      const auto owner = std::make_shared<std::string>(bytes);
      last_owner = owner;
      const std::string head = bytes.substr(0, random.Between(0, 300));
      const std::array<Part, 2> shared{Part(Bytes(head)), Part(owner)};
      good = appended = pair.buffer.AppendParts(shared, pool);
      pair.model.insert(pair.model.end(), head.begin(), head.end());
    } else if (random.OneIn(10)) {
      const FailAllocations fail(random.Between(1, 2));
      appended = pair.buffer.Append(Bytes(bytes), pool);
      good = appended || fail.failed();
    } else {
      good = appended = pair.buffer.Append(Bytes(bytes), pool);
    }
    if (appended) pair.model.insert(pair.model.end(), bytes.begin(), bytes.end());
  };
  const auto consume = [&](Pair& pair) {
    const int max = static_cast<int>(random.Between(1, parts.size()));
    const int count = pair.buffer.Gather(parts.data(), max);
    std::size_t size = 0;
    for (int k = 0; k < count; ++k) size += parts[static_cast<std::size_t>(k)].iov_len;
    good = count <= max && size <= pair.model.size() && (count == max || size == pair.model.size());
    // All that was offered, or less, as the kernel likes it.
    std::size_t n = random.OneIn(4) ? size : std::min(size, random.Between(0, 300));
    const std::size_t taken = n;
    for (int k = 0; n > 0 && good; ++k) {
      const iovec& part = parts[static_cast<std::size_t>(k)];
      const std::size_t of_part = std::min(n, part.iov_len);
      const char* const data = static_cast<const char*>(part.iov_base);
      good = std::equal(data, data + of_part, pair.model.begin());
      pair.model.erase(pair.model.begin(),
                       pair.model.begin() + static_cast<std::ptrdiff_t>(of_part));
      n -= of_part;
    }
    pair.buffer.Consume(taken, pool, released);
  };
  for (; i < kOperations && good; ++i) {
    const std::size_t which = random.Between(0, 1);
    Pair& pair = pairs[which];
    Pair& other = pairs[1 - which];
    switch (random.Between(0, 4)) {
      case 0:
      case 1:
        append(pair);
        break;
      case 2:
        pair.buffer.Splice(other.buffer, pool);
        pair.model.insert(pair.model.end(), other.model.begin(), other.model.end());
        other.model.clear();
        break;
      default:
        consume(pair);
        break;
    }
    if (random.OneIn(50)) released.Clear(pool);
    if (random.OneIn(10'000)) {
      pair.buffer.Clear(pool);
      pair.model.clear();
    }
    for (const Pair& each : pairs) good = good && each.buffer.empty() == each.model.empty();
  }
  for (Pair& pair : pairs) {
    while (good && !pair.model.empty()) consume(pair);
    good = good && pair.buffer.empty();
    pair.buffer.Clear(pool);
  }
  released.Clear(pool);
  CAPTURE(i);
  REQUIRE(good);
  REQUIRE(last_owner.expired());
}

}  // namespace
}  // namespace xtcp::internal
