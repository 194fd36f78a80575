#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

namespace bench {

// What no_kernel.cc gives to the library in place of the kernel: one client, which connects, sends
// `input` so many `times`, one read each, and ends its stream. What it is sent is only counted.
struct NoKernel {
  std::vector<std::byte> input;
  std::uint64_t times = 0;
  std::uint64_t sent_bytes = 0;
  std::uint64_t wakes = 0;  // writes to the eventfd
};
extern NoKernel no_kernel;

}  // namespace bench
