#include "redis_protocol.h"

#include <cstdint>
#include <string>

namespace demo {
namespace {

class Category : public std::error_category {
 public:
  const char* name() const noexcept override { return "redis"; }
  std::string message(int code) const override {
    const std::string prefix = "Protocol error: ";
    switch (static_cast<RedisErrc>(code)) {
      case RedisErrc::kBadCount:
        return prefix + "invalid multibulk length";
      case RedisErrc::kBadLength:
        return prefix + "invalid bulk length";
      case RedisErrc::kNoDollar:
        return prefix + "expected '$'";
      case RedisErrc::kNoLineEnd:
        return prefix + "expected CRLF after a bulk string";
      case RedisErrc::kLongLine:
        return prefix + "too big inline request";
      case RedisErrc::kTooLarge:
        return prefix + "too big command";
    }
    return prefix + "unknown";
  }
};

// The number in a line such as "$5\r\n", and the size of the line. Nothing is known of it while
// `size` is 0, unless it is wrong.
struct Length {
  std::int64_t value = 0;
  std::size_t size = 0;
  bool wrong = false;
};

Length LengthIn(std::string_view text) {
  constexpr std::size_t kBytesMax = 24;  // enough for 64 bits
  const std::size_t end = text.substr(0, kBytesMax).find("\r\n");
  if (end == text.npos) return {.wrong = text.size() >= kBytesMax};
  xtcp::Reader number(text.substr(1, end - 1));
  const auto value = number.Number<std::int64_t>();
  return {.value = value, .size = end + 2, .wrong = !number.done()};
}

}  // namespace

const std::error_category& RedisErrorCategory() noexcept {
  static const Category category;
  return category;
}

xtcp::UnpackResult RedisDecoder::Unpack(std::span<const std::byte> buf) {
  const std::string_view text = xtcp::AsText(buf);
  if (count_ == 0) return text.front() == '*' ? TakeArray(text) : TakeLine(text);
  return TakeWords(text);
}

// Words without quotes. An empty line is passed over.
xtcp::UnpackResult RedisDecoder::TakeLine(std::string_view text) {
  xtcp::Reader in(text.substr(0, kLineBytesMax));
  xtcp::Reader line(in.Line());
  if (in.failed() && text.size() >= kLineBytesMax) return {.error = RedisErrc::kLongLine};
  if (in.failed()) return {};
  auto command = std::make_unique<RedisCommand>();
  while (!line.done()) {
    const std::string_view word = line.Word();
    if (line.failed()) return {.size = in.consumed()};  // nothing but spaces
    command->words.push_back(word);
  }
  if (command->words.empty()) return {.size = in.consumed()};
  return {.packet = std::move(command), .size = in.consumed()};
}

// An array without words is passed over, as Redis does.
xtcp::UnpackResult RedisDecoder::TakeArray(std::string_view text) {
  const Length count = LengthIn(text);
  const auto most = static_cast<std::int64_t>(kWordsMax);
  if (count.wrong || count.value > most) return {.error = RedisErrc::kBadCount};
  if (count.size == 0) return {};
  if (count.value <= 0) return {.size = count.size};
  count_ = static_cast<std::size_t>(count.value);
  next_ = count.size;
  return TakeWords(text);
}

xtcp::UnpackResult RedisDecoder::TakeWords(std::string_view text) {
  std::size_t need = 0;
  while (words_.size() < count_ && need == 0) {
    const std::string_view rest = text.substr(next_);
    if (!rest.empty() && rest.front() != '$') return {.error = RedisErrc::kNoDollar};
    const Length length = LengthIn(rest);
    if (length.wrong || length.value < 0) return {.error = RedisErrc::kBadLength};
    const auto size = static_cast<std::size_t>(length.value);
    if (size > kWordBytesMax) return {.error = RedisErrc::kBadLength};
    const std::size_t begin = next_ + length.size, end = begin + size;
    if (length.size == 0) {
      need = text.size() + 1;
    } else if (text.size() < end + 2) {
      need = end + 2;
    } else if (text.substr(end, 2) != "\r\n") {
      return {.error = RedisErrc::kNoLineEnd};
    } else {
      words_.emplace_back(begin, size);
      next_ = end + 2;
    }
  }
  if (need > kCommandBytesMax) return {.error = RedisErrc::kTooLarge};
  if (need > 0) return {.need = need};
  auto command = std::make_unique<RedisCommand>();
  command->words.reserve(count_);
  for (const auto& [begin, size] : words_) command->words.push_back(text.substr(begin, size));
  words_.clear();
  count_ = 0;
  return {.packet = std::move(command), .size = next_};
}

}  // namespace demo
