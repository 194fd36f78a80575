#pragma once

#include <endian.h>
#include <xtcp/xtcp.h>

#include <cstdint>
#include <cstring>
#include <memory>
#include <span>
#include <system_error>

namespace bench {

// The framed echo of all benchmarks: a 4-byte big-endian payload length, then the payload; every
// frame goes back as it came. Written on the public API, as a user would write it who cares for
// speed: a packet is a view of the receive buffer, and nothing is copied but by `Send`.

// Header and payload, in the receive buffer.
class Frame final : public xtcp::Packet {
 public:
  explicit Frame(std::span<const std::byte> view) : bytes(view) {}
  const std::span<const std::byte> bytes;
};

class FrameProtocol final : public xtcp::Protocol {
 public:
  // The handlers send bytes, not packets.
  std::size_t PackSize(const xtcp::Packet&) const override { return 0; }
  std::error_code PackTo(const xtcp::Packet&, xtcp::Writer&) const override {
    return xtcp::Errc::kBadPacket;
  }

  xtcp::UnpackResult Unpack(std::span<const std::byte> buf) const override {
    std::uint32_t payload_bytes;
    if (buf.size() < sizeof payload_bytes) return {};
    std::memcpy(&payload_bytes, buf.data(), sizeof payload_bytes);
    // In 64 bits the sum cannot overflow; `Options::max_packet_size` ends what never fits.
    const std::size_t frame_bytes = sizeof payload_bytes + std::size_t{be32toh(payload_bytes)};
    if (buf.size() < frame_bytes) return {};
    return {.packet = std::make_unique<Frame>(buf.first(frame_bytes)), .size = frame_bytes};
  }
};

class Echo : public xtcp::Handler {
 public:
  void OnEvent(xtcp::EventType event, const xtcp::ConnPtr& conn, xtcp::PacketPtr packet) override {
    if (event != xtcp::EventType::kRecv) return;
    if (conn->Send(static_cast<const Frame&>(*packet).bytes)) {
      conn->Stop(xtcp::StopMode::kGracefullyButNotWait);
    }
  }
};

}  // namespace bench
