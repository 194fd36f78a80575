#pragma once

#include <xtcp/bytes.h>
#include <xtcp/protocol.h>

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <system_error>
#include <vector>

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
std::string Header(std::uint32_t payload_size);

std::string Frame(std::string_view payload);

std::string MarkedFrame(Marker marker, std::string_view payload = {});

// The payloads of the frames in `stream`, in order. A rest that is no whole frame comes last, as it
// is, so that a comparison does not miss it.
std::vector<std::string> PayloadsIn(std::string_view stream);

// Owns its bytes.
class BytesPacket : public Packet {
 public:
  explicit BytesPacket(std::string payload);
  ~BytesPacket() override;

  const std::string& payload() const { return payload_; }
  std::string ToString() const override;

 private:
  std::string payload_;
};

// Keeps a view of the receive buffer, which holds until `OnEvent` returns (M3).
class ViewPacket : public Packet {
 public:
  explicit ViewPacket(std::string_view payload);
  ~ViewPacket() override;

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

  explicit OddPacket(Fault fault);
  ~OddPacket() override;

  Fault fault() const { return fault_; }

 private:
  Fault fault_;
};

std::string_view PayloadOf(const Packet& packet);

class TestProtocol : public Protocol {
 public:
  enum class Packets { kOwnTheirBytes, kKeepViews };

  explicit TestProtocol(Packets packets = Packets::kOwnTheirBytes);

  std::size_t PackSize(const Packet& packet) const override;
  std::error_code PackTo(const Packet& packet, Writer& writer) const override;
  UnpackResult Unpack(std::span<const std::byte> buf) const override;

  std::uint64_t unpack_calls() const { return unpack_calls_.load(std::memory_order_relaxed); }

  // The error that marked frames report.
  static std::error_code UnpackError();

 private:
  PacketPtr MakePacket(std::string_view payload) const;
  UnpackResult Answer(Marker marker, std::string_view payload, std::size_t size,
                      std::size_t view_size) const;

  const Packets packets_;
  mutable std::atomic<std::uint64_t> unpack_calls_{0};
};

}  // namespace xtcp::test
