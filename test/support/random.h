#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <random>
#include <string>

namespace xtcp::test {

// The seed of this run: XTCP_SEED, or one drawn at random. The leak guard prints it when a test
// fails, as a line that replays the test.
inline std::uint64_t Seed() {
  static const std::uint64_t seed = [] {
    if (const char* text = std::getenv("XTCP_SEED")) {
      return static_cast<std::uint64_t>(std::strtoull(text, nullptr, 10));
    }
    return std::uint64_t{std::random_device{}()};
  }();
  return seed;
}

// splitmix64: neighbouring inputs give unrelated outputs, so a counter makes a generator.
inline std::uint64_t Mix(std::uint64_t x) noexcept {
  x += 0x9e3779b97f4a7c15u;
  x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
  x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
  return x ^ (x >> 31);
}

// Takes the processor for some hundred microseconds per 100,000: to shift what threads do against each
// other. On a busy machine a yield or a sleep would take much longer.
inline void KeepBusy(std::size_t count) noexcept {
  for (std::size_t i = 0; i < count; ++i) asm volatile("");
}

// Numbers that a seed decides. `stream` tells generators of one run apart.
class Random {
 public:
  explicit Random(std::uint64_t stream = 0) : state_(Mix(Seed()) ^ Mix(stream)) {}

  std::uint64_t Next() noexcept { return Mix(state_++); }

  // From `low` to `high`, both included.
  std::size_t Between(std::size_t low, std::size_t high) noexcept {
    return low + static_cast<std::size_t>(Next() % (high - low + 1));
  }

  bool OneIn(std::size_t n) noexcept { return Next() % n == 0; }

  std::string Bytes(std::size_t size) {
    std::string bytes(size, '\0');
    for (std::size_t i = 0; i < size; i += sizeof(std::uint64_t)) {
      const std::uint64_t bits = Next();
      std::memcpy(&bytes[i], &bits, std::min(size - i, sizeof bits));
    }
    return bytes;
  }

 private:
  std::uint64_t state_;
};

}  // namespace xtcp::test
