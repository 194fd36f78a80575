#pragma once

#include <chrono>
#include <cstddef>
#include <vector>

#include "base/check.h"
#include "reactor/channel.h"

namespace xtcp::internal {

// The armed timers, ordered by due time: a binary heap with at most one entry for each channel.
// Room is made with `Reserve` when a channel is admitted, so that arming a timer never needs
// memory.
//
// Loop thread only.
class TimerQueue {
 public:
  using Time = std::chrono::nanoseconds;  // of sys::Now

  // Makes room for `channels` armed timers. Throws std::bad_alloc.
  void Reserve(std::size_t channels);

  // Sets the channel's one timer, and replaces an earlier setting.
  void Arm(Channel* channel, Time due);
  void Disarm(Channel* channel);

  bool empty() const { return heap_.empty(); }

  // When the first timer is due. There must be one.
  Time first() const {
    XTCP_DCHECK(!heap_.empty(), "there is no first timer");
    return heap_.front().due;
  }

  // When this channel's timer is due; Time::max() when it is not armed.
  Time DueOf(const Channel* channel) const;

  // Takes out the first channel if it is due at `now`, and otherwise returns null.
  Channel* TakeDue(Time now);

 private:
  struct Entry {
    Time due;
    Channel* channel;
  };

  // Puts `entry` there, and tells its channel where it is.
  void Place(std::size_t index, Entry entry);

  // Moves the hole at `index` towards the root while its parents are due later, and puts `entry`
  // there.
  void SiftUp(std::size_t index, Entry entry);

  // Moves the hole at `index` towards the leaves while a child is due earlier, and puts `entry`
  // there.
  void SiftDown(std::size_t index, Entry entry);

  std::vector<Entry> heap_;
};

}  // namespace xtcp::internal
