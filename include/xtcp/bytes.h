#pragma once

#include <xtcp/export.h>

#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>

namespace xtcp {

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

  // The next `n` bytes, for a serializer to fill; they count as written. Empty if they do not fit,
  // which is a failure. `n` = 0 gives an empty span and is none.
  std::span<std::byte> Claim(std::size_t n) noexcept;

  // Bytes written, bytes that still fit, and whether a write has failed.
  std::size_t written() const noexcept { return written_; }
  std::size_t remaining() const noexcept { return out_.size() - written_; }
  bool failed() const noexcept { return failed_; }

 private:
  std::span<std::byte> out_;
  std::size_t written_ = 0;
  bool failed_ = false;
};

// Reads values one after the other from a span that the caller owns. It never reads past the end.
// Failure is sticky: the first read past the end fails, and so do all later ones; a failed read
// gives 0 or an empty view and consumes nothing.
//
// Thread safety: none; use it on one thread.
// Lifetime: the views it gives point into the span.
class XTCP_API Reader {
 public:
  // Begins at the beginning of `in`.
  explicit Reader(std::span<const std::byte> in) noexcept : in_(in) {}

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

  // Bytes read, bytes that are left, and whether a read has failed.
  std::size_t consumed() const noexcept { return consumed_; }
  std::size_t remaining() const noexcept { return in_.size() - consumed_; }
  bool failed() const noexcept { return failed_; }

 private:
  std::span<const std::byte> in_;
  std::size_t consumed_ = 0;
  bool failed_ = false;
};

}  // namespace xtcp
