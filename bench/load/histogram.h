#pragma once

#include <bit>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "load/client.h"

namespace load {

// Counts of times in nanoseconds, in steps of 1/64 of their size.
class Histogram {
 public:
  void Add(uint64_t ns) { ++counts_[IndexOf(ns)]; }

  void Add(const Histogram& other) {
    for (size_t i = 0; i < counts_.size(); ++i) counts_[i] += other.counts_[i];
  }

  // Microseconds that this share of all does not exceed.
  double Percentile(double share) const {
    uint64_t all = 0;
    for (const uint64_t count : counts_) all += count;
    auto left = static_cast<uint64_t>(static_cast<double>(all) * share);
    for (size_t i = 0; i < counts_.size(); ++i) {
      if (counts_[i] > left) return static_cast<double>(ValueOf(i)) / 1e3;
      left -= counts_[i];
    }
    size_t last = counts_.size() - 1;
    while (last > 0 && counts_[last] == 0) --last;
    return static_cast<double>(ValueOf(last)) / 1e3;
  }

 private:
  static constexpr int kStepBits = 6;
  static constexpr uint64_t kSteps = 1 << kStepBits;

  // The position of the first one bit, and the bits behind it.
  static size_t IndexOf(uint64_t ns) {
    if (ns < kSteps) return ns;
    const auto shift = static_cast<uint64_t>(std::bit_width(ns)) - kStepBits - 1;
    return (shift + 1) * kSteps + ((ns >> shift) - kSteps);
  }
  static uint64_t ValueOf(size_t index) {
    if (index < kSteps) return index;
    return (kSteps + index % kSteps) << (index / kSteps - 1);
  }

  std::vector<uint64_t> counts_ = std::vector<uint64_t>((64 - kStepBits + 1) * kSteps);
};

}  // namespace load
