#include <xtcp/bytes.h>

#include <algorithm>
#include <bit>
#include <charconv>
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

// std::from_chars and std::to_chars take no other base.
bool IsBase(int base) noexcept { return base >= 2 && base <= 36; }

// Writes what std::to_chars makes of it, if that fits. It goes through memory of its own, because
// std::to_chars may leave anything where it does not fit.
template <typename T>
bool PutDigits(Writer& writer, T value, int base) noexcept {
  char digits[65];  // 64 of base 2, and a sign
  const std::to_chars_result result = std::to_chars(digits, digits + sizeof digits, value, base);
  return writer.Write(std::string_view(digits, static_cast<std::size_t>(result.ptr - digits)));
}

// Takes a number from the beginning of `text`. Returns the number of its bytes, or 0.
template <typename T>
std::size_t GetDigits(std::string_view text, int base, T* value) noexcept {
  if (!IsBase(base)) return 0;
  const std::from_chars_result result =
      std::from_chars(text.data(), text.data() + text.size(), *value, base);
  return result.ec == std::errc() ? static_cast<std::size_t>(result.ptr - text.data()) : 0;
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

bool Writer::Write(std::string_view text) noexcept { return Write(AsBytes(text)); }

bool Writer::U8(std::uint8_t value) noexcept { return Write(std::as_bytes(std::span(&value, 1))); }

bool Writer::U16Be(std::uint16_t value) noexcept { return Put<std::endian::big>(*this, value); }
bool Writer::U32Be(std::uint32_t value) noexcept { return Put<std::endian::big>(*this, value); }
bool Writer::U64Be(std::uint64_t value) noexcept { return Put<std::endian::big>(*this, value); }
bool Writer::U16Le(std::uint16_t value) noexcept { return Put<std::endian::little>(*this, value); }
bool Writer::U32Le(std::uint32_t value) noexcept { return Put<std::endian::little>(*this, value); }
bool Writer::U64Le(std::uint64_t value) noexcept { return Put<std::endian::little>(*this, value); }

bool Writer::Signed(std::int64_t value, int base) noexcept {
  if (!IsBase(base)) failed_ = true;
  return !failed_ && PutDigits(*this, value, base);
}

bool Writer::Unsigned(std::uint64_t value, int base) noexcept {
  if (!IsBase(base)) failed_ = true;
  return !failed_ && PutDigits(*this, value, base);
}

std::span<const std::byte> Reader::Bytes(std::size_t n) noexcept {
  if (failed_ || n > remaining()) {
    failed_ = true;
    return {};
  }
  const std::span<const std::byte> bytes = in_.subspan(consumed_, n);
  consumed_ += n;
  return bytes;
}

std::string_view Reader::Text(std::size_t n) noexcept { return AsText(Bytes(n)); }

std::string_view Reader::Fail() noexcept {
  failed_ = true;
  return {};
}

std::string_view Reader::Line() noexcept {
  std::string_view line = Until('\n');
  if (line.ends_with('\r')) line.remove_suffix(1);
  return line;
}

std::string_view Reader::Until(std::string_view end) noexcept {
  if (failed_) return {};
  const std::size_t size = Left().find(end);
  if (size == std::string_view::npos) return Fail();
  const std::string_view text = Text(size);
  consumed_ += end.size();
  return text;
}

std::string_view Reader::Word(char separator) noexcept {
  if (failed_) return {};
  const std::string_view left = Left();
  const std::size_t begin = left.find_first_not_of(separator);
  if (begin == std::string_view::npos) return Fail();
  const std::size_t end = std::min(left.find(separator, begin), left.size());
  consumed_ += std::min(left.find_first_not_of(separator, end), left.size());
  return left.substr(begin, end - begin);
}

bool Reader::Skip(std::size_t n) noexcept {
  Bytes(n);
  return !failed_;
}

bool Reader::Skip(std::string_view text) noexcept {
  if (failed_ || !Left().starts_with(text)) failed_ = true;
  return !failed_ && Skip(text.size());
}

std::int64_t Reader::Signed(std::int64_t least, std::int64_t most, int base) noexcept {
  std::int64_t value = 0;
  const std::size_t size = failed_ ? 0 : GetDigits(Left(), base, &value);
  failed_ = size == 0 || value < least || value > most;
  if (failed_) return 0;
  consumed_ += size;
  return value;
}

std::uint64_t Reader::Unsigned(std::uint64_t most, int base) noexcept {
  std::uint64_t value = 0;
  const std::size_t size = failed_ ? 0 : GetDigits(Left(), base, &value);
  failed_ = size == 0 || value > most;
  if (failed_) return 0;
  consumed_ += size;
  return value;
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
