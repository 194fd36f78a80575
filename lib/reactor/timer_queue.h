#pragma once

#include <chrono>
#include <cstddef>
#include <vector>

#include "reactor/channel.h"

namespace xtcp::internal {

// When which channel wants `HandleTimer`: a binary heap with one entry per channel at most. Room is
// made with `Reserve` when a channel is admitted, so that arming a timer never needs memory.
class TimerQueue {
 public:
  using Time = std::chrono::nanoseconds;  // of sys::Now

  // Room for `channels` armed timers. Throws std::bad_alloc.
  void Reserve(std::size_t channels);

  // Sets the channel's only timer, in place of an earlier setting.
  void Arm(Channel* channel, Time due);
  void Disarm(Channel* channel);

  bool empty() const { return heap_.empty(); }
  Time first() const { return heap_.front().due; }  // not when empty
  Time DueOf(const Channel* channel) const;         // Time::max() when it is not armed

  // Takes out the first channel if it is due at `now`, else null.
  Channel* TakeDue(Time now);

 private:
  struct Entry {
    Time due;
    Channel* channel;
  };
  void Place(std::size_t index, Entry entry);
  void SiftUp(std::size_t index, Entry entry);
  void SiftDown(std::size_t index, Entry entry);

  std::vector<Entry> heap_;
};

}  // namespace xtcp::internal
