#include <xtcp/bytes.h>
#include <xtcp/testing/check_protocol.h>

#include <algorithm>
#include <atomic>
#include <catch2/catch.hpp>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <system_error>
#include <vector>

#include "support/test_protocol.h"

namespace xtcp::test {
namespace {

using namespace std::string_literals;

// A protocol that is right: a byte that says how many follow, then those. What is planted replaces
// a part of it.
struct Planted : Protocol {
  using Unpacker = std::function<UnpackResult(std::span<const std::byte>)>;

  Unpacker unpack = Right;
  std::size_t size_off = 0;     // by how much PackSize is too large
  std::uint8_t length_off = 0;  // and the length that PackTo writes
  bool pack_throws = false;
  std::function<std::unique_ptr<Decoder>()> new_decoder = [] { return nullptr; };

  static UnpackResult Right(std::span<const std::byte> buf) {
    Reader in(buf);
    const std::size_t size = in.U8();
    const std::string_view text = in.Text(size);
    if (in.failed()) return {.need = 1 + size};
    return {.packet = std::make_unique<BytesPacket>(std::string(text)), .size = in.consumed()};
  }

  std::size_t PackSize(const Packet& packet) const override {
    return 1 + PayloadOf(packet).size() + size_off;
  }
  std::error_code PackTo(const Packet& packet, Writer& writer) const override {
    if (pack_throws) throw std::runtime_error("planted");
    writer.U8(static_cast<std::uint8_t>(PayloadOf(packet).size() + length_off));
    writer.Write(PayloadOf(packet));
    return {};
  }
  UnpackResult Unpack(std::span<const std::byte> buf) const override { return unpack(buf); }
  std::unique_ptr<Decoder> NewDecoder() const override { return new_decoder(); }
};

const std::vector<std::string> kSamples{"\3abc", "\1x", "\0"s, "\2ab\3cde\0\1f"s,
                                        "\x30" + std::string(0x30, 'y')};

bool SamePayload(const Packet& a, const Packet& b) { return PayloadOf(a) == PayloadOf(b); }

std::vector<std::string> Violations(const Protocol& protocol,
                                    Samples kind = Samples::kWholePackets) {
  return CheckProtocol(protocol, kSamples, SamePayload, kind);
}

// Returns whether one of the violations says so. Which others a mistake leads to is its own affair.
bool Finds(const Planted& protocol, std::string_view rule) {
  const std::vector<std::string> violations = Violations(protocol);
  for (const std::string& violation : violations) UNSCOPED_INFO(violation);
  return std::any_of(violations.begin(), violations.end(), [&](const std::string& violation) {
    return violation.find(rule) != std::string::npos;
  });
}

using Unpacker = Planted::Unpacker;
using None = std::vector<std::string>;

TEST_CASE("a protocol that is right has no violations", "[M66]") {
  CHECK(Violations(Planted()) == None{});
  CHECK(Violations(Planted(), Samples::kAnyBytes) == None{});
  CHECK(CheckProtocol(Planted(), kSamples) == None{});
  CHECK(CheckProtocol(Planted(), {}) == None{});
  CHECK(CheckProtocol(Planted(), {""}) == None{});
}

TEST_CASE("what is planted in Unpack is found", "[M66][M1]") {
  struct Mistake {
    const char* rule;
    const char* name;
    Unpacker unpack;
  };
  const auto right = Planted::Right;
  const std::vector<Mistake> mistakes{
      {"more bytes are asked for", "off by one: wants a byte after the packet",
       [=](auto buf) {
         UnpackResult result = right(buf);
         return result.size == buf.size() ? UnpackResult() : std::move(result);
       }},
      {"depend on how the stream is cut", "consumes a byte too many, where there is one",
       [=](auto buf) {
         UnpackResult result = right(buf);
         if (result.size > 0) result.size = std::min(result.size + 1, buf.size());
         return result;
       }},
      {"more bytes are consumed than there are", "consumes more than there is",
       [=](auto buf) {
         UnpackResult result = right(buf);
         if (result.size > 0) result.size = buf.size() + 1;
         return result;
       }},
      {"more bytes are asked for", "asks for more for ever, with an empty packet",
       [=](auto buf) {
         UnpackResult result = right(buf);
         return result.size == 1 ? UnpackResult() : std::move(result);
       }},
      {"`need` is larger", "needs a byte too many",
       [=](auto buf) {
         UnpackResult result = right(buf);
         if (result.packet == nullptr) ++result.need;
         return result;
       }},
      {"depend on how the stream is cut", "a packet is all that waits",
       [](auto buf) -> UnpackResult {
         return {.packet = std::make_unique<BytesPacket>(std::string(AsText(buf))),
                 .size = buf.size()};
       }},
      {"read beyond its end", "reads the byte after the view",
       [=](std::span<const std::byte> buf) -> UnpackResult {
         UnpackResult result = right(buf);
         const bool last = result.size == buf.size();
         return result.size > 1 && last && buf.data()[buf.size()] == std::byte{0xff}
                    ? UnpackResult{.size = result.size}
                    : std::move(result);
       }},
      {"a packet consumes nothing", "an empty packet consumes nothing",
       [=](auto buf) {
         UnpackResult result = right(buf);
         if (result.size == 1) result.size = 0;
         return result;
       }},
      {"a packet comes with an error", "a bad packet, and yet a packet",
       [=](auto buf) {
         UnpackResult result = right(buf);
         if (result.packet != nullptr && buf[0] == std::byte{1}) {
           result.error = std::make_error_code(std::errc::bad_message);
         }
         return result;
       }},
      {"Unpack throws", "throws for a length that is too large",
       [=](auto buf) {
         if (buf[0] > std::byte{0x80}) throw std::length_error("planted");
         return right(buf);
       }},
      {"other answers the second time", "remembers in the protocol",
       [=, calls = std::make_shared<int>(0)](auto buf) {
         return ++*calls % 2 == 0 ? UnpackResult{.size = buf.size()} : right(buf);
       }},
      {"what follows changes the answer", "looks at the byte after the packet",
       [=](auto buf) {
         UnpackResult result = right(buf);
         const bool more = result.size > 0 && result.size < buf.size();
         return more && buf[result.size] == std::byte{'\n'} ? UnpackResult{.size = result.size}
                                                            : std::move(result);
       }},
      {"a valid packet is refused", "takes an empty packet for a bad one",
       [=](auto buf) {
         UnpackResult result = right(buf);
         if (result.size != 1) return result;
         return UnpackResult{.size = 1, .error = std::make_error_code(std::errc::bad_message)};
       }},
  };
  for (const Mistake& mistake : mistakes) {
    INFO(mistake.name);
    Planted protocol;
    protocol.unpack = mistake.unpack;
    CHECK(Finds(protocol, mistake.rule));
  }
}

TEST_CASE("what is planted in the packer is found", "[M66]") {
  Planted protocol;
  SECTION("PackSize is off by one") {
    protocol.size_off = 1;
    CHECK(Finds(protocol, "another number of bytes than PackSize"));
  }
  SECTION("PackTo writes more than PackSize says") {
    protocol.size_off = static_cast<std::size_t>(-1);
    CHECK(Finds(protocol, "another number of bytes than PackSize"));
  }
  SECTION("the length is off by one") {
    protocol.length_off = 1;
    CHECK(Finds(protocol, "does not unpack to the same"));
  }
  SECTION("it throws") {
    protocol.pack_throws = true;
    CHECK(Finds(protocol, "PackSize or PackTo throws"));
  }
}

// Gives the text of each packet a number, from 1 on.
struct Counting : Protocol::Decoder {
  explicit Counting(std::shared_ptr<int> counter) : count(std::move(counter)) {}
  UnpackResult Unpack(std::span<const std::byte> buf) override {
    UnpackResult result = Planted::Right(buf);
    if (result.packet == nullptr) return result;
    const std::string text = std::to_string(++*count) + std::string(PayloadOf(*result.packet));
    return {.packet = std::make_unique<BytesPacket>(text), .size = result.size};
  }
  std::shared_ptr<int> count;
};

TEST_CASE("each pass has a decoder of its own", "[M66]") {
  Planted protocol;
  protocol.unpack = [](auto) { return UnpackResult{.error = TestProtocol::UnpackError()}; };
  protocol.new_decoder = [] { return std::make_unique<Counting>(std::make_shared<int>(0)); };
  CHECK(CheckProtocol(protocol, kSamples, SamePayload, Samples::kAnyBytes) == None{});

  const auto shared = std::make_shared<int>(0);
  protocol.new_decoder = [=] { return std::make_unique<Counting>(shared); };
  CHECK(Finds(protocol, "other answers the second time"));
}

TEST_CASE("the tests' own protocol keeps the rules", "[M66]") {
  const std::vector<std::string> samples{Frame("hello"), Frame(""), Frame("a") + Frame("bc"),
                                         Frame(std::string(600, 'x'))};
  for (const auto packets :
       {TestProtocol::Packets::kOwnTheirBytes, TestProtocol::Packets::kKeepViews}) {
    const TestProtocol protocol(packets);
    CHECK(CheckProtocol(protocol, samples, SamePayload) == None{});
  }
  // What it answers to marked frames on purpose is against the rules.
  const std::vector<std::string> found =
      CheckProtocol(TestProtocol(), {MarkedFrame(Marker::kThrow)}, SamePayload, Samples::kAnyBytes);
  REQUIRE(found.size() == 1);
  CHECK(found[0] == "Unpack throws (sample 0; Unpack throws)");
  CHECK(CheckProtocol(TestProtocol(),
                      {MarkedFrame(Marker::kSkip) + MarkedFrame(Marker::kBad) +
                       MarkedFrame(Marker::kNoResync)},
                      SamePayload, Samples::kAnyBytes) == None{});
}

}  // namespace
}  // namespace xtcp::test
