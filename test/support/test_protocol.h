#pragma once

#include <xtcp/bytes.h>
#include <xtcp/protocol.h>

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <memory>
#include <span>
#include <stdexcept>
#include <string>
#include <string_view>
#include <system_error>
#include <utility>
#include <vector>

#include "support/violations.h"

namespace xtcp::test {

// The tests' protocol. A frame is a 4-byte big-endian length of the payload, then the payload.
//
// A frame whose first byte is a `Marker` makes `Unpack` give that answer; the other three bytes are
// then the payload's length. So an ordinary payload stays below 3.5 GiB.
enum class Marker : std::uint8_t {
  // What M1 allows.
  kSkip = 0xe0,  // null, n, none
  kBad,          // null, n, an error
  kNoResync,     // null, 0, an error

  // What it does not.
  kPacketOfNothing,       // a packet, 0, none
  kPacketBeyondView,      // a packet, more than there is, none
  kPacketBeyondAll,       // a packet, SIZE_MAX, none
  kPacketWithError,       // a packet, n, an error
  kPacketOfNothingError,  // a packet, 0, an error
  kSkipBeyondView,        // null, more than there is, none
  kBadBeyondView,         // null, more than there is, an error

  kThrow,     // throws std::runtime_error
  kThrowInt,  // throws 42
};

inline constexpr std::size_t kHeaderSize = 4;

// The header of a frame, for a payload that may never come.
inline std::string Header(std::uint32_t payload_size) {
  return {static_cast<char>(payload_size >> 24), static_cast<char>(payload_size >> 16),
          static_cast<char>(payload_size >> 8), static_cast<char>(payload_size)};
}

inline std::string Frame(std::string_view payload) {
  std::string frame = Header(static_cast<std::uint32_t>(payload.size()));
  frame.append(payload);
  return frame;
}

inline std::string MarkedFrame(Marker marker, std::string_view payload = {}) {
  std::string frame = Frame(payload);
  frame[0] = static_cast<char>(marker);
  return frame;
}

// The payloads of the frames in `stream`, in order. A rest that is no whole frame comes last, as it
// is, so that a comparison does not miss it.
inline std::vector<std::string> PayloadsIn(std::string_view stream) {
  std::vector<std::string> payloads;
  while (!stream.empty()) {
    Reader reader(AsBytes(stream));
    const std::size_t size = reader.U32Be();
    const std::string_view payload = reader.Text(size);
    if (reader.failed()) {
      payloads.push_back("rest: " + std::string(stream));
      break;
    }
    payloads.emplace_back(payload);
    stream.remove_prefix(reader.consumed());
  }
  return payloads;
}

// Owns its bytes.
class BytesPacket : public Packet {
 public:
  explicit BytesPacket(std::string payload) : payload_(std::move(payload)) {}

  const std::string& payload() const { return payload_; }
  std::string ToString() const override { return "bytes:" + std::to_string(payload_.size()); }

 private:
  std::string payload_;
};

// Keeps a view of the receive buffer, which holds until `OnEvent` returns (M3).
class ViewPacket : public Packet {
 public:
  explicit ViewPacket(std::string_view payload) : payload_(payload) {}

  std::string_view payload() const { return payload_; }

 private:
  std::string_view payload_;
};

// What a packer can do wrong.
class OddPacket : public Packet {
 public:
  enum class Fault {
    kPackToFails,     // PackTo returns ENOTSUP
    kPackToThrows,    // PackTo throws
    kPackSizeThrows,  // PackSize throws
    kWritesLess,      // PackTo writes fewer bytes than PackSize said
    kWritesMore,      // PackTo tries to write more
    kNotPackable,     // PackSize says 0, PackTo returns EMSGSIZE
    kHugeSize,        // PackSize says SIZE_MAX
  };

  explicit OddPacket(Fault fault) : fault_(fault) {}

  Fault fault() const { return fault_; }

 private:
  Fault fault_;
};

inline std::string_view PayloadOf(const Packet& packet) {
  if (const auto* bytes = dynamic_cast<const BytesPacket*>(&packet)) return bytes->payload();
  if (const auto* view = dynamic_cast<const ViewPacket*>(&packet)) return view->payload();
  return {};
}

class TestProtocol : public Protocol {
 public:
  enum class Packets { kOwnTheirBytes, kKeepViews };

  explicit TestProtocol(Packets packets = Packets::kOwnTheirBytes) : packets_(packets) {}

  std::size_t PackSize(const Packet& packet) const override {
    if (const auto* odd = dynamic_cast<const OddPacket*>(&packet)) return OddSize(*odd);
    return kHeaderSize + PayloadOf(packet).size();
  }

  std::error_code PackTo(const Packet& packet, Writer& writer) const override {
    if (const auto* odd = dynamic_cast<const OddPacket*>(&packet)) return PackOdd(*odd, writer);
    const std::string_view payload = PayloadOf(packet);
    writer.U32Be(static_cast<std::uint32_t>(payload.size()));
    writer.Write(payload);
    return {};
  }

  UnpackResult Unpack(std::span<const std::byte> buf) const override {
    unpack_calls_.fetch_add(1, std::memory_order_relaxed);
    if (buf.empty()) AddViolation("M1: Unpack was called with an empty view");
    if (buf.size() < kHeaderSize) return {};
    const auto first = std::to_integer<std::uint8_t>(buf[0]);
    const bool marked = first >= static_cast<std::uint8_t>(Marker::kSkip);
    std::size_t size = Reader(buf).U32Be();
    if (marked) size &= 0xffffff;
    if (buf.size() - kHeaderSize < size) return {};
    const std::string_view payload = AsText(buf.subspan(kHeaderSize, size));
    size += kHeaderSize;
    if (marked) return Answer(static_cast<Marker>(first), payload, size, buf.size());
    return {MakePacket(payload), size, {}};
  }

  std::uint64_t unpack_calls() const { return unpack_calls_.load(std::memory_order_relaxed); }

  // The error that marked frames report.
  static std::error_code UnpackError() { return std::make_error_code(std::errc::bad_message); }

 private:
  PacketPtr MakePacket(std::string_view payload) const {
    if (packets_ == Packets::kKeepViews) return std::make_unique<ViewPacket>(payload);
    return std::make_unique<BytesPacket>(std::string(payload));
  }

  UnpackResult Answer(Marker marker, std::string_view payload, std::size_t size,
                      std::size_t view_size) const {
    switch (marker) {
      case Marker::kSkip:
        return {nullptr, size, {}};
      case Marker::kBad:
        return {nullptr, size, UnpackError()};
      case Marker::kNoResync:
        return {nullptr, 0, UnpackError()};
      case Marker::kPacketOfNothing:
        return {MakePacket(payload), 0, {}};
      case Marker::kPacketBeyondView:
        return {MakePacket(payload), view_size + 1, {}};
      case Marker::kPacketBeyondAll:
        return {MakePacket(payload), std::numeric_limits<std::size_t>::max(), {}};
      case Marker::kPacketWithError:
        return {MakePacket(payload), size, UnpackError()};
      case Marker::kPacketOfNothingError:
        return {MakePacket(payload), 0, UnpackError()};
      case Marker::kSkipBeyondView:
        return {nullptr, view_size + 1, {}};
      case Marker::kBadBeyondView:
        return {nullptr, view_size + 1, UnpackError()};
      case Marker::kThrow:
        throw std::runtime_error("Unpack throws");
      case Marker::kThrowInt:
        throw 42;
    }
    return {nullptr, size, UnpackError()};
  }

  static std::size_t OddSize(const OddPacket& packet) {
    switch (packet.fault()) {
      case OddPacket::Fault::kPackSizeThrows:
        throw std::runtime_error("PackSize throws");
      case OddPacket::Fault::kNotPackable:
        return 0;
      case OddPacket::Fault::kHugeSize:
        return std::numeric_limits<std::size_t>::max();
      default:
        return kOddSize;
    }
  }

  static std::error_code PackOdd(const OddPacket& packet, Writer& writer) {
    switch (packet.fault()) {
      case OddPacket::Fault::kPackToFails:
        writer.U8(1);
        return std::make_error_code(std::errc::not_supported);
      case OddPacket::Fault::kPackToThrows:
        writer.U8(1);
        throw std::runtime_error("PackTo throws");
      case OddPacket::Fault::kWritesLess:
        writer.Write(std::string(kOddSize - 1, 'l'));
        return {};
      case OddPacket::Fault::kWritesMore:
        writer.Write(std::string(kOddSize + 1, 'm'));
        return {};
      case OddPacket::Fault::kNotPackable:
        return std::make_error_code(std::errc::message_size);
      default:
        AddViolation("PackTo was called for a packet whose PackSize threw or was absurd");
        return {};
    }
  }

  static constexpr std::size_t kOddSize = 100;

  const Packets packets_;
  mutable std::atomic<std::uint64_t> unpack_calls_{0};
};

}  // namespace xtcp::test
