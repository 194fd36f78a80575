#include <xtcp/bytes.h>

#include <array>
#include <catch2/catch.hpp>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <limits>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "support/random.h"

namespace xtcp {
namespace {

constexpr std::size_t kHuge = std::numeric_limits<std::size_t>::max();

std::vector<std::byte> Bytes(std::initializer_list<int> values) {
  std::vector<std::byte> bytes;
  for (const int value : values) bytes.push_back(static_cast<std::byte>(value));
  return bytes;
}

std::string_view Text(std::span<const std::byte> bytes) {
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

// Each way to write, with what must stand there then; and each way to read that back.
struct Way {
  const char* name;
  std::function<bool(Writer&)> write;
  std::vector<std::byte> bytes;
  std::function<std::uint64_t(Reader&)> read;
  std::uint64_t value;
};

std::vector<Way> Ways() {
  return {
      {"U8", [](Writer& w) { return w.U8(0xfe); }, Bytes({0xfe}), [](Reader& r) { return r.U8(); },
       0xfe},
      {"U16Be", [](Writer& w) { return w.U16Be(0xf123); }, Bytes({0xf1, 0x23}),
       [](Reader& r) { return r.U16Be(); }, 0xf123},
      {"U32Be", [](Writer& w) { return w.U32Be(0xf1234567); }, Bytes({0xf1, 0x23, 0x45, 0x67}),
       [](Reader& r) { return r.U32Be(); }, 0xf1234567},
      {"U64Be", [](Writer& w) { return w.U64Be(0xf123456789abcdef); },
       Bytes({0xf1, 0x23, 0x45, 0x67, 0x89, 0xab, 0xcd, 0xef}), [](Reader& r) { return r.U64Be(); },
       0xf123456789abcdef},
      {"U16Le", [](Writer& w) { return w.U16Le(0xf123); }, Bytes({0x23, 0xf1}),
       [](Reader& r) { return r.U16Le(); }, 0xf123},
      {"U32Le", [](Writer& w) { return w.U32Le(0xf1234567); }, Bytes({0x67, 0x45, 0x23, 0xf1}),
       [](Reader& r) { return r.U32Le(); }, 0xf1234567},
      {"U64Le", [](Writer& w) { return w.U64Le(0xf123456789abcdef); },
       Bytes({0xef, 0xcd, 0xab, 0x89, 0x67, 0x45, 0x23, 0xf1}), [](Reader& r) { return r.U64Le(); },
       0xf123456789abcdef},
      {"text", [](Writer& w) { return w.Write("abc"); }, Bytes({'a', 'b', 'c'}),
       [](Reader& r) { return r.Text(3) == "abc" ? 1 : 0; }, 1},
      {"bytes",
       [](Writer& w) {
         return w.Write(Bytes({0, 255, 7}));
       },
       Bytes({0, 255, 7}),
       [](Reader& r) {
         const auto view = r.Bytes(3);
         return std::vector(view.begin(), view.end()) == Bytes({0, 255, 7}) ? 1 : 0;
       },
       1},
  };
}

TEST_CASE("a writer writes the whole value where it fits, at any offset", "[X4]") {
  for (const Way& way : Ways()) {
    INFO(way.name);
    for (std::size_t before = 0; before < 9; ++before) {
      for (std::size_t after = 0; after < 3; ++after) {
        std::vector<std::byte> out(before + way.bytes.size() + after, std::byte{0x55});
        Writer writer(out);
        REQUIRE(writer.Claim(before).size() == before);
        REQUIRE(way.write(writer));
        CHECK_FALSE(writer.failed());
        CHECK(writer.written() == before + way.bytes.size());
        CHECK(writer.remaining() == after);
        std::vector<std::byte> expected(out.size(), std::byte{0x55});
        std::copy(way.bytes.begin(), way.bytes.end(),
                  expected.begin() + static_cast<std::ptrdiff_t>(before));
        CHECK(out == expected);
      }
    }
  }
}

TEST_CASE("a write that does not fit writes nothing, and so do all later ones", "[X4]") {
  for (const Way& way : Ways()) {
    INFO(way.name);
    for (std::size_t room = 0; room < way.bytes.size(); ++room) {
      std::vector<std::byte> out(room + 1, std::byte{0x55});
      Writer writer(out);
      REQUIRE(writer.U8(0x11));
      REQUIRE_FALSE(way.write(writer));
      CHECK(writer.failed());
      CHECK(writer.written() == 1);
      CHECK(writer.remaining() == room);

      // Also what would fit, and nothing at all.
      CHECK_FALSE(writer.U8(0x22));
      CHECK_FALSE(writer.Write(std::string_view{}));
      CHECK_FALSE(writer.Write(std::span<const std::byte>{}));
      CHECK(writer.Claim(1).empty());
      CHECK(writer.Claim(0).empty());
      CHECK(writer.failed());
      CHECK(writer.written() == 1);

      std::vector<std::byte> expected(room + 1, std::byte{0x55});
      expected[0] = std::byte{0x11};
      CHECK(out == expected);
    }
  }
}

TEST_CASE("a writer without room takes nothing but nothing", "[X4]") {
  Writer writer({});
  CHECK(writer.Write(std::string_view{}));
  CHECK(writer.Write(std::span<const std::byte>{}));
  CHECK(writer.Claim(0).empty());
  CHECK_FALSE(writer.failed());
  CHECK_FALSE(writer.U8(1));
  CHECK(writer.failed());
  CHECK(writer.written() == 0);
  CHECK(writer.remaining() == 0);
}

TEST_CASE("claimed bytes lie in the span, count as written, and are the caller's", "[X4]") {
  std::array<std::byte, 8> out{};
  Writer writer(out);
  REQUIRE(writer.U8(1));
  const std::span<std::byte> claimed = writer.Claim(3);
  REQUIRE(claimed.size() == 3);
  CHECK(claimed.data() == out.data() + 1);
  CHECK(writer.written() == 4);
  claimed[2] = std::byte{9};
  REQUIRE(writer.Claim(4).size() == 4);
  CHECK(out[3] == std::byte{9});
  CHECK(writer.remaining() == 0);
  CHECK(writer.Claim(0).empty());
  CHECK_FALSE(writer.failed());
}

TEST_CASE("a writer refuses sizes whose sum would overflow", "[X4]") {
  for (const std::size_t n : {kHuge, kHuge - 1, kHuge - 4, kHuge / 2, std::size_t{5}}) {
    std::array<std::byte, 8> out{};
    Writer writer(out);
    REQUIRE(writer.U32Be(1));
    CHECK(writer.Claim(n).empty());
    CHECK(writer.failed());
    CHECK(writer.written() == 4);
  }
}

TEST_CASE("a writer may copy from what it has written", "[X4]") {
  std::array<std::byte, 6> out{};
  Writer writer(out);
  REQUIRE(writer.Write("abc"));
  REQUIRE(writer.Write(std::span<const std::byte>(out).first(3)));
  CHECK(Text(out) == "abcabc");
}

TEST_CASE("a reader gives the whole value where it is all there, at any offset", "[X4]") {
  for (const Way& way : Ways()) {
    INFO(way.name);
    for (std::size_t before = 0; before < 9; ++before) {
      for (std::size_t after = 0; after < 3; ++after) {
        std::vector<std::byte> in(before, std::byte{0x55});
        in.insert(in.end(), way.bytes.begin(), way.bytes.end());
        in.insert(in.end(), after, std::byte{0x66});
        Reader reader(in);
        REQUIRE(reader.Bytes(before).size() == before);
        CHECK(way.read(reader) == way.value);
        CHECK_FALSE(reader.failed());
        CHECK(reader.consumed() == before + way.bytes.size());
        CHECK(reader.remaining() == after);
      }
    }
  }
}

TEST_CASE("a read past the end gives nothing, and so do all later ones", "[X4]") {
  for (const Way& way : Ways()) {
    INFO(way.name);
    for (std::size_t present = 0; present < way.bytes.size(); ++present) {
      const std::vector<std::byte> in(present + 1, std::byte{0x55});
      Reader reader(in);
      REQUIRE(reader.U8() == 0x55);
      CHECK(way.read(reader) == 0);
      CHECK(reader.failed());
      CHECK(reader.consumed() == 1);
      CHECK(reader.remaining() == present);

      // Also what would be there, and nothing at all.
      CHECK(reader.U8() == 0);
      CHECK(reader.U16Le() == 0);
      CHECK(reader.Bytes(1).empty());
      CHECK(reader.Text(1).empty());
      CHECK(reader.Bytes(0).empty());
      CHECK(reader.failed());
      CHECK(reader.consumed() == 1);
    }
  }
}

TEST_CASE("a reader of nothing reads nothing", "[X4]") {
  Reader reader({});
  CHECK(reader.Bytes(0).empty());
  CHECK(reader.Text(0).empty());
  CHECK_FALSE(reader.failed());
  CHECK(reader.U8() == 0);
  CHECK(reader.failed());
  CHECK(reader.remaining() == 0);
}

TEST_CASE("a reader refuses sizes whose sum would overflow", "[X4]") {
  for (const std::size_t n : {kHuge, kHuge - 1, kHuge - 4, kHuge / 2, std::size_t{5}}) {
    const std::array<std::byte, 8> in{};
    for (const bool text : {false, true}) {
      Reader reader(in);
      REQUIRE(reader.U32Be() == 0);
      CHECK((text ? reader.Text(n).empty() : reader.Bytes(n).empty()));
      CHECK(reader.failed());
      CHECK(reader.consumed() == 4);
    }
  }
}

TEST_CASE("a reader's views point into the span", "[X4]") {
  const std::string in = "header and text";
  Reader reader(std::as_bytes(std::span(in.data(), in.size())));
  CHECK(static_cast<const void*>(reader.Bytes(7).data()) == in.data());
  const std::string_view text = reader.Text(8);
  CHECK(text == "and text");
  CHECK(text.data() == in.data() + 7);
}

TEST_CASE("what a writer writes a reader reads", "[X4]") {
  test::Random random(3);
  for (int round = 0; round < 200; ++round) {
    std::vector<std::byte> buffer(64);
    const auto a = static_cast<std::uint8_t>(random.Next());
    const auto b = static_cast<std::uint16_t>(random.Next());
    const auto c = static_cast<std::uint32_t>(random.Next());
    const std::uint64_t d = random.Next();
    const std::string text = random.Bytes(random.Between(0, 20));
    Writer writer(buffer);
    writer.U8(a);
    writer.U16Be(b);
    writer.U32Le(c);
    writer.Write(text);
    writer.U64Be(d);
    writer.U16Le(b);
    writer.U32Be(c);
    writer.U64Le(d);
    REQUIRE_FALSE(writer.failed());

    Reader reader(std::span<const std::byte>(buffer).first(writer.written()));
    REQUIRE(reader.U8() == a);
    REQUIRE(reader.U16Be() == b);
    REQUIRE(reader.U32Le() == c);
    REQUIRE(reader.Text(text.size()) == text);
    REQUIRE(reader.U64Be() == d);
    REQUIRE(reader.U16Le() == b);
    REQUIRE(reader.U32Be() == c);
    REQUIRE(reader.U64Le() == d);
    REQUIRE(reader.remaining() == 0);
    REQUIRE_FALSE(reader.failed());
  }
}

}  // namespace
}  // namespace xtcp
