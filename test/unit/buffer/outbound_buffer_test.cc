#include "buffer/outbound_buffer.h"

#include <algorithm>
#include <array>
#include <catch2/catch.hpp>
#include <climits>
#include <cstddef>
#include <deque>
#include <random>
#include <string>
#include <vector>

#include "support/random.h"

namespace xtcp::internal {
namespace {

std::span<const std::byte> Bytes(std::string_view text) {
  return std::as_bytes(std::span(text.data(), text.size()));
}

struct Outbound {
  ~Outbound() { buffer.Clear(pool); }

  // All of it, as a write would see it, without consuming.
  std::string Text() const {
    std::vector<iovec> parts(100'000);
    const int count = buffer.Gather(parts.data(), static_cast<int>(parts.size()));
    std::string text;
    for (int i = 0; i < count; ++i) {
      const iovec& part = parts[static_cast<std::size_t>(i)];
      text.append(static_cast<const char*>(part.iov_base), part.iov_len);
    }
    return text;
  }

  BlockPool pool;
  OutboundBuffer buffer;
};

TEST_CASE("an empty outbound buffer is one pointer and holds no memory") {
  Outbound o;
  CHECK(sizeof(OutboundBuffer) == sizeof(void*));
  CHECK(o.buffer.empty());
  CHECK(o.buffer.room() == 0);
  iovec part;
  CHECK(o.buffer.Gather(&part, 1) == 0);
  REQUIRE(o.buffer.Append({}, o.pool));
  CHECK(o.buffer.empty());
  REQUIRE(o.buffer.Append(Bytes("abc"), o.pool));
  CHECK_FALSE(o.buffer.empty());
  o.buffer.Consume(3, o.pool);
  CHECK(o.buffer.empty());
}

TEST_CASE("what is spliced comes behind, and the other is empty") {
  Outbound o;
  OutboundBuffer other;
  REQUIRE(o.buffer.Append(Bytes("one "), o.pool));
  REQUIRE(other.Append(Bytes("two "), o.pool));
  o.buffer.Splice(other, o.pool);
  CHECK(other.empty());
  REQUIRE(o.buffer.Append(Bytes("three"), o.pool));
  CHECK(o.Text() == "one two three");
  o.buffer.Splice(other, o.pool);
  CHECK(o.Text() == "one two three");
  other.Splice(o.buffer, o.pool);
  CHECK(o.buffer.empty());
  o.buffer.Splice(other, o.pool);
  CHECK(o.Text() == "one two three");
}

TEST_CASE("small pieces from two sides cost at most twice their bytes", "[R1]") {
  // A peer that does not read, while its own loop and another thread send to it in turn.
  Outbound o;
  OutboundBuffer other;
  std::size_t bytes = 0;
  for (int i = 0; i < 2000; ++i) {
    REQUIRE(other.Append(Bytes("from elsewhere, "), o.pool));
    o.buffer.Splice(other, o.pool);
    REQUIRE(o.buffer.Append(Bytes("from the loop; "), o.pool));
    bytes += 31;
  }
  std::vector<iovec> parts(10'000);
  const int chunks = o.buffer.Gather(parts.data(), static_cast<int>(parts.size()));
  CHECK(static_cast<std::size_t>(chunks) * OutboundBuffer::kBlockSize <=
        2 * (bytes + OutboundBuffer::kBlockSize));
  CHECK(o.Text().substr(0, 31) == "from elsewhere, from the loop; ");
}

TEST_CASE("gathering stops at the number of parts, more than IOV_MAX chunks are no matter") {
  Outbound o;
  const std::string large((IOV_MAX + 10) * OutboundBuffer::kBlockSize, 'x');
  REQUIRE(o.buffer.Append(Bytes(large), o.pool));
  std::array<iovec, 3> parts;
  REQUIRE(o.buffer.Gather(parts.data(), 3) == 3);
  std::size_t size = 0;
  for (const iovec& part : parts) size += part.iov_len;
  CHECK(size <= 3 * OutboundBuffer::kBlockSize);
  o.buffer.Consume(size, o.pool);
  CHECK(o.Text() == large.substr(size));
}

TEST_CASE("random operations agree with a queue of bytes", "[B4][B7]") {
  Outbound o;
  std::deque<char> model;
  std::mt19937_64 random(test::Seed());
  const auto below = [&](std::size_t n) { return static_cast<std::size_t>(random() % n); };
  char next = 0;
  bool good = true;
  const auto fresh = [&](std::size_t n) {
    std::string bytes(n, '\0');
    for (char& c : bytes) c = next++;
    return bytes;
  };
  for (int i = 0; i < 3'000 && good; ++i) {
    const std::size_t step = below(20) == 0 ? below(50'000) : below(3'000);
    switch (below(3)) {
      case 0: {
        const std::string bytes = fresh(step);
        good = o.buffer.Append(Bytes(bytes), o.pool);
        model.insert(model.end(), bytes.begin(), bytes.end());
        break;
      }
      case 1: {
        OutboundBuffer other;
        const std::string bytes = fresh(step);
        good = other.Append(Bytes(bytes), o.pool);
        o.buffer.Splice(other, o.pool);
        model.insert(model.end(), bytes.begin(), bytes.end());
        break;
      }
      case 2: {
        const std::size_t n = std::min(2 * step, model.size());
        o.buffer.Consume(n, o.pool);
        model.erase(model.begin(), model.begin() + static_cast<std::ptrdiff_t>(n));
        break;
      }
    }
    good = good && o.buffer.empty() == model.empty();
    if (i % 50 == 0) {
      const std::string text = o.Text();
      good = good && std::equal(text.begin(), text.end(), model.begin(), model.end());
    }
  }
  REQUIRE(good);
}

}  // namespace
}  // namespace xtcp::internal
