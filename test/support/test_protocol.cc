#include "support/test_protocol.h"

#include <limits>
#include <memory>
#include <stdexcept>
#include <utility>

#include "support/violations.h"

namespace xtcp::test {
namespace {

constexpr std::size_t kOddSize = 100;

std::size_t OddSize(const OddPacket& packet) {
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

std::error_code PackOdd(const OddPacket& packet, Writer& writer) {
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

}  // namespace

std::string Header(std::uint32_t payload_size) {
  return {static_cast<char>(payload_size >> 24), static_cast<char>(payload_size >> 16),
          static_cast<char>(payload_size >> 8), static_cast<char>(payload_size)};
}

std::string Frame(std::string_view payload) {
  std::string frame = Header(static_cast<std::uint32_t>(payload.size()));
  frame.append(payload);
  return frame;
}

std::string MarkedFrame(Marker marker, std::string_view payload) {
  std::string frame = Frame(payload);
  frame[0] = static_cast<char>(marker);
  return frame;
}

std::vector<std::string> PayloadsIn(std::string_view stream) {
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

BytesPacket::BytesPacket(std::string payload) : payload_(std::move(payload)) {}
BytesPacket::~BytesPacket() = default;
std::string BytesPacket::ToString() const { return "bytes:" + std::to_string(payload_.size()); }

ViewPacket::ViewPacket(std::string_view payload) : payload_(payload) {}
ViewPacket::~ViewPacket() = default;

OddPacket::OddPacket(Fault fault) : fault_(fault) {}
OddPacket::~OddPacket() = default;

std::string_view PayloadOf(const Packet& packet) {
  if (const auto* bytes = dynamic_cast<const BytesPacket*>(&packet)) return bytes->payload();
  if (const auto* view = dynamic_cast<const ViewPacket*>(&packet)) return view->payload();
  return {};
}

TestProtocol::TestProtocol(Packets packets) : packets_(packets) {}

std::size_t TestProtocol::PackSize(const Packet& packet) const {
  if (const auto* odd = dynamic_cast<const OddPacket*>(&packet)) return OddSize(*odd);
  return kHeaderSize + PayloadOf(packet).size();
}

std::error_code TestProtocol::PackTo(const Packet& packet, Writer& writer) const {
  if (const auto* odd = dynamic_cast<const OddPacket*>(&packet)) return PackOdd(*odd, writer);
  const std::string_view payload = PayloadOf(packet);
  writer.U32Be(static_cast<std::uint32_t>(payload.size()));
  writer.Write(payload);
  return {};
}

UnpackResult TestProtocol::Unpack(std::span<const std::byte> buf) const {
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

std::error_code TestProtocol::UnpackError() { return std::make_error_code(std::errc::bad_message); }

PacketPtr TestProtocol::MakePacket(std::string_view payload) const {
  if (packets_ == Packets::kKeepViews) return std::make_unique<ViewPacket>(payload);
  return std::make_unique<BytesPacket>(std::string(payload));
}

UnpackResult TestProtocol::Answer(Marker marker, std::string_view payload, std::size_t size,
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

}  // namespace xtcp::test
