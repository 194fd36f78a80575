#include "support/stop_pieces.h"

#include <algorithm>
#include <cstring>

#include "support/test_protocol.h"

namespace xtcp::test {
namespace {

bool AllAre(std::string_view text, char letter) {
  if (text.empty()) return true;
  return text[0] == letter && std::memcmp(text.data(), text.data() + 1, text.size() - 1) == 0;
}

}  // namespace

std::string Piece(std::uint8_t sender, std::uint32_t number, std::size_t size) {
  if (size == 1) return std::string(1, static_cast<char>(kSingleByte | sender));
  std::string piece(1, static_cast<char>(sender));
  piece += Header(number);
  piece += Header(static_cast<std::uint32_t>(size));
  piece.append(size - kSmallestPiece, static_cast<char>('a' + number % 26));
  return piece;
}

std::string Pieces::Check(std::string_view stream, bool whole) {
  while (!stream.empty()) {
    const auto first = static_cast<std::uint8_t>(stream[0]);
    if ((first & kSingleByte) != 0) {
      ++counts_[first & 0x7f];
      stream.remove_prefix(1);
      continue;
    }
    Reader reader(AsBytes(stream.substr(1)));
    const std::uint32_t number = reader.U32Be();
    const std::size_t size = reader.U32Be();
    if (reader.failed()) break;
    if (size < kSmallestPiece) return "bytes are mixed up: a piece of impossible size";
    if (number != counts_[first]) {
      return "B4: sender " + std::to_string(first) + ": piece " + std::to_string(number) +
             " comes as number " + std::to_string(counts_[first]);
    }
    const std::string_view letters =
        stream.substr(kSmallestPiece, std::min(size, stream.size()) - kSmallestPiece);
    if (!AllAre(letters, static_cast<char>('a' + number % 26))) {
      return "B4: the bytes of a call are not in one piece";
    }
    if (stream.size() < size) break;
    ++counts_[first];
    stream.remove_prefix(size);
  }
  if (whole && !stream.empty()) return "B2: the stream ends in the middle of a piece";
  return "";
}

std::size_t Pieces::count(std::uint8_t sender) const {
  const auto found = counts_.find(sender);
  return found == counts_.end() ? 0 : found->second;
}

}  // namespace xtcp::test
