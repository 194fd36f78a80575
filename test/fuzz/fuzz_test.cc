// Each target, fed with inputs that begin as those below and are changed at random. XTCP_FUZZ_RUNS is
// how many for each; `make fuzz` takes more.

#include <algorithm>
#include <catch2/catch.hpp>
#include <cstdio>
#include <cstdlib>
#include <string>
#include <string_view>
#include <vector>

#include "fuzz/targets.h"
#include "support/random.h"
#include "support/test_protocol.h"

namespace xtcp::test {
namespace {

using namespace std::string_literals;

std::size_t Runs(std::size_t unless_set) {
  const char* const text = std::getenv("XTCP_FUZZ_RUNS");
  return text == nullptr ? unless_set : std::strtoull(text, nullptr, 10);
}

// One input made of another one: bytes change, go, come twice, or come from a second input.
std::string Mutate(std::string text, const std::vector<std::string>& seeds, Random& random) {
  constexpr std::size_t kLongest = 4096;
  for (std::uint64_t changes = random.Between(1, 8); changes > 0; --changes) {
    const std::size_t at = random.Between(0, text.size());
    const std::size_t n = std::min(random.Between(1, 8), text.size() - at);
    switch (random.Between(0, 5)) {
      case 0:
        if (at < text.size()) text[at] = static_cast<char>(random.Next());
        break;
      case 1:
        if (at < text.size()) text[at] = static_cast<char>(text[at] ^ (1 << random.Between(0, 7)));
        break;
      case 2:
        text.erase(at, n);
        break;
      case 3:
        text.insert(at, text.substr(random.Between(0, text.size()), 16));
        break;
      case 4: {
        const std::string& other = seeds[random.Between(0, seeds.size() - 1)];
        const std::size_t from = random.Between(0, other.size());
        text.insert(at, other.substr(from, random.Between(1, 64)));
        break;
      }
      case 5:
        for (std::size_t i = at; i < at + n; ++i) {
          text[i] = "\x00\x01\x7f\x80\xff\xe0\xe1\xe2"[random.Between(0, 7)];
        }
        break;
    }
  }
  return text.substr(0, kLongest);
}

std::string_view current;

void Feed(void (*target)(FuzzInput), std::string_view input) {
  current = input;
  target({reinterpret_cast<const std::uint8_t*>(input.data()), input.size()});
}

void Fuzz(void (*target)(FuzzInput), const std::vector<std::string>& seeds, std::size_t runs) {
  for (const std::string& seed : seeds) Feed(target, seed);
  Random random(Seed());
  std::vector<std::string> pool = seeds;
  for (std::size_t run = Runs(runs); run > 0; --run) {
    std::string input = Mutate(pool[random.Between(0, pool.size() - 1)], seeds, random);
    Feed(target, input);
    // Some live on, so that changes add up.
    if (random.OneIn(4)) {
      if (pool.size() < 500) {
        pool.push_back(std::move(input));
      } else {
        pool[random.Between(seeds.size(), pool.size() - 1)] = std::move(input);
      }
    }
  }
  SUCCEED("no input has ended the program");
}

TEST_CASE("fuzz: bytes and how they are cut", "[M1][M2][X1][X6][F6][B1][E4][seen-29]") {
  // Limits, reset, scripts of the reads and of the writes, then the stream.
  const std::vector<std::string> heads = {"\x80\0\0\0"s,
                                          "\x80\0\x01\x01\0"s,
                                          "\x80\x01\x02\x05\x03\x01\x07"s,
                                          "\x13\0\x03\x01\0\x02\x01\x01"s,
                                          "\xf0\0\0\x02\0\x01"s,
                                          "\x41\x01\x01\x40\0"s};
  std::vector<std::string> seeds;
  for (const std::string& head : heads) {
    seeds.push_back(head + Frame("") + Frame("a") + Frame("longer than the others"));
    seeds.push_back(head + Frame("a") + MarkedFrame(Marker::kSkip, "skipped") + Frame("b"));
    seeds.push_back(head + MarkedFrame(Marker::kBad, "bad") + Frame("b") + "\0\0\0"s);
    for (int marker = 0xe2; marker <= 0xeb; ++marker) {
      seeds.push_back(head + Frame("x") + MarkedFrame(static_cast<Marker>(marker), "yz") +
                      Frame("b"));
    }
    seeds.push_back(head + Header(600) + std::string(600, 'z') + Frame("b"));
  }
  Fuzz(FuzzFrame, seeds, 5'000);
}

TEST_CASE("fuzz: addresses", "[X3][X4][M35][seen-29]") {
  Fuzz(FuzzAddr,
       {"127.0.0.1:80",
        ":0",
        ":65535",
        "0.0.0.0:1",
        "[::1]:443",
        "[::]:0",
        "[fe80::1%lo]:5",
        "localhost:1",
        "[::ffff:1.2.3.4]:9",
        "unix:/run/x.sock",
        "unix:@name",
        "unix:",
        "unix:@",
        "1.2.3:4",
        "0x7f.1:80",
        "[::1]:",
        "host:99999",
        "a.b-c.d:00080",
        "[1::2::3]:4",
        "unix:/" + std::string(120, 'p'),
        "127.0.0.1:80\0x"s,
        "256.1.1.1:1",
        " 127.0.0.1:80",
        "127.0.0.1:+80"},
       5'000);
}

TEST_CASE("fuzz: the buffers beside plain strings", "[B4][B7][X1][X4][seen-29]") {
  Fuzz(FuzzBuffers,
       {"\x80\x10\0\x82\0\x10\x80\0\xff"s, "\0\x40\0\x04\0\x10\x03\0\0\x02\x20\0"s,
        "\x81\xff\xff\x81\xff\xff\x82\x70\0\x84\0\x01\x81\x01\0"s,
        "\0\x3f\xe8\0\0\x10\x02\x3f\xe8"s, "\x04\0\x05\0\0\x07\x07\0\0\x06\0\x05"s},
       2'000);
}

TEST_CASE("fuzz: what a Writer takes a Reader gives back", "[X4][seen-29]") {
  Fuzz(FuzzBytes,
       {"\x40\x00\x01\x01\x02\x03\x02\x04\x05\x03\x06\x07\x08\x09"s,
        "\x10\x05\1\2\3\4\5\6\7\x08\x06\1\2\3\4\5\6\7\x08"s, "\x05\x07\x03xyz\x07\x02xy\x07\0"s,
        "\0\x00\x01"s, "\xff\x07\x27"s + std::string(39, 'q')},
       10'000);
}

}  // namespace

void FuzzFailed(const char* file, int line, const char* condition) {
  std::fprintf(stderr, "%s:%d: fuzzing: %s\ninput:", file, line, condition);
  for (const char c : current) std::fprintf(stderr, " %02x", static_cast<unsigned char>(c));
  std::fputs("\n", stderr);
  std::abort();
}

}  // namespace xtcp::test
