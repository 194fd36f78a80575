#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <map>
#include <string>
#include <string_view>

#include "support/test_protocol.h"

namespace xtcp::test {

// Bytes for one `Send` that say who sent them, as which one, and where they end, so that a peer can
// tell whether each call's bytes came in one piece and each sender's calls in order (B4).
//
// Several bytes: sender, number, size, then a letter again and again. One byte: only its sender.
inline constexpr std::size_t kSmallestPiece = 9;
inline constexpr std::uint8_t kSingleByte = 0x80;

// `size` is 1, or `kSmallestPiece` and more; `sender` below 128.
std::string Piece(std::uint8_t sender, std::uint32_t number, std::size_t size);

// What a peer received. After `Check`: how many whole pieces came of each sender.
class Pieces {
 public:
  // What is wrong with `stream`, "" if nothing. A stream that was cut may end in the middle of a
  // piece.
  std::string Check(std::string_view stream, bool whole);

  std::size_t count(std::uint8_t sender) const;

 private:
  std::map<std::uint8_t, std::uint32_t> counts_;
};

}  // namespace xtcp::test
