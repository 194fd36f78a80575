#include <xtcp/error.h>
#include <xtcp/protocols.h>
#include <xtcp/testing/check_protocol.h>

#include <catch2/catch.hpp>
#include <cstdint>
#include <limits>
#include <memory>
#include <stdexcept>
#include <string>
#include <string_view>
#include <system_error>
#include <vector>

namespace xtcp {
namespace {

using namespace std::string_literals;

const std::error_code kTooLong = std::make_error_code(std::errc::message_size);
const std::error_code kBad = std::make_error_code(std::errc::bad_message);
const std::error_code kInvalid = std::make_error_code(std::errc::invalid_argument);

class Foreign : public Packet {};

std::string TextOf(const UnpackResult& result) {
  REQUIRE(result.packet != nullptr);
  return std::string(static_cast<const BytesPacket&>(*result.packet).text());
}

UnpackResult Unpack(const Protocol& protocol, std::string_view in) {
  return protocol.Unpack(AsBytes(in));
}

bool IsPacket(const UnpackResult& result, std::string_view text, std::size_t size) {
  return TextOf(result) == text && result.size == size && !result.error;
}

// Wants more bytes, `need` of them in all.
bool Needs(const UnpackResult& result, std::size_t need) {
  return result.packet == nullptr && result.size == 0 && !result.error && result.need == need;
}

bool IsError(const UnpackResult& result, std::size_t size, std::error_code error) {
  return result.packet == nullptr && result.size == size && result.error == error;
}

// What a packet is packed to, and what hinders it.
struct Packed {
  std::string text;
  std::error_code error;
};

Packed Pack(const Protocol& protocol, const Packet& packet) {
  std::vector<std::byte> out;
  const std::error_code error = protocol.Pack(packet, &out);
  CHECK((protocol.PackSize(packet) == out.size()));
  return {std::string(AsText(out)), error};
}

Packed Pack(const Protocol& protocol, std::string_view text) {
  return Pack(protocol, BytesPacket(text));
}

bool SameBytes(const Packet& a, const Packet& b) {
  return static_cast<const BytesPacket&>(a).text() == static_cast<const BytesPacket&>(b).text();
}

std::vector<std::string> Violations(const Protocol& protocol,
                                    const std::vector<std::string>& samples,
                                    Samples kind = Samples::kWholePackets) {
  return CheckProtocol(protocol, samples, SameBytes, kind);
}

using None = std::vector<std::string>;

TEST_CASE("a packet of bytes is a view", "[M66]") {
  const std::string text = "text";
  const BytesPacket packet(text);
  CHECK(packet.text().data() == text.data());
  CHECK(packet.text() == text);
  CHECK(AsText(packet.bytes()) == text);
  CHECK(packet.ToString() == "packet of 4 bytes");
  CHECK(BytesPacket(AsBytes(text)).text().data() == text.data());
}

// ---- RawProtocol.

TEST_CASE("RawProtocol takes what there is, and packs it as it is", "[M66]") {
  const RawProtocol protocol;
  const std::string in("a\0\n", 3);
  CHECK(IsPacket(Unpack(protocol, in), in, 3));
  CHECK(Pack(protocol, in).text == in);
  CHECK(Pack(protocol, "").error == Errc::kBadPacket);
  CHECK(Pack(protocol, Foreign()).error == Errc::kBadPacket);
  CHECK(Violations(protocol, {"x", "hello\nworld", std::string(1000, '\0')}, Samples::kParts) ==
        None{});
}

// ---- LineProtocol.

TEST_CASE("LineProtocol cuts the end of a line", "[M66]") {
  const LineProtocol protocol;
  CHECK(IsPacket(Unpack(protocol, "abc\ndef\n"), "abc", 4));
  CHECK(IsPacket(Unpack(protocol, "abc\r\n"), "abc", 5));
  CHECK(IsPacket(Unpack(protocol, "abc\r\r\n"), "abc\r", 6));
  CHECK(IsPacket(Unpack(protocol, "a\rb\n"), "a\rb", 4));
  CHECK(IsPacket(Unpack(protocol, "\n\n"), "", 1));
  CHECK(IsPacket(Unpack(protocol, "\r\n"), "", 2));
  CHECK(IsPacket(Unpack(protocol, "a\0b\n"s), "a\0b"s, 4));
  for (const char* part : {"a", "\r", "abc\r", "a b c"}) CHECK(Needs(Unpack(protocol, part), 0));
}

TEST_CASE("LineProtocol ends with a line that is too long, however it is cut", "[M66]") {
  const LineProtocol protocol(4);
  CHECK(IsPacket(Unpack(protocol, "1234\n"), "1234", 5));
  CHECK(IsPacket(Unpack(protocol, "1234\r\nx"), "1234", 6));
  CHECK(Needs(Unpack(protocol, "1234"), 0));
  CHECK(Needs(Unpack(protocol, "1234\r"), 0));
  for (const char* in : {"12345", "12345\n", "12345\r", "12345\r\n", "1234\r\r", "1234\rx",
                         "1234\r\r\n", "123456789\n1\n"}) {
    INFO(in);
    CHECK(IsError(Unpack(protocol, in), 0, kTooLong));
  }
  CHECK(CheckProtocol(protocol, {"12345\n"}, SameBytes, Samples::kAnyBytes) == None{});
  CHECK(CheckProtocol(protocol, {"1\n1234\r\n1234\r\r\n"}, SameBytes, Samples::kAnyBytes) ==
        None{});

  const LineProtocol nothing(0);
  CHECK(IsPacket(Unpack(nothing, "\r\n"), "", 2));
  CHECK(Needs(Unpack(nothing, "\r"), 0));
  CHECK(IsError(Unpack(nothing, "x"), 0, kTooLong));
  const LineProtocol all(std::numeric_limits<std::size_t>::max());
  CHECK(IsPacket(Unpack(all, "abc\r\n"), "abc", 5));
  CHECK(Needs(Unpack(all, "abc"), 0));
  CHECK(Needs(Unpack(LineProtocol(), std::string(64 << 10, 'x')), 0));
  CHECK(IsError(Unpack(LineProtocol(), std::string((64 << 10) + 1, 'x')), 0, kTooLong));
}

TEST_CASE("LineProtocol packs what arrives as the same", "[M66]") {
  const LineProtocol lf(4);
  CHECK(Pack(lf, "abc").text == "abc\n");
  CHECK(Pack(lf, "").text == "\n");
  CHECK(Pack(lf, "a\rb").text == "a\rb\n");
  CHECK(Pack(lf, "12345").error == kTooLong);
  CHECK(Pack(lf, "a\nb").error == kInvalid);
  CHECK(Pack(lf, "abc\r").error == kInvalid);
  CHECK(Pack(lf, Foreign()).error == Errc::kBadPacket);

  const LineProtocol crlf(4, "\r\n");
  CHECK(Pack(crlf, "abc").text == "abc\r\n");
  CHECK(Pack(crlf, "abc\r").text == "abc\r\r\n");
  CHECK(Pack(crlf, "a\nb").error == kInvalid);

  for (const char* end : {"", "\r", "\n\r", "\n\n", ";"}) {
    CHECK_THROWS_AS(LineProtocol(1, end), std::invalid_argument);
  }
}

TEST_CASE("LineProtocol keeps the rules of Unpack", "[M66]") {
  const std::vector<std::string> samples{
      "abc\n",  "\n",     "abc\r\n",     "\r\n",
      "a\rb\n", "\r\r\n", "a\nb\n\nc\n", std::string(3000, 'x') + "\n"};
  CHECK(Violations(LineProtocol(), samples) == None{});
  CHECK(Violations(LineProtocol(4096, "\r\n"), samples) == None{});
}

// ---- LengthPrefixProtocol.

TEST_CASE("LengthPrefixProtocol takes a frame of four bytes and the rest", "[M58][M66]") {
  const LengthPrefixProtocol protocol;
  CHECK(IsPacket(Unpack(protocol, "\0\0\0\3abcx"s), "abc", 7));
  CHECK(IsPacket(Unpack(protocol, "\0\0\0\0"s), "", 4));
  CHECK(Needs(Unpack(protocol, "\0"s), 4));
  CHECK(Needs(Unpack(protocol, "\0\0\0"s), 4));
  CHECK(Needs(Unpack(protocol, "\0\0\0\3"s), 7));
  CHECK(Needs(Unpack(protocol, "\0\0\0\3ab"s), 7));
  if constexpr (sizeof(std::size_t) == 8) {
    CHECK(Needs(Unpack(protocol, "\xff\xff\xff\xff"), std::size_t{0xffffffff} + 4));
  }
  CHECK(Pack(protocol, "abc").text == "\0\0\0\3abc"s);
  CHECK(Pack(protocol, "").text == "\0\0\0\0"s);
  CHECK(Pack(protocol, Foreign()).error == Errc::kBadPacket);
}

TEST_CASE("the length of a frame can be written in many ways", "[M66]") {
  struct Way {
    LengthPrefix prefix;
    std::string frame;
    std::string packet;
  };
  const std::vector<Way> ways{
      {{.bytes = 1}, "\3abc", "abc"},
      {{.bytes = 2}, "\0\3abc"s, "abc"},
      {{.bytes = 3}, "\0\0\3abc"s, "abc"},
      {{.bytes = 8}, "\0\0\0\0\0\0\0\3abc"s, "abc"},
      {{.bytes = 2, .big_endian = false}, "\3\0abc"s, "abc"},
      {{.bytes = 3, .big_endian = false}, "\3\0\0abc"s, "abc"},
      {{.bytes = 2, .add = -2}, "\0\5abc"s, "abc"},                 // inclusive
      {{.bytes = 1, .offset = 2, .add = -3}, "\0\0\6abc"s, "abc"},  // inclusive
      {{.bytes = 1, .add = 1}, "\2abc", "abc"},                     // a type that is not counted
      {{.bytes = 1, .offset = 1}, "\0\3abc"s, "abc"},
      {{.bytes = 1, .offset = 1, .strip = 0}, "T\3abc", "T\3abc"},
      {{.bytes = 1, .offset = 1, .strip = 1}, "\0\3abc"s, "\3abc"},
      {{.bytes = 1, .strip = 2}, "\4\0abc"s, "abc"},  // a byte behind the length goes too
  };
  for (const Way& way : ways) {
    INFO("way " << &way - ways.data());
    const LengthPrefixProtocol protocol(way.prefix);
    CHECK(IsPacket(Unpack(protocol, way.frame + "x"), way.packet, way.frame.size()));
    CHECK(Pack(protocol, way.packet).text == way.frame);
    CHECK(Violations(protocol, {way.frame, way.frame + way.frame}) == None{});
  }
  // The length that is a part of the packet is put right.
  CHECK(Pack(LengthPrefixProtocol({.bytes = 1, .offset = 1, .strip = 0}), "T?abc").text ==
        "T\3abc");
}

TEST_CASE("a length that lies is an error", "[M66]") {
  const LengthPrefixProtocol inclusive({.bytes = 2, .add = -2});
  CHECK(IsError(Unpack(inclusive, "\0\1abc"s), 0, kBad));
  CHECK(IsError(Unpack(inclusive, "\0\0"s), 0, kBad));
  CHECK(IsPacket(Unpack(inclusive, "\0\2"s), "", 2));

  const LengthPrefixProtocol strips({.bytes = 1, .strip = 3});
  CHECK(Needs(Unpack(strips, "\1"), 2));
  CHECK(IsError(Unpack(strips, "\1xyz"), 2, kBad));
  CHECK(IsPacket(Unpack(strips, "\2xyz"), "", 3));
}

TEST_CASE("no length overflows", "[M58][M66]") {
  constexpr std::size_t kMost = std::numeric_limits<std::size_t>::max();
  constexpr std::int64_t kMostAdd = std::numeric_limits<std::int64_t>::max();
  constexpr std::int64_t kLeastAdd = std::numeric_limits<std::int64_t>::min();
  const std::string ones(8, '\xff');
  for (const std::int64_t add : {std::int64_t{0}, std::int64_t{1}, std::int64_t{-1}, kMostAdd}) {
    const LengthPrefixProtocol protocol({.bytes = 8, .add = add});
    CHECK(Needs(Unpack(protocol, ones), kMost));
  }
  const LengthPrefixProtocol down({.bytes = 8, .add = kLeastAdd});
  CHECK(IsError(Unpack(down, "\x7f" + ones.substr(1)), 0, kBad));
  CHECK(IsPacket(Unpack(down, "\x80"s + std::string(7, '\0')), "", 8));
  CHECK(Pack(down, "").text == "\x80"s + std::string(7, '\0'));

  // What the field cannot hold is refused.
  CHECK(Pack(LengthPrefixProtocol({.bytes = 1}), std::string(255, 'x')).text.size() == 256);
  CHECK(Pack(LengthPrefixProtocol({.bytes = 1}), std::string(256, 'x')).error == kTooLong);
  CHECK(Pack(LengthPrefixProtocol({.bytes = 1, .add = -1}), std::string(255, 'x')).error ==
        kTooLong);
  CHECK(Pack(LengthPrefixProtocol({.bytes = 1, .add = 4}), "abc").error == kTooLong);
  CHECK(Pack(LengthPrefixProtocol({.bytes = 1, .add = 4}), "abcd").text == "\0abcd"s);
  CHECK(Pack(LengthPrefixProtocol({.strip = 0}), "abc").error == kTooLong);  // it has no length
}

TEST_CASE("an impossible length field throws", "[M66]") {
  const std::vector<LengthPrefix> bad{
      {.bytes = 0}, {.bytes = 9}, {.offset = (64 << 10) + 1}, {.strip = (64 << 10) + 1}};
  for (const LengthPrefix& prefix : bad) {
    CHECK_THROWS_AS(LengthPrefixProtocol(prefix), std::invalid_argument);
  }
  CHECK_NOTHROW(LengthPrefixProtocol({.offset = 64 << 10, .strip = 64 << 10}));
}

TEST_CASE("LengthPrefixProtocol keeps the rules of Unpack", "[M58][M66]") {
  const std::vector<std::string> samples{"\0\0\0\3abc"s, "\0\0\0\0"s, "\0\0\0\1x\0\0\0\2yz"s,
                                         "\0\0\3\xe8"s + std::string(1000, 'x')};
  CHECK(Violations(LengthPrefixProtocol(), samples) == None{});
  CHECK(CheckProtocol(LengthPrefixProtocol({.bytes = 1, .strip = 3}), {"\1a\2bc\0"s}, SameBytes,
                      Samples::kAnyBytes) == None{});
}

}  // namespace
}  // namespace xtcp
