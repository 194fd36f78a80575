#pragma once

#include <xtcp/export.h>

#include <concepts>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <span>
#include <string_view>

namespace xtcp {

// The same bytes, seen as text or as bytes; nothing is copied.
inline std::string_view AsText(std::span<const std::byte> bytes) noexcept {
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}
inline std::span<const std::byte> AsBytes(std::string_view text) noexcept {
  return std::as_bytes(std::span(text.data(), text.size()));
}

// What `Reader::Number` and `Writer::Number` take: integers of up to 64 bits.
template <typename T>
concept Integer = std::integral<T> && !std::same_as<T, bool> && sizeof(T) <= sizeof(std::uint64_t);

// Writes values one after the other into a span that the caller owns. It never writes past the end.
// Failure is sticky: the first write that does not fit fails and writes nothing, and so do all
// later ones. So a packer writes everything and looks at `failed()` once.
//
// Thread safety: none; use it on one thread.
// Lifetime: the span must outlive the writer.
class XTCP_API Writer {
 public:
  // Begins at the beginning of `out`.
  explicit Writer(std::span<std::byte> out) noexcept : out_(out) {}

  // Each writes the whole value and returns true, or writes nothing and returns false. `Be` is
  // big-endian (network order, RFC 1700), `Le` little-endian.
  bool Write(std::span<const std::byte> bytes) noexcept;
  bool Write(std::string_view text) noexcept;
  bool U8(std::uint8_t value) noexcept;
  bool U16Be(std::uint16_t value) noexcept;
  bool U32Be(std::uint32_t value) noexcept;
  bool U64Be(std::uint64_t value) noexcept;
  bool U16Le(std::uint16_t value) noexcept;
  bool U32Le(std::uint32_t value) noexcept;
  bool U64Le(std::uint64_t value) noexcept;

  // Writes the digits of a number, lower case, after a minus sign if it is negative. A `base` that
  // is not 2 to 36 is a failure. `NumberSize` is how many bytes that takes.
  template <Integer T>
  bool Number(T value, int base = 10) noexcept {
    if constexpr (std::signed_integral<T>) return Signed(value, base);
    return Unsigned(static_cast<std::uint64_t>(value), base);
  }

  // The next `n` bytes, for a serializer to fill; they count as written. Empty if they do not fit,
  // which is a failure. `n` = 0 gives an empty span and is none.
  std::span<std::byte> Claim(std::size_t n) noexcept;

  // Bytes written, bytes that still fit, and whether a write has failed.
  std::size_t written() const noexcept { return written_; }
  std::size_t remaining() const noexcept { return out_.size() - written_; }
  bool failed() const noexcept { return failed_; }

 private:
  bool Signed(std::int64_t value, int base) noexcept;
  bool Unsigned(std::uint64_t value, int base) noexcept;

  std::span<std::byte> out_;
  std::size_t written_ = 0;
  bool failed_ = false;
};

// Returns how many bytes `Writer::Number` writes for this number, for a `PackSize`; 0 for a base
// that is not 2 to 36.
template <Integer T>
std::size_t NumberSize(T value, int base = 10) noexcept {
  if (base < 2 || base > 36) return 0;
  std::size_t size = 1;
  if constexpr (std::signed_integral<T>) size += value < 0 ? 1 : 0;
  while ((value = static_cast<T>(value / base)) != 0) ++size;
  return size;
}

// Reads values one after the other from a span that the caller owns. It never reads past the end.
// Failure is sticky: the first read past the end fails, and so do all later ones; a failed read
// gives 0 or an empty view and consumes nothing. So a parser reads everything and looks at
// `failed()` once.
//
// Thread safety: none; use it on one thread.
// Lifetime: the views it gives point into the span.
class XTCP_API Reader {
 public:
  // Begins at the beginning of `in`.
  explicit Reader(std::span<const std::byte> in) noexcept : in_(in) {}

  // Begins at the beginning of a text: a std::string_view, or what is one.
  template <std::convertible_to<std::string_view> String>
  explicit Reader(const String& in) noexcept : in_(AsBytes(in)) {}

  // Each reads a whole value, or fails and returns 0. `Be` is big-endian, `Le` little-endian.
  std::uint8_t U8() noexcept;
  std::uint16_t U16Be() noexcept;
  std::uint32_t U32Be() noexcept;
  std::uint64_t U64Be() noexcept;
  std::uint16_t U16Le() noexcept;
  std::uint32_t U32Le() noexcept;
  std::uint64_t U64Le() noexcept;

  // The next `n` bytes as a view; nothing is copied.
  std::span<const std::byte> Bytes(std::size_t n) noexcept;
  std::string_view Text(std::size_t n) noexcept;

  // The text before the next line feed, without the carriage return that may precede it. The line
  // feed is consumed; without one it fails.
  std::string_view Line() noexcept;

  // The text before the next `end`, which is consumed too; without one it fails. An empty `end` is
  // found at once.
  std::string_view Until(std::string_view end) noexcept;
  std::string_view Until(char end) noexcept { return Until(std::string_view(&end, 1)); }

  // The next word: what comes before the next separator, or before the end of the view, so it is
  // for text that is there as a whole, such as a line. Any number of separators before and after it
  // is consumed; so `done()` tells whether another word follows. It fails where there is none.
  // Fields that may be empty are for `Until`.
  std::string_view Word(char separator = ' ') noexcept;

  // The number whose digits come next, with a minus sign if `T` is signed. It ends before the first
  // byte that is no digit, or at the end of the view. It fails if there is no digit, if the number
  // does not fit into `T`, and for a `base` that is not 2 to 36. Neither a plus sign nor a space
  // nor "0x" is skipped.
  template <Integer T>
  T Number(int base = 10) noexcept {
    using Limits = std::numeric_limits<T>;
    if constexpr (std::signed_integral<T>) {
      return static_cast<T>(Signed(Limits::min(), Limits::max(), base));
    } else {
      return static_cast<T>(Unsigned(Limits::max(), base));
    }
  }

  // Passes over the next `n` bytes, or over `text`, which must come next. Returns whether it did.
  bool Skip(std::size_t n) noexcept;
  bool Skip(std::string_view text) noexcept;
  template <std::same_as<char> Char>
  bool Skip(Char) = delete;  // it would be a number of bytes

  // All that is left; it may be empty.
  std::string_view Rest() noexcept { return Text(remaining()); }

  // Bytes read, bytes that are left, and whether a read has failed.
  std::size_t consumed() const noexcept { return consumed_; }
  std::size_t remaining() const noexcept { return in_.size() - consumed_; }
  bool failed() const noexcept { return failed_; }

  // Returns whether everything was read, and no read has failed.
  bool done() const noexcept { return !failed_ && remaining() == 0; }

 private:
  std::string_view Left() const noexcept { return AsText(in_.subspan(consumed_)); }
  std::string_view Fail() noexcept;
  std::int64_t Signed(std::int64_t least, std::int64_t most, int base) noexcept;
  std::uint64_t Unsigned(std::uint64_t most, int base) noexcept;

  std::span<const std::byte> in_;
  std::size_t consumed_ = 0;
  bool failed_ = false;
};

}  // namespace xtcp
