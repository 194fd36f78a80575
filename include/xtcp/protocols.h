#pragma once

#include <xtcp/bytes.h>
#include <xtcp/export.h>
#include <xtcp/protocol.h>

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <system_error>

// Ready-made protocols. Their packets are bytes: all of a read, a line, or a frame with its length
// in front.

namespace xtcp {

// Bytes that something else owns. One that arrives is a part of the receive buffer, valid until
// `OnEvent` returns; one that is to be sent lives in the call: SendPacket(BytesPacket("hello")).
class XTCP_API BytesPacket : public Packet {
 public:
  // Makes a packet of these bytes or this text, which must outlive it.
  explicit BytesPacket(std::span<const std::byte> bytes) noexcept : bytes_(bytes) {}
  explicit BytesPacket(std::string_view text) noexcept : bytes_(AsBytes(text)) {}

  // The same bytes in two forms.
  std::span<const std::byte> bytes() const noexcept { return bytes_; }
  std::string_view text() const noexcept { return AsText(bytes_); }

  // Says how many they are.
  std::string ToString() const override;

 private:
  std::span<const std::byte> bytes_;
};

// No packets at all: a `BytesPacket` is what has arrived, and where it ends means nothing. It packs
// a `BytesPacket` as it is; one of no bytes cannot be sent.
//
// Thread safety: as every `Protocol`.
class XTCP_API RawProtocol : public Protocol {
 public:
  std::size_t PackSize(const Packet& packet) const override;
  std::error_code PackTo(const Packet& packet, Writer& writer) const override;
  UnpackResult Unpack(std::span<const std::byte> buf) const override;
};

// Lines. One that arrives ends at a line feed, and one carriage return before it is cut as well;
// the `BytesPacket` is the line without its end. One that is sent is followed by `end`.
//
// A line of more than `max_line` bytes is an error (EMSGSIZE) after which nothing can be unpacked:
// `OnUnpackError` gets what there is of it, may send last words, and the connection ends. As long
// as a line has no end, each read searches all of it anew, because the next byte may be its end: so
// a peer that trickles bytes makes each of them cost up to `max_line`, which for 64 KiB is less
// than the system calls that each costs anyway. Something much longer wants a protocol with a
// decoder.
//
// Thread safety: as every `Protocol`.
class XTCP_API LineProtocol : public Protocol {
 public:
  // Throws `std::invalid_argument` for an `end` that is neither "\n" nor "\r\n".
  explicit LineProtocol(std::size_t max_line = 64 << 10, std::string_view end = "\n");

  // What would arrive as something else is refused (EINVAL): bytes with a line feed in them, and
  // with `end` "\n" those that end in a carriage return; and so is a line that is too long
  // (EMSGSIZE).
  std::size_t PackSize(const Packet& packet) const override;
  std::error_code PackTo(const Packet& packet, Writer& writer) const override;
  UnpackResult Unpack(std::span<const std::byte> buf) const override;

 private:
  XTCP_PRIVATE std::error_code Check(std::string_view line) const;

  std::size_t max_line_;
  std::string_view end_;  // of a literal
};

// Where a frame says how long it is.
//
//   ┌────────┬───────┬──────────────────────┐
//   │ offset │ bytes │ the rest             │    frame = value + add + offset + bytes
//   └────────┴───────┴──────────────────────┘
struct LengthPrefix {
  std::size_t bytes = 4;               // of the length itself: 1 to 8
  bool big_endian = true;              // or little-endian
  std::size_t offset = 0;              // bytes in front of it, at most 64 KiB
  std::int64_t add = 0;                // -bytes - offset: it counts the whole frame
  std::size_t strip = offset + bytes;  // first bytes of a frame that its packet is without
};

// Frames with a length in front. A `BytesPacket` is a frame without its first `strip` bytes. One
// that is sent gets that many in front, of which those that are no part of the length are 0; a
// length that is a part of the packet is written over with the right one.
//
// A frame that says that it is shorter than its own `offset` + `bytes` is an error (EBADMSG) after
// which nothing can be unpacked; one that is shorter than `strip` is a bad packet, and unpacking
// goes on after it. What is longer than `Options::max_packet_size` ends the connection as soon as
// its length is there.
//
// Thread safety: as every `Protocol`.
class XTCP_API LengthPrefixProtocol : public Protocol {
 public:
  // Throws `std::invalid_argument` as `LengthPrefix` says, and for a `strip` of more than 64 KiB.
  explicit LengthPrefixProtocol(const LengthPrefix& prefix = {});

  // A packet whose length the field cannot hold, or that is too short to have one, is refused
  // (EMSGSIZE).
  std::size_t PackSize(const Packet& packet) const override;
  std::error_code PackTo(const Packet& packet, Writer& writer) const override;
  UnpackResult Unpack(std::span<const std::byte> buf) const override;

 private:
  std::size_t header() const noexcept { return prefix_.offset + prefix_.bytes; }
  XTCP_PRIVATE std::uint64_t ValueIn(std::span<const std::byte> field) const noexcept;
  XTCP_PRIVATE std::error_code ValueFor(std::size_t frame, std::uint64_t* value) const;

  LengthPrefix prefix_;
};

}  // namespace xtcp
