#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

// The fuzz targets: each takes any bytes at all, and ends the program when something is wrong.
// fuzz_test.cc feeds them.
namespace xtcp::test {

using FuzzInput = std::span<const std::uint8_t>;

// Bytes of a client and how they are cut, through a whole server without a kernel. What the handler
// sees is what the contract says of the same bytes in one piece; what it sends comes out as it went in.
void FuzzFrame(FuzzInput input);

// A text, as an address to listen at and to dial.
void FuzzAddr(FuzzInput input);

// Operations on an inbound buffer, and on two outbound buffers, beside plain strings.
void FuzzBuffers(FuzzInput input);

// Calls of a Writer and a Reader, beside plain arithmetic.
void FuzzBytes(FuzzInput input);

// What a target takes from its input, piece by piece; zeros when there is no more.
class FuzzReader {
 public:
  explicit FuzzReader(FuzzInput input) : left_(input) {}

  bool empty() const { return left_.empty(); }
  std::uint8_t U8() {
    if (left_.empty()) return 0;
    const std::uint8_t value = left_[0];
    left_ = left_.subspan(1);
    return value;
  }
  std::uint16_t U16Be() {
    const unsigned high = U8();
    return static_cast<std::uint16_t>(high << 8 | U8());
  }
  // At most `n` bytes.
  FuzzInput Bytes(std::size_t n) {
    const FuzzInput bytes = left_.first(n < left_.size() ? n : left_.size());
    left_ = left_.subspan(bytes.size());
    return bytes;
  }
  FuzzInput Rest() { return Bytes(left_.size()); }

 private:
  FuzzInput left_;
};

// Says what was wrong, and with which input.
[[noreturn]] void FuzzFailed(const char* file, int line, const char* condition);

}  // namespace xtcp::test

#define FUZZ_CHECK(condition)                                                   \
  do {                                                                          \
    if (!(condition)) ::xtcp::test::FuzzFailed(__FILE__, __LINE__, #condition); \
  } while (false)
