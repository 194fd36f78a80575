#pragma once

#include <xtcp/stop_mode.h>

#include <cstdint>

namespace xtcp::internal {

// The stops that were asked for, as a set of two bits. A later stop can only be more immediate, so
// a graceful one after an immediate one is not noted.
enum class Stops : std::uint8_t {
  kNone = 0,
  kGraceful = 1,
  kNow = 2,
  kGracefulThenNow = 3,
};

constexpr Stops operator|(Stops a, Stops b) {
  return static_cast<Stops>(static_cast<unsigned>(a) | static_cast<unsigned>(b));
}
constexpr bool Has(Stops stops, Stops one) {
  return (static_cast<unsigned>(stops) & static_cast<unsigned>(one)) != 0;
}
constexpr Stops Add(Stops stops, StopMode mode) {
  if (mode == StopMode::kImmediately) return stops | Stops::kNow;
  return Has(stops, Stops::kNow) ? stops : stops | Stops::kGraceful;
}

}  // namespace xtcp::internal
