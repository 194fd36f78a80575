#include <xtcp/error.h>
#include <xtcp/protocol.h>

#include <catch2/catch.hpp>
#include <cstddef>
#include <functional>
#include <limits>
#include <new>
#include <span>
#include <stdexcept>
#include <string>
#include <system_error>
#include <vector>

#include "base/callback_scope.h"

namespace xtcp {
namespace {

class Empty : public Packet {};

// Packs as the test says.
class Scripted : public Protocol {
 public:
  std::function<std::size_t()> pack_size = [] { return std::size_t{4}; };
  std::function<std::error_code(Writer&)> pack_to = [](Writer& writer) {
    writer.Write("data");
    return std::error_code{};
  };

  std::size_t PackSize(const Packet&) const override { return pack_size(); }
  std::error_code PackTo(const Packet&, Writer& writer) const override { return pack_to(writer); }
  UnpackResult Unpack(std::span<const std::byte>) const override { return {}; }
};

// Packs, into a vector that holds something already, and gives what stands there then as text.
std::error_code Pack(const Protocol& protocol, std::string* text) {
  std::vector<std::byte> out(7, std::byte{'x'});
  const std::error_code error = protocol.Pack(Empty{}, &out);
  text->assign(reinterpret_cast<const char*>(out.data()), out.size());
  return error;
}

std::error_code FailureOf(const Protocol& protocol) {
  std::string text;
  const std::error_code error = Pack(protocol, &text);
  CHECK(text.empty());
  CHECK_FALSE(internal::InsideCallback());
  return error;
}

TEST_CASE("a packet's text is 'packet' unless overridden") {
  CHECK(Empty{}.ToString() == "packet");
}

TEST_CASE("a protocol that overrides nothing refuses everything, and has no decoders") {
  const Protocol protocol;
  CHECK(protocol.PackSize(Empty{}) == 0);
  CHECK(FailureOf(protocol) == Errc::kBadPacket);
  Writer no_room({});
  CHECK(protocol.PackTo(Empty{}, no_room) == Errc::kBadPacket);

  const std::byte one[1] = {};
  const UnpackResult result = protocol.Unpack(one);
  CHECK(result.packet == nullptr);
  CHECK(result.size == 0);
  CHECK(result.need == 0);
  CHECK(result.error == Errc::kProtocolError);
  CHECK(protocol.NewDecoder() == nullptr);
}

TEST_CASE("Pack replaces what stood there", "[M15]") {
  std::string text;
  CHECK_FALSE(Pack(Scripted{}, &text));
  CHECK(text == "data");
}

TEST_CASE("a packer gets exactly the room that it asked for", "[M15]") {
  for (const std::size_t size : {1, 2, 5, 4096, 1 << 20}) {
    Scripted protocol;
    std::size_t room = 0;
    protocol.pack_size = [&] { return size; };
    protocol.pack_to = [&](Writer& writer) {
      room = writer.remaining();
      writer.Claim(size);
      return std::error_code{};
    };
    std::string text;
    CHECK_FALSE(Pack(protocol, &text));
    CHECK(room == size);
    CHECK(text.size() == size);
  }
}

TEST_CASE("a packer that writes another size than it said is kBadPacket", "[M15][F6]") {
  Scripted protocol;
  SECTION("less") {
    protocol.pack_size = [] { return std::size_t{5}; };
  }
  SECTION("more") {
    protocol.pack_size = [] { return std::size_t{3}; };
  }
  SECTION("nothing") {
    protocol.pack_to = [](Writer&) { return std::error_code{}; };
  }
  SECTION("the right size, and then more that does not fit") {
    protocol.pack_to = [](Writer& writer) {
      writer.Write("data");
      writer.U8(0);
      return std::error_code{};
    };
  }
  CHECK(FailureOf(protocol) == Errc::kBadPacket);
}

TEST_CASE("what a packer returns is the result", "[M15]") {
  Scripted protocol;
  const auto error = std::make_error_code(std::errc::value_too_large);
  SECTION("before it wrote anything") {
    protocol.pack_to = [&](Writer&) { return error; };
  }
  SECTION("after it wrote everything") {
    protocol.pack_to = [&](Writer& writer) {
      writer.Write("data");
      return error;
    };
  }
  SECTION("after a write that did not fit") {
    protocol.pack_to = [&](Writer& writer) {
      writer.Write("too much data");
      return error;
    };
  }
  CHECK(FailureOf(protocol) == error);
}

TEST_CASE("a size of 0 cannot be packed, and PackTo says why", "[M15]") {
  Scripted protocol;
  protocol.pack_size = [] { return std::size_t{0}; };
  std::size_t room = 1;
  std::error_code answer = std::make_error_code(std::errc::not_supported);
  protocol.pack_to = [&](Writer& writer) {
    room = writer.remaining();
    return answer;
  };
  CHECK(FailureOf(protocol) == answer);
  CHECK(room == 0);
  answer = {};
  CHECK(FailureOf(protocol) == Errc::kBadPacket);
}

TEST_CASE("an exception of a packer is kBadPacket, and kNoMemory if that is what it was",
          "[M15][F5]") {
  Scripted protocol;
  SECTION("PackSize throws") {
    protocol.pack_size = []() -> std::size_t { throw std::runtime_error("no"); };
    CHECK(FailureOf(protocol) == Errc::kBadPacket);
  }
  SECTION("PackSize throws what vectors throw") {
    protocol.pack_size = []() -> std::size_t { throw std::length_error("no"); };
    CHECK(FailureOf(protocol) == Errc::kBadPacket);
  }
  SECTION("PackSize runs out of memory") {
    protocol.pack_size = []() -> std::size_t { throw std::bad_alloc(); };
    CHECK(FailureOf(protocol) == Errc::kNoMemory);
  }
  SECTION("PackTo throws") {
    protocol.pack_to = [](Writer&) -> std::error_code { throw 42; };
    CHECK(FailureOf(protocol) == Errc::kBadPacket);
  }
  SECTION("PackTo runs out of memory") {
    protocol.pack_to = [](Writer&) -> std::error_code { throw std::bad_alloc(); };
    CHECK(FailureOf(protocol) == Errc::kNoMemory);
  }
}

TEST_CASE("a wrong, huge size is kNoMemory", "[M15][X4]") {
  Scripted protocol;
  std::size_t size = std::numeric_limits<std::size_t>::max();
  bool packed = false;
  protocol.pack_size = [&] { return size; };
  protocol.pack_to = [&](Writer&) {
    packed = true;
    return std::error_code{};
  };
  CHECK(FailureOf(protocol) == Errc::kNoMemory);
#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
  // The sanitizers' allocators abort where others throw.
  if constexpr (sizeof(size) == 8) {  // of 4 GiB a part can be had
    size /= 4;
    CHECK(FailureOf(protocol) == Errc::kNoMemory);
  }
#endif
  CHECK_FALSE(packed);
}

TEST_CASE("packers run inside a callback of the library", "[M15][M26]") {
  Scripted protocol;
  bool in_size = false;
  bool in_pack = false;
  protocol.pack_size = [&] {
    in_size = internal::InsideCallback();
    return std::size_t{4};
  };
  protocol.pack_to = [&](Writer& writer) {
    in_pack = internal::InsideCallback();
    writer.Write("data");
    return std::error_code{};
  };
  std::string text;
  CHECK_FALSE(Pack(protocol, &text));
  CHECK(in_size);
  CHECK(in_pack);
  CHECK_FALSE(internal::InsideCallback());
}

}  // namespace
}  // namespace xtcp
