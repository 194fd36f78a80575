#pragma once

#include <algorithm>
#include <chrono>

namespace xtcp::internal {

// The time for which something has lived: none before `Begin`, and no more after `End`. It takes
// the room of one time.
class Age {
 public:
  using Time = std::chrono::nanoseconds;  // of sys::Now

  void Begin(Time now) { since_ = std::max(now, Time{1}); }
  void End(Time now) {
    if (since_ > Time{0}) since_ = -At(now);
  }
  // The result is not negative, even when it has begun since `now` was read.
  Time At(Time now) const {
    if (since_ <= Time{0}) return -since_;
    return std::max(now - since_, Time{0});
  }

 private:
  Time since_{0};  // when it began; once it has ended, how long it lived, with a minus
};

}  // namespace xtcp::internal
