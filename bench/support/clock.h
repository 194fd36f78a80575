#pragma once

#include <time.h>

#include <cstdint>

namespace bench {

// Nanoseconds of `clock`; see clock_gettime(2).
inline std::uint64_t ReadNs(clockid_t clock) {
  timespec now{};
  clock_gettime(clock, &now);
  return static_cast<std::uint64_t>(now.tv_sec) * 1'000'000'000 +
         static_cast<std::uint64_t>(now.tv_nsec);
}

}  // namespace bench
