#pragma once

// What clients of Redis say: RESP2, and commands by hand.
//
//   *2\r\n$3\r\nGET\r\n$3\r\nkey\r\n     an array of bulk strings
//   GET key\r\n                          the same, typed

#include <xtcp/xtcp.h>

#include <cstddef>
#include <memory>
#include <span>
#include <string_view>
#include <system_error>
#include <type_traits>
#include <utility>
#include <vector>

namespace demo {

// Errors after which nobody knows where the next command begins, so the connection ends. The
// messages are those of Redis.
enum class RedisErrc {
  kBadCount = 1,  // of the words
  kBadLength,     // of a word
  kNoDollar,      // where a word has to begin
  kNoLineEnd,     // after a word
  kLongLine,      // of a command by hand
  kTooLarge,      // the command
};
const std::error_category& RedisErrorCategory() noexcept;
inline std::error_code make_error_code(RedisErrc code) noexcept {
  return {static_cast<int>(code), RedisErrorCategory()};
}

// A command and its arguments, in the receive buffer; at least one word.
struct RedisCommand : xtcp::Packet {
  std::vector<std::string_view> words;
};

// Takes commands from one connection. It remembers which words of an unfinished command it has
// seen, so that a long one which arrives in many pieces is read once.
class RedisDecoder : public xtcp::Protocol::Decoder {
 public:
  // Options::max_packet_size must not be less than the longest command.
  static constexpr std::size_t kCommandBytesMax = 16 << 20;
  static constexpr std::size_t kWordBytesMax = 8 << 20;
  static constexpr std::size_t kWordsMax = 16 << 10;
  static constexpr std::size_t kLineBytesMax = 64 << 10;

  xtcp::UnpackResult Unpack(std::span<const std::byte> buf) override;

 private:
  xtcp::UnpackResult TakeLine(std::string_view text);
  xtcp::UnpackResult TakeArray(std::string_view text);
  xtcp::UnpackResult TakeWords(std::string_view text);

  std::size_t count_ = 0;                                     // of the words to come; 0: not known
  std::size_t next_ = 0;                                      // where the next one begins
  std::vector<std::pair<std::size_t, std::size_t>> words_{};  // where each is, and its size
};

// Only unpacks: answers are text.
class RedisProtocol : public xtcp::Protocol {
 public:
  std::unique_ptr<Decoder> NewDecoder() const override { return std::make_unique<RedisDecoder>(); }
};

}  // namespace demo

template <>
struct std::is_error_code_enum<demo::RedisErrc> : std::true_type {};
