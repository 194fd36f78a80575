#pragma once

#include <algorithm>
#include <chrono>

namespace xtcp::internal {

// How long something has lived: nothing before `Begin`, and no more after `End`. As wide as one time.
class Age {
 public:
  using Time = std::chrono::nanoseconds;  // of sys::Now

  void Begin(Time now) { since_ = std::max(now, Time{1}); }
  void End(Time now) {
    if (since_ > Time{0}) since_ = -At(now);
  }
  // Not negative: it may have begun since `now` was read.
  Time At(Time now) const {
    if (since_ <= Time{0}) return -since_;
    return std::max(now - since_, Time{0});
  }

 private:
  Time since_{0};  // when it began; once it has ended, how long it lived, with a minus
};

}  // namespace xtcp::internal
