#include <xtcp/bytes.h>

#include <bit>
#include <cstring>

namespace xtcp {
namespace {

template <typename T>
T Swapped(T value) noexcept {
  if constexpr (sizeof(T) == 2) return __builtin_bswap16(value);
  if constexpr (sizeof(T) == 4) return __builtin_bswap32(value);
  if constexpr (sizeof(T) == 8) return __builtin_bswap64(value);
}

// Converts from the machine's byte order to `order`, or back.
template <std::endian order, typename T>
T Ordered(T value) noexcept {
  if constexpr (order == std::endian::native) return value;
  return Swapped(value);
}

template <std::endian order, typename T>
bool Put(Writer& writer, T value) noexcept {
  value = Ordered<order>(value);
  return writer.Write(std::as_bytes(std::span(&value, 1)));
}

template <std::endian order, typename T>
T Get(Reader& reader) noexcept {
  T value = 0;
  const std::span<const std::byte> bytes = reader.Bytes(sizeof(T));
  if (bytes.empty()) return 0;
  std::memcpy(&value, bytes.data(), sizeof(T));
  return Ordered<order>(value);
}

}  // namespace

std::span<std::byte> Writer::Claim(std::size_t n) noexcept {
  if (failed_ || n > remaining()) {
    failed_ = true;
    return {};
  }
  const std::span<std::byte> claimed = out_.subspan(written_, n);
  written_ += n;
  return claimed;
}

bool Writer::Write(std::span<const std::byte> bytes) noexcept {
  const std::span<std::byte> room = Claim(bytes.size());
  if (failed_) return false;
  // memcpy(3) takes no null pointer, not even for 0 bytes. It is memmove(3) because the bytes may
  // come from the very buffer that is written to.
  if (!bytes.empty()) std::memmove(room.data(), bytes.data(), bytes.size());
  return true;
}

bool Writer::Write(std::string_view text) noexcept {
  return Write(std::as_bytes(std::span(text.data(), text.size())));
}

bool Writer::U8(std::uint8_t value) noexcept { return Write(std::as_bytes(std::span(&value, 1))); }

bool Writer::U16Be(std::uint16_t value) noexcept { return Put<std::endian::big>(*this, value); }
bool Writer::U32Be(std::uint32_t value) noexcept { return Put<std::endian::big>(*this, value); }
bool Writer::U64Be(std::uint64_t value) noexcept { return Put<std::endian::big>(*this, value); }
bool Writer::U16Le(std::uint16_t value) noexcept { return Put<std::endian::little>(*this, value); }
bool Writer::U32Le(std::uint32_t value) noexcept { return Put<std::endian::little>(*this, value); }
bool Writer::U64Le(std::uint64_t value) noexcept { return Put<std::endian::little>(*this, value); }

std::span<const std::byte> Reader::Bytes(std::size_t n) noexcept {
  if (failed_ || n > remaining()) {
    failed_ = true;
    return {};
  }
  const std::span<const std::byte> bytes = in_.subspan(consumed_, n);
  consumed_ += n;
  return bytes;
}

std::string_view Reader::Text(std::size_t n) noexcept {
  const std::span<const std::byte> bytes = Bytes(n);
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

std::uint8_t Reader::U8() noexcept {
  const std::span<const std::byte> bytes = Bytes(1);
  return bytes.empty() ? std::uint8_t{0} : std::to_integer<std::uint8_t>(bytes[0]);
}

std::uint16_t Reader::U16Be() noexcept { return Get<std::endian::big, std::uint16_t>(*this); }
std::uint32_t Reader::U32Be() noexcept { return Get<std::endian::big, std::uint32_t>(*this); }
std::uint64_t Reader::U64Be() noexcept { return Get<std::endian::big, std::uint64_t>(*this); }
std::uint16_t Reader::U16Le() noexcept { return Get<std::endian::little, std::uint16_t>(*this); }
std::uint32_t Reader::U32Le() noexcept { return Get<std::endian::little, std::uint32_t>(*this); }
std::uint64_t Reader::U64Le() noexcept { return Get<std::endian::little, std::uint64_t>(*this); }

}  // namespace xtcp
