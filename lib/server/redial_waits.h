#pragma once

#include <xtcp/redialer.h>

#include <chrono>
#include <cstdint>

namespace xtcp::internal {

// How long a redialer waits before each dial. It is a value: it reads no clock and arms no timer.
class RedialWaits {
 public:
  using Time = std::chrono::nanoseconds;

  // `backoff` is possible (`ValidateBackoff`). Redialers with different seeds differ in what is
  // left to chance.
  RedialWaits(const Backoff& backoff, std::uint64_t seed)
      : backoff_(backoff), wait_(backoff.first), random_(seed | 1) {}

  // Returns the next wait, and lets the one after it grow.
  Time Next();

  // The connection before it was a good one if it has received a packet, or has lived for `most`:
  // then the waits begin anew.
  void NoteEnd(std::uint64_t received_packets, std::chrono::milliseconds age) {
    if (received_packets > 0 || age >= backoff_.most) wait_ = backoff_.first;
  }

 private:
  const Backoff backoff_;
  Time wait_;             // the next one, before it is cut
  std::uint64_t random_;  // never 0
};

}  // namespace xtcp::internal
