#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>

namespace bench {

// The messages that producers send and `load drain` checks. Each says who made it and which one of
// its maker's on that connection it is, and the rest of it follows from these two.
inline constexpr std::size_t kMessageBytes = 64;
inline constexpr std::size_t kProducersMax = 16;

// A view of it in eight words: the first is the producer, the second the number.
struct Message {
  std::uint64_t words[kMessageBytes / 8];
};

inline void FillMessage(Message* message, std::uint64_t producer, std::uint64_t number) {
  message->words[0] = producer;
  message->words[1] = number;
  std::uint64_t word = producer * 0x9E3779B97F4A7C15 + number;
  for (std::size_t i = 2; i < kMessageBytes / 8; ++i) {
    message->words[i] = word = word * 0xD1342543DE82EF95 + 1;
  }
}

inline std::uint32_t ProducerOf(const char* bytes) {
  std::uint64_t producer;
  std::memcpy(&producer, bytes, sizeof producer);
  return producer < kProducersMax ? static_cast<std::uint32_t>(producer) : kProducersMax;
}

inline bool CheckMessage(const char* bytes, std::uint64_t producer, std::uint64_t number) {
  Message expected;
  FillMessage(&expected, producer, number);
  return std::memcmp(bytes, &expected, kMessageBytes) == 0;
}

}  // namespace bench
