#pragma once

#include <arpa/inet.h>

#include <algorithm>
#include <array>
#include <cstdint>
#include <cstring>
#include <random>
#include <vector>

#include "load/client.h"

namespace load {

// The streams of all connections: frames whose payloads are pieces of one random text.
class Frames {
 public:
  explicit Frames(size_t payload) : payload_(payload), text_(kStarts + payload) {
    std::minstd_rand random(1);
    for (char& c : text_) c = static_cast<char>(random());
    const std::uint32_t length = htonl(static_cast<std::uint32_t>(payload));
    std::memcpy(header_.data(), &length, sizeof length);
  }

  size_t size() const { return header_.size() + payload_; }

  void Write(uint64_t connection, uint64_t position, char* out, size_t n) const {
    Walk(connection, position, n, [&](const char* part, size_t size) {
      std::memcpy(out, part, size);
      out += size;
      return true;
    });
  }

  bool Check(uint64_t connection, uint64_t position, const char* in, size_t n) const {
    return Walk(connection, position, n, [&](const char* part, size_t size) {
      const bool same = std::memcmp(in, part, size) == 0;
      in += size;
      return same;
    });
  }

 private:
  static constexpr size_t kStarts = 65'521;  // a prime, so that neighbours start elsewhere

  // Calls `visit` with each piece of the stream from `position` on, `n` bytes in all, until it says
  // false.
  template <class Visit>
  bool Walk(uint64_t connection, uint64_t position, size_t n, const Visit& visit) const {
    uint64_t frame = position / size();
    size_t at = position % size();
    while (n > 0) {
      const size_t head = at < header_.size() ? std::min(n, header_.size() - at) : 0;
      if (head > 0 && !visit(header_.data() + at, head)) return false;
      n -= head;
      at += head;
      const size_t body = std::min(n, size() - at);
      const size_t start = (connection * 7919 + frame * 104'729) % kStarts;
      if (body > 0 && !visit(text_.data() + start + at - header_.size(), body)) return false;
      n -= body;
      at = 0;
      ++frame;
    }
    return true;
  }

  const size_t payload_;
  std::array<char, 4> header_{};
  std::vector<char> text_;
};

}  // namespace load
