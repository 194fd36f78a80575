#pragma once

#include <algorithm>
#include <chrono>

#include "sys/syscalls.h"

namespace xtcp::internal {

// The share of one turn (R9): a number of packets, and about half a millisecond of their handler.
// The clock is read rarely: for the first time after a few packets, then when as many more were
// delivered as should fit, by the time that the earlier ones took.
class Slice {
 public:
  static constexpr int kPackets = 1024;
  // R9 allows about a millisecond. Half of it, so that a client beside four that flood is answered
  // within five even if its packet comes just after an iteration has begun.
  static constexpr std::chrono::nanoseconds kTime = std::chrono::microseconds(500);
  static constexpr int kFirstLook = 8;
  static constexpr int kLook = 64;  // the most packets between two looks

  // To be called before each packet. Returns whether it has to wait for the next turn.
  bool IsOver() { return left_until_look_-- == 0 && Look(); }

 private:
  bool Look() {
    delivered_ += look_;
    if (delivered_ >= kPackets) return true;
    const std::chrono::nanoseconds now = sys::Now();
    look_ = kFirstLook;
    if (delivered_ == kFirstLook) {
      since_ = now;
    } else {
      // The first packets are taken to have been as slow as those that were measured.
      const auto each = (now - since_) / (delivered_ - kFirstLook);
      const auto left = kTime - each * delivered_;
      if (left <= left.zero()) return true;
      look_ = kLook;
      if (each * kLook > left) look_ = std::max(1, static_cast<int>(left / each));
    }
    look_ = std::min(look_, kPackets - delivered_);
    left_until_look_ = look_ - 1;
    return false;
  }

  int left_until_look_ = kFirstLook;
  int look_ = kFirstLook;
  int delivered_ = 0;
  std::chrono::nanoseconds since_{0};
};

}  // namespace xtcp::internal
