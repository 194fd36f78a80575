#include "buffer/ring_buffer.h"

#include <algorithm>
#include <catch2/catch.hpp>
#include <cstddef>
#include <deque>
#include <random>
#include <string>
#include <vector>

#include "support/random.h"

namespace xtcp::internal {
namespace {

constexpr std::size_t kFirst = 64;

std::vector<std::byte> Bytes(std::string_view text) {
  const auto* begin = reinterpret_cast<const std::byte*>(text.data());
  return {begin, begin + text.size()};
}

std::string Text(std::span<const std::byte> bytes) {
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

struct Ring {
  ~Ring() { ring.Clear(pool); }
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
  REQUIRE(r.ring.Append(Bytes("abc"), kFirst, r.pool));
  CHECK(r.ring.capacity() > 0);
  r.ring.Consume(3, r.pool);
  CHECK(r.ring.capacity() == 0);
}

TEST_CASE("what crosses the end of the ring is seen in one piece") {
  Ring r;
  REQUIRE(r.ring.Append(Bytes("x"), kFirst, r.pool));
  const std::size_t capacity = r.ring.capacity();
  const std::string filling(capacity - 1, 'f');
  REQUIRE(r.ring.Append(Bytes(filling), kFirst, r.pool));
  CHECK(r.ring.Free().empty());
  r.ring.Consume(capacity - 2, r.pool);
  REQUIRE(r.ring.Append(Bytes("0123456789"), kFirst, r.pool));
  CHECK(r.ring.capacity() == capacity);  // it wrapped; it did not grow
  CHECK(Text(r.ring.View()) == "ff0123456789");
  CHECK(Text(r.ring.View()) == "ff0123456789");
}

TEST_CASE("a ring buffer grows by doubling and shrinks when little is left", "[X1]") {
  Ring r;
  const std::string large(100'000, 'l');
  REQUIRE(r.ring.Append(Bytes(large), kFirst, r.pool));
  CHECK(r.ring.capacity() >= large.size());
  CHECK(r.ring.capacity() <= 2 * large.size());
  r.ring.Consume(large.size() - 10, r.pool);
  r.ring.Shrink(kFirst, r.pool);
  CHECK(r.ring.capacity() < 1000);
  CHECK(Text(r.ring.View()) == std::string(10, 'l'));
}

TEST_CASE("a size that cannot be had changes nothing", "[X4]") {
  Ring r;
  REQUIRE(r.ring.Append(Bytes("abc"), kFirst, r.pool));
  for (const std::size_t size :
       {~std::size_t{0}, ~std::size_t{0} / 2, ~std::size_t{0} / 4, std::size_t{1} << 60}) {
    CHECK_FALSE(r.ring.Reserve(size, kFirst, r.pool));
  }
  CHECK(Text(r.ring.View()) == "abc");
}

TEST_CASE("a million random operations agree with a queue of bytes", "[B7][X1]") {
  Ring r;
  std::deque<std::byte> model;
  std::mt19937_64 random(test::Seed());
  const auto below = [&](std::size_t n) { return static_cast<std::size_t>(random() % n); };
  std::vector<std::byte> bytes;
  unsigned char next = 0;
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
  constexpr int kOperations = 200'000;
#else
  constexpr int kOperations = 1'000'000;
#endif
  bool good = true;
  for (int i = 0; i < kOperations && good; ++i) {
    // Mostly small steps around a small size; now and then a large one.
    const std::size_t step = below(100) == 0 ? below(3000) : below(90);
    switch (below(4)) {
      case 0:
        bytes.resize(step);
        for (std::byte& b : bytes) b = std::byte{next++};
        good = r.ring.Append(bytes, kFirst, r.pool);
        model.insert(model.end(), bytes.begin(), bytes.end());
        break;
      case 1: {
        good = r.ring.Reserve(1, kFirst, r.pool);
        const std::span<std::byte> free = r.ring.Free();
        const std::size_t n = std::min(step, free.size());
        for (std::size_t k = 0; k < n; ++k) model.push_back(free[k] = std::byte{next++});
        r.ring.Commit(n);
        break;
      }
      case 2: {
        const std::size_t n = std::min(2 * step, model.size());
        r.ring.Consume(n, r.pool);
        model.erase(model.begin(), model.begin() + static_cast<std::ptrdiff_t>(n));
        break;
      }
      case 3:
        if (below(50) == 0) r.ring.Shrink(kFirst, r.pool);
        const std::span<const std::byte> view = r.ring.View();
        good = std::equal(view.begin(), view.end(), model.begin(), model.end());
        break;
    }
    good = good && r.ring.size() == model.size() && r.ring.empty() == model.empty();
    if (model.size() > 6000) {
      r.ring.Clear(r.pool);
      model.clear();
    }
  }
  REQUIRE(good);
}

}  // namespace
}  // namespace xtcp::internal
