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
  CHECK(AsText(out) == "abcabc");
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

// ---- Text.

TEST_CASE("text and bytes are views of the same memory", "[X4]") {
  const std::string text("a\0b", 3);
  const std::span<const std::byte> bytes = AsBytes(text);
  CHECK(static_cast<const void*>(bytes.data()) == text.data());
  CHECK(bytes.size() == 3);
  CHECK(AsText(bytes).data() == text.data());
  CHECK(AsText(bytes) == text);
  CHECK(AsText({}).empty());
  CHECK(AsBytes({}).empty());
}

TEST_CASE("a reader begins with whatever is text", "[X4]") {
  const std::string string = "abc";
  CHECK(Reader(string).Rest() == "abc");
  CHECK(Reader(std::string_view("abc")).Rest() == "abc");
  CHECK(Reader("abc").Rest() == "abc");
  CHECK(Reader(Bytes({'a', 'b', 'c'})).remaining() == 3);
}

// What one read gives and leaves. A failed one leaves everything, and fails all that follow.
template <typename T>
struct Read {
  std::string in;
  T value;
  std::string left;
  bool fails = false;
};

template <typename T, typename Call>
void CheckReads(const std::vector<Read<T>>& reads, const Call& call) {
  for (const Read<T>& read : reads) {
    INFO('"' << read.in << '"');
    Reader reader(read.in);
    CHECK(call(reader) == read.value);
    CHECK(reader.failed() == read.fails);
    CHECK(reader.done() == (!read.fails && read.left.empty()));
    CHECK(reader.remaining() == read.left.size());
    if (read.fails) {
      CHECK(reader.consumed() == 0);
      CHECK(reader.Rest().empty());
      CHECK(reader.Line().empty());
      CHECK(reader.Until("").empty());
      CHECK(reader.Word().empty());
      CHECK(reader.Number<int>() == 0);
      CHECK(reader.Number<unsigned>() == 0);
      CHECK_FALSE(reader.Skip(0));
      CHECK_FALSE(reader.Skip(""));
      CHECK(reader.consumed() == 0);
    } else {
      CHECK(reader.Rest() == read.left);
      CHECK(reader.done());
    }
  }
}

using Texts = std::vector<Read<std::string_view>>;

TEST_CASE("a reader reads a line", "[X4]") {
  const auto line = [](Reader& reader) { return reader.Line(); };
  CheckReads(Texts{{"abc\ndef", "abc", "def"},
                   {"abc\r\ndef", "abc", "def"},
                   {"abc\r\r\n", "abc\r", ""},  // one is cut
                   {"a\rb\n", "a\rb", ""},
                   {"\n\n", "", "\n"},
                   {"\r\n", "", ""},
                   {std::string("\0\n", 2), std::string_view("\0", 1), ""},
                   {"abc", "", "abc", true},
                   {"abc\r", "", "abc\r", true},
                   {"", "", "", true}},
             line);
}

TEST_CASE("a reader reads until a delimiter", "[X4]") {
  const auto until = [](Reader& reader) { return reader.Until("\r\n\r\n"); };
  CheckReads(Texts{{"head\r\n\r\nbody", "head", "body"},
                   {"\r\n\r\n", "", ""},
                   {"\r\r\n\r\n", "\r", ""},
                   {"head\r\n\r", "", "head\r\n\r", true},
                   {"", "", "", true}},
             until);
  CheckReads(Texts{{"key:value", "key", "value"}, {":", "", ""}, {"key", "", "key", true}},
             [](Reader& reader) { return reader.Until(':'); });
  CheckReads(Texts{{"abc", "", "abc"}, {"", "", ""}},
             [](Reader& reader) { return reader.Until(""); });
}

TEST_CASE("a reader reads words", "[X4]") {
  const auto word = [](Reader& reader) { return reader.Word(); };
  CheckReads(Texts{{"get key", "get", "key"},
                   {"  get   key ", "get", "key "},
                   {"get", "get", ""},
                   {"get  ", "get", ""},
                   {"a\tb c", "a\tb", "c"},
                   {"", "", "", true},
                   {"   ", "", "   ", true}},
             word);
  CheckReads(Texts{{"a,,b c", "a", "b c"}, {",", "", ",", true}},
             [](Reader& reader) { return reader.Word(','); });

  Reader reader(" set  key 7 ");
  std::vector<std::string_view> words;
  while (!reader.done()) words.push_back(reader.Word());
  CHECK(words == std::vector<std::string_view>{"set", "key", "7"});
}

TEST_CASE("a reader passes over bytes, and over a text that must be there", "[X4]") {
  const auto four = [](Reader& reader) { return reader.Skip(4); };
  CheckReads(
      std::vector<Read<bool>>{
          {"abcdef", true, "ef"}, {"abcd", true, ""}, {"abc", false, "abc", true}},
      four);
  const auto http = [](Reader& reader) { return reader.Skip("HTTP/"); };
  CheckReads(std::vector<Read<bool>>{{"HTTP/1.1", true, "1.1"},
                                     {"HTTP/", true, ""},
                                     {"HTTP", false, "HTTP", true},
                                     {"http/1.1", false, "http/1.1", true},
                                     {"", false, "", true}},
             http);
  Reader reader("abc");
  CHECK_FALSE(reader.Skip(kHuge));
}

// ---- Numbers.

TEST_CASE("a reader reads a number as far as it goes", "[X4]") {
  const auto number = [](Reader& reader) { return reader.Number<int>(); };
  CheckReads(std::vector<Read<int>>{{"12 34", 12, " 34"},
                                    {"-7\r\n", -7, "\r\n"},
                                    {"007", 7, ""},
                                    {"-0", 0, ""},
                                    {"0x10", 0, "x10"},
                                    {"1.5", 1, ".5"},
                                    {"2147483647", 2147483647, ""},
                                    {"-2147483648", -2147483647 - 1, ""},
                                    {"2147483648", 0, "2147483648", true},
                                    {"-2147483649", 0, "-2147483649", true},
                                    {"99999999999999999999", 0, "99999999999999999999", true},
                                    {"+1", 0, "+1", true},
                                    {" 1", 0, " 1", true},
                                    {"-", 0, "-", true},
                                    {"--1", 0, "--1", true},
                                    {"x", 0, "x", true},
                                    {"", 0, "", true}},
             number);
  CheckReads(
      std::vector<Read<std::uint64_t>>{
          {"18446744073709551615", std::numeric_limits<std::uint64_t>::max(), ""},
          {"18446744073709551616", 0, "18446744073709551616", true},
          {"-1", 0, "-1", true}},
      [](Reader& reader) { return reader.Number<std::uint64_t>(); });
  CheckReads(std::vector<Read<unsigned>>{{"fFg", 255, "g"}, {"100", 256, ""}},
             [](Reader& reader) { return reader.Number<unsigned>(16); });
  CheckReads(std::vector<Read<int>>{{"255", 0, "255", true}, {"-128", -128, ""}},
             [](Reader& reader) { return int{reader.Number<std::int8_t>()}; });
  for (const int base : {-1, 0, 1, 37}) {
    Reader reader("1");
    CHECK(reader.Number<int>(base) == 0);
    CHECK(reader.failed());
  }
}

// Writes into exactly the room that NumberSize says, and into one byte less.
template <typename T>
std::string Written(T value, int base = 10) {
  std::string out(NumberSize(value, base), '?');
  Writer writer(std::as_writable_bytes(std::span(out.data(), out.size())));
  CHECK(writer.Number(value, base));
  CHECK(writer.remaining() == 0);

  std::string less(out.size() - 1, '?');
  Writer small(std::as_writable_bytes(std::span(less.data(), less.size())));
  CHECK_FALSE(small.Number(value, base));
  CHECK(small.failed());
  CHECK(small.written() == 0);
  CHECK(less == std::string(less.size(), '?'));
  return out;
}

TEST_CASE("a writer writes numbers, all of one or nothing", "[X4]") {
  CHECK(Written(0) == "0");
  CHECK(Written(-1) == "-1");
  CHECK(Written(std::numeric_limits<std::int64_t>::min()) == "-9223372036854775808");
  CHECK(Written(std::numeric_limits<std::int64_t>::max()) == "9223372036854775807");
  CHECK(Written(std::numeric_limits<std::uint64_t>::max()) == "18446744073709551615");
  CHECK(Written(std::uint8_t{200}) == "200");
  CHECK(Written(std::int8_t{-128}) == "-128");
  CHECK(Written(kHuge, 16) == (sizeof kHuge == 8 ? "ffffffffffffffff" : "ffffffff"));
  CHECK(Written(std::numeric_limits<std::int64_t>::min(), 2) == "-1" + std::string(63, '0'));
  for (const int base : {-1, 0, 1, 37}) {
    std::byte room[8] = {};
    Writer writer(room);
    CHECK(NumberSize(1, base) == 0);
    CHECK_FALSE(writer.Number(1, base));
    CHECK_FALSE(writer.Number(1U, 10));
    CHECK(writer.written() == 0);
  }
}

TEST_CASE("what a writer writes as a number a reader reads, in every base", "[X4]") {
  test::Random random(4);
  for (int round = 0; round < 500; ++round) {
    const int base = static_cast<int>(random.Between(2, 36));
    const auto value = static_cast<std::int64_t>(random.Next() >> random.Between(0, 63));
    const std::string text = Written(value, base);
    Reader reader(text);
    CHECK(reader.Number<std::int64_t>(base) == value);
    CHECK(reader.done());
  }
}

}  // namespace
}  // namespace xtcp
