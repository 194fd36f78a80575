#include "http_decoder.h"

#include <algorithm>
#include <cctype>
#include <utility>

namespace demo {
namespace {

// ---- Errors.

class Category : public std::error_category {
 public:
  const char* name() const noexcept override { return "http"; }
  std::string message(int status) const override { return "status " + std::to_string(status); }
};

xtcp::UnpackResult Refuse(int status) { return {.error = {status, HttpErrorCategory()}}; }

// ---- Characters, and lists.

constexpr std::string_view kLettersAndDigits =
    "abcdefghijklmnopqrstuvwxyz0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ";

bool HasOnly(std::string_view text, std::string_view marks) {
  return std::ranges::all_of(text, [marks](char c) {
    return kLettersAndDigits.find(c) != marks.npos || marks.find(c) != marks.npos;
  });
}

// RFC 9110, 5.6.2.
bool IsToken(std::string_view text) { return !text.empty() && HasOnly(text, "!#$%&'*+-.^_`|~"); }

// RFC 3986, 3.2.2 and 3.2.3: a host and a port, without a user's name.
bool IsHost(std::string_view text) { return HasOnly(text, "-._~%!$&'()*+,;=:[]"); }

// RFC 9110, 5.5: no CR, LF, NUL or other control characters, but tabs.
bool IsFieldText(std::string_view text) {
  return std::ranges::all_of(text,
                             [](unsigned char c) { return c == '\t' || (c >= 0x20 && c != 0x7f); });
}

bool IsVisible(std::string_view text) {
  return std::ranges::all_of(text, [](unsigned char c) { return c > 0x20 && c < 0x7f; });
}

char Lower(char c) { return c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c; }

bool SameIgnoringCase(std::string_view a, std::string_view b) {
  return std::ranges::equal(a, b, {}, Lower, Lower);
}

std::string_view Trim(std::string_view text) {
  while (text.starts_with(' ') || text.starts_with('\t')) text.remove_prefix(1);
  while (text.ends_with(' ') || text.ends_with('\t')) text.remove_suffix(1);
  return text;
}

// Whether a list of words, separated by commas, has this one.
bool HasWord(std::string_view list, std::string_view word) {
  for (std::size_t end = 0; end != list.npos; list.remove_prefix(end == list.npos ? 0 : end + 1)) {
    end = list.find(',');
    if (SameIgnoringCase(Trim(list.substr(0, end)), word)) return true;
  }
  return false;
}

// ---- Lines.

struct Line {
  std::string_view text{};  // without its end
  std::size_t size = 0;     // with it; 0: it has none yet
  int status = 0;           // or else what is wrong
};

// The first line. It ends with CR LF: a line feed alone is taken for an end by some and not by
// others. One that does not end within `most` bytes is wrong, and that is `status_too_long`.
Line FirstLine(std::string_view text, std::size_t most, int status_too_long) {
  const std::size_t end = text.substr(0, most).find('\n');
  if (end == text.npos) return {.status = text.size() < most ? 0 : status_too_long};
  if (end == 0 || text[end - 1] != '\r') return {.status = 400};
  return {.text = text.substr(0, end - 1), .size = end + 1};
}

// ---- Heads.

struct Field {
  std::string_view name, value;
};

// A line that goes on with the one before it begins with a space, which is in no name. Nor may
// there be one between the name and the colon (RFC 9112, 5.1 and 5.2).
std::optional<Field> FieldOf(std::string_view line) {
  const std::size_t colon = line.find(':');
  if (colon == line.npos) return {};
  const Field field{.name = line.substr(0, colon), .value = Trim(line.substr(colon + 1))};
  if (!IsToken(field.name) || !IsFieldText(field.value)) return {};
  return field;
}

// Reads a head, line by line. Each part of it returns 0, or the status of what is wrong.
class HeadParser {
 public:
  explicit HeadParser(HttpHead* head) : head_(*head) {}

  int Parse(xtcp::Reader lines) {
    int status = RequestLine(lines.Line());
    for (std::string_view line; status == 0 && !(line = lines.Line()).empty();) {
      status = Take(line);
    }
    return status != 0 ? status : Whole();
  }

 private:
  int RequestLine(std::string_view text) {
    xtcp::Reader line(text);
    head_.method = line.Until(' ');
    const std::string_view target = line.Until(' ');
    xtcp::Reader version(line.Rest());
    version.Skip("HTTP/");
    const std::string_view digits = version.Text(3);
    if (line.failed() || !version.done() || std::isdigit(digits[0]) == 0 || digits[1] != '.' ||
        std::isdigit(digits[2]) == 0 || !IsToken(head_.method)) {
      return 400;
    }
    if (digits[0] != '1') return 505;
    head_.minor_version = digits[2] == '0' ? 0 : 1;  // a later one is understood as 1.1
    return IsVisible(target) ? Target(target) : 400;
  }

  int Target(std::string_view target) {
    constexpr std::string_view kScheme = "http://";
    head_.target = target;
    if (target.starts_with('/') || (target == "*" && head_.method == "OPTIONS")) return 0;
    // The form for proxies, which a server has to understand, too (RFC 9112, 3.2.2).
    if (!SameIgnoringCase(target.substr(0, kScheme.size()), kScheme)) return 400;
    target.remove_prefix(kScheme.size());
    const std::string_view host = target.substr(0, target.find('/'));
    head_.target = host.size() == target.size() ? "/" : target.substr(host.size());
    return host.empty() || !IsHost(host) ? 400 : 0;
  }

  int Take(std::string_view line) {
    const std::optional<Field> field = FieldOf(line);
    if (!field) return 400;
    const auto [name, value] = *field;
    if (SameIgnoringCase(name, "Host")) {
      return has_host_ || !IsHost(value) ? 400 : (has_host_ = true, 0);
    } else if (SameIgnoringCase(name, "Content-Length")) {
      if (head_.length) return 400;  // even if they say the same
      xtcp::Reader number(value);
      head_.length = number.Number<std::uint64_t>();
      return number.done() ? 0 : 400;
    } else if (SameIgnoringCase(name, "Transfer-Encoding")) {
      if (head_.chunked) return 400;
      head_.chunked = true;
      return SameIgnoringCase(value, "chunked") ? 0 : 501;
    } else if (SameIgnoringCase(name, "Connection")) {
      wants_close_ = wants_close_ || HasWord(value, "close");
      wants_keep_alive_ = wants_keep_alive_ || HasWord(value, "keep-alive");
    } else if (SameIgnoringCase(name, "Expect") && head_.minor_version == 1) {
      head_.expects_continue = true;
      return SameIgnoringCase(value, "100-continue") ? 0 : 417;
    }
    return 0;
  }

  // RFC 9112, 3.2 and 6.1: HTTP/1.0 needs no Host, and knows no chunks.
  int Whole() {
    const bool old = head_.minor_version == 0;
    if (!has_host_ && !old) return 400;
    if (head_.chunked && (head_.length || old)) return 400;
    head_.keep_alive = !wants_close_ && (!old || wants_keep_alive_);
    head_.expects_continue = head_.expects_continue && head_.has_body();
    return 0;
  }

  HttpHead& head_;
  bool has_host_ = false, wants_close_ = false, wants_keep_alive_ = false;
};

}  // namespace

const std::error_category& HttpErrorCategory() noexcept {
  static const Category category;
  return category;
}

// ---- The decoder.

xtcp::UnpackResult HttpDecoder::Unpack(std::span<const std::byte> buf) {
  const std::string_view text = xtcp::AsText(buf);
  switch (state_) {
    case State::kHead:
      return TakeHead(text);
    case State::kCounted:
    case State::kChunk:
      return TakePart(text);
    case State::kChunkSize:
      return TakeChunkSize(text);
    case State::kChunkEnd:
      return TakeChunkEnd(text);
    case State::kTrailer:
      return TakeTrailer(text);
  }
  return Refuse(400);
}

// Lines that are whole are not searched again when more has come.
xtcp::UnpackResult HttpDecoder::TakeHead(std::string_view text) {
  for (bool ended = false; !ended;) {
    const Line line =
        FirstLine(text.substr(lines_), kHeadBytesMax - lines_, lines_ == 0 ? 414 : 431);
    if (line.status != 0) return Refuse(line.status);
    if (line.size == 0) return {};
    ended = line.text.empty() && lines_ != 0;
    lines_ += line.size;
  }
  auto packet = std::make_unique<HttpPacket>();
  HttpHead& head = packet->head.emplace();
  const std::string_view whole = text.substr(0, std::exchange(lines_, 0));
  // An empty line before a request is passed over (RFC 9112, 2.2); a second one is not.
  const int status =
      HeadParser(&head).Parse(xtcp::Reader(whole.substr(whole.starts_with("\r\n") ? 2 : 0)));
  if (status != 0) return Refuse(status);
  if (head.length.value_or(0) > body_max_) return Refuse(413);
  packet->last = !head.has_body();
  left_ = head.length.value_or(0);
  total_ = 0;
  if (head.has_body()) state_ = head.chunked ? State::kChunkSize : State::kCounted;
  return {.packet = std::move(packet), .size = whole.size()};
}

xtcp::UnpackResult HttpDecoder::TakePart(std::string_view text) {
  const auto size = static_cast<std::size_t>(std::min<std::uint64_t>(left_, text.size()));
  auto packet = std::make_unique<HttpPacket>();
  packet->part = text.substr(0, size);
  left_ -= size;
  packet->last = left_ == 0 && state_ == State::kCounted;
  if (left_ == 0) state_ = packet->last ? State::kHead : State::kChunkEnd;
  return {.packet = std::move(packet), .size = size};
}

// RFC 9112, 7.1. Extensions are passed over.
xtcp::UnpackResult HttpDecoder::TakeChunkSize(std::string_view text) {
  constexpr std::size_t kLineBytesMax = 1 << 10;
  const Line line = FirstLine(text, kLineBytesMax, 400);
  if (line.status != 0) return Refuse(line.status);
  if (line.size == 0) return {};
  xtcp::Reader in(line.text);
  const auto size = in.Number<std::uint64_t>(16);
  const std::string_view rest = in.Rest();
  const bool is_extension = Trim(rest).starts_with(';') && IsFieldText(rest);
  if (in.failed() || (!rest.empty() && !is_extension)) return Refuse(400);
  if (size > body_max_ - total_) return Refuse(413);
  total_ += size;
  left_ = size;
  state_ = size == 0 ? State::kTrailer : State::kChunk;
  return {.size = line.size};
}

xtcp::UnpackResult HttpDecoder::TakeChunkEnd(std::string_view text) {
  const Line line = FirstLine(text, 2, 400);
  if (line.status != 0) return Refuse(line.status);
  if (line.size != 0) state_ = State::kChunkSize;
  return {.size = line.size};
}

// What the trailer section says is not used (RFC 9110, 6.5.1).
xtcp::UnpackResult HttpDecoder::TakeTrailer(std::string_view text) {
  const Line line = FirstLine(text, kHeadBytesMax - lines_, 431);
  if (line.status != 0) return Refuse(line.status);
  if (line.size == 0) return {};
  if (!line.text.empty()) {
    if (!FieldOf(line.text)) return Refuse(400);
    lines_ += line.size;
    return {.size = line.size};
  }
  auto packet = std::make_unique<HttpPacket>();
  packet->last = true;
  lines_ = 0;
  state_ = State::kHead;
  return {.packet = std::move(packet), .size = line.size};
}

}  // namespace demo
