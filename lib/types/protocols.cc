#include <xtcp/error.h>
#include <xtcp/protocols.h>

#include <algorithm>
#include <array>
#include <limits>
#include <memory>
#include <stdexcept>

namespace xtcp {
namespace {

constexpr std::size_t kLongestPrefix = 64 << 10;
constexpr std::size_t kMostBytes = std::numeric_limits<std::size_t>::max();

// Returns what a packet is to be packed from, or null.
const BytesPacket* BytesOf(const Packet& packet) {
  return dynamic_cast<const BytesPacket*>(&packet);
}

std::error_code TooLong() { return std::make_error_code(std::errc::message_size); }

}  // namespace

std::string BytesPacket::ToString() const {
  return "packet of " + std::to_string(bytes_.size()) + " bytes";
}

// ---- RawProtocol.

std::size_t RawProtocol::PackSize(const Packet& packet) const {
  const BytesPacket* const ours = BytesOf(packet);
  return ours == nullptr ? 0 : ours->bytes().size();
}

std::error_code RawProtocol::PackTo(const Packet& packet, Writer& writer) const {
  const BytesPacket* const ours = BytesOf(packet);
  if (ours == nullptr || ours->bytes().empty()) return Errc::kBadPacket;
  writer.Write(ours->bytes());
  return {};
}

UnpackResult RawProtocol::Unpack(std::span<const std::byte> buf) const {
  return {.packet = std::make_unique<BytesPacket>(buf), .size = buf.size()};
}

// ---- LineProtocol.

LineProtocol::LineProtocol(std::size_t max_line, std::string_view end)
    : max_line_(max_line), end_(end == "\r\n" ? "\r\n" : "\n") {
  if (end != end_) {
    throw std::invalid_argument("xtcp::LineProtocol: a line ends with \\n or \\r\\n");
  }
}

std::error_code LineProtocol::Check(std::string_view line) const {
  if (line.size() > max_line_) return TooLong();
  const bool cut = end_ == "\n" && line.ends_with('\r');
  if (cut || line.find('\n') != std::string_view::npos) {
    return std::make_error_code(std::errc::invalid_argument);
  }
  return {};
}

std::size_t LineProtocol::PackSize(const Packet& packet) const {
  const BytesPacket* const ours = BytesOf(packet);
  return ours == nullptr || Check(ours->text()) ? 0 : ours->text().size() + end_.size();
}

std::error_code LineProtocol::PackTo(const Packet& packet, Writer& writer) const {
  const BytesPacket* const ours = BytesOf(packet);
  if (ours == nullptr) return Errc::kBadPacket;
  if (const std::error_code error = Check(ours->text())) return error;
  writer.Write(ours->text());
  writer.Write(end_);
  return {};
}

UnpackResult LineProtocol::Unpack(std::span<const std::byte> buf) const {
  Reader in(
      buf.first(std::min(buf.size(), max_line_ < kMostBytes - 2 ? max_line_ + 2 : max_line_)));
  const std::string_view line = in.Line();
  if (!in.failed() && line.size() <= max_line_) {
    return {.packet = std::make_unique<BytesPacket>(line), .size = in.consumed()};
  }
  // Its last byte may be a carriage return that does not count.
  const std::size_t least =
      in.failed() ? buf.size() - (AsText(buf).ends_with('\r') ? 1 : 0) : line.size();
  if (least > max_line_) return {.error = TooLong()};
  return {};
}

// ---- LengthPrefixProtocol.

LengthPrefixProtocol::LengthPrefixProtocol(const LengthPrefix& prefix) : prefix_(prefix) {
  if (prefix.bytes < 1 || prefix.bytes > 8) {
    throw std::invalid_argument("xtcp::LengthPrefixProtocol: bytes must be 1 to 8");
  }
  if (prefix.offset > kLongestPrefix || prefix.strip > kLongestPrefix) {
    throw std::invalid_argument("xtcp::LengthPrefixProtocol: offset and strip: at most 64 KiB");
  }
}

std::uint64_t LengthPrefixProtocol::ValueIn(std::span<const std::byte> field) const noexcept {
  std::uint64_t value = 0;
  for (std::size_t i = 0; i < field.size(); ++i) {
    const std::byte byte = field[prefix_.big_endian ? i : field.size() - 1 - i];
    value = value << 8 | std::to_integer<std::uint64_t>(byte);
  }
  return value;
}

UnpackResult LengthPrefixProtocol::Unpack(std::span<const std::byte> buf) const {
  if (buf.size() < header()) return {.need = header()};
  const std::uint64_t value = ValueIn(buf.subspan(prefix_.offset, prefix_.bytes));

  // The bytes after the length: value + add, which may be less than none, or more than there can
  // be.
  const std::uint64_t less = prefix_.add < 0 ? 0 - static_cast<std::uint64_t>(prefix_.add) : 0;
  const std::uint64_t more = prefix_.add > 0 ? static_cast<std::uint64_t>(prefix_.add) : 0;
  if (value < less) return {.error = std::make_error_code(std::errc::bad_message)};
  const std::uint64_t most = kMostBytes - header();
  if (more > most || value - less > most - more) return {.need = kMostBytes};
  const std::size_t frame = header() + static_cast<std::size_t>(value - less + more);

  if (frame > buf.size()) return {.need = frame};
  if (frame < prefix_.strip) {
    return {.size = frame, .error = std::make_error_code(std::errc::bad_message)};
  }
  const std::span<const std::byte> bytes = buf.first(frame).subspan(prefix_.strip);
  return {.packet = std::make_unique<BytesPacket>(bytes), .size = frame};
}

std::error_code LengthPrefixProtocol::ValueFor(std::size_t frame, std::uint64_t* value) const {
  if (frame < header()) return TooLong();
  // What wraps is larger than the field, too, or the sum that it stands for.
  const std::uint64_t rest = frame - header();
  *value = rest - static_cast<std::uint64_t>(prefix_.add);
  const bool wraps = prefix_.add > 0 ? *value > rest : *value < rest;
  const bool fits = prefix_.bytes == 8 || *value >> (8 * prefix_.bytes) == 0;
  return wraps || !fits ? TooLong() : std::error_code();
}

std::size_t LengthPrefixProtocol::PackSize(const Packet& packet) const {
  const BytesPacket* const ours = BytesOf(packet);
  if (ours == nullptr || ours->bytes().size() > kMostBytes - prefix_.strip) return 0;
  const std::size_t frame = prefix_.strip + ours->bytes().size();
  std::uint64_t value = 0;
  return ValueFor(frame, &value) ? 0 : frame;
}

std::error_code LengthPrefixProtocol::PackTo(const Packet& packet, Writer& writer) const {
  const BytesPacket* const ours = BytesOf(packet);
  if (ours == nullptr) return Errc::kBadPacket;
  const std::size_t frame = prefix_.strip + ours->bytes().size();
  std::uint64_t value = 0;
  if (const std::error_code error = ValueFor(frame, &value)) return error;
  const std::span<std::byte> out = writer.Claim(frame);
  if (writer.failed()) return Errc::kBadPacket;

  std::fill_n(out.begin(), prefix_.strip, std::byte{0});
  std::copy(ours->bytes().begin(), ours->bytes().end(),
            out.begin() + static_cast<std::ptrdiff_t>(prefix_.strip));
  const std::span<std::byte> field = out.subspan(prefix_.offset, prefix_.bytes);
  for (std::size_t i = 0; i < field.size(); ++i, value >>= 8) {
    field[prefix_.big_endian ? field.size() - 1 - i : i] = static_cast<std::byte>(value & 0xff);
  }
  return {};
}

}  // namespace xtcp
