#include "reactor/timer_queue.h"

#include <algorithm>

#include "base/check.h"

namespace xtcp::internal {

void TimerQueue::Reserve(std::size_t channels) {
  if (channels > heap_.capacity()) heap_.reserve(std::max(channels, 2 * heap_.capacity()));
}

void TimerQueue::Arm(Channel* channel, Time due) {
  const Entry entry{due, channel};
  if (channel->timer_index_ == Channel::kNoIndex) {
    XTCP_DCHECK(heap_.size() < heap_.capacity(), "a timer is armed without a reserved place");
    heap_.push_back(entry);
    SiftUp(heap_.size() - 1, entry);
  } else if (due < heap_[channel->timer_index_].due) {
    SiftUp(channel->timer_index_, entry);
  } else {
    SiftDown(channel->timer_index_, entry);
  }
}

void TimerQueue::Disarm(Channel* channel) {
  if (channel->timer_index_ == Channel::kNoIndex) return;
  const std::size_t hole = channel->timer_index_;
  const Entry last = heap_.back();
  heap_.pop_back();
  channel->timer_index_ = Channel::kNoIndex;
  if (hole == heap_.size()) return;  // it was the last one
  // The last entry fills the hole. It comes from another branch, so it may belong above or below.
  if (hole > 0 && last.due < heap_[(hole - 1) / 2].due) {
    SiftUp(hole, last);
  } else {
    SiftDown(hole, last);
  }
}

TimerQueue::Time TimerQueue::DueOf(const Channel* channel) const {
  return channel->timer_index_ == Channel::kNoIndex ? Time::max()
                                                    : heap_[channel->timer_index_].due;
}

Channel* TimerQueue::TakeDue(Time now) {
  if (heap_.empty() || heap_.front().due > now) return nullptr;
  Channel* channel = heap_.front().channel;
  Disarm(channel);
  return channel;
}

void TimerQueue::Place(std::size_t index, Entry entry) {
  heap_[index] = entry;
  entry.channel->timer_index_ = static_cast<std::uint32_t>(index);
}

void TimerQueue::SiftUp(std::size_t index, Entry entry) {
  while (index > 0) {
    const std::size_t parent = (index - 1) / 2;
    if (heap_[parent].due <= entry.due) break;
    Place(index, heap_[parent]);
    index = parent;
  }
  Place(index, entry);
}

void TimerQueue::SiftDown(std::size_t index, Entry entry) {
  for (;;) {
    std::size_t child = 2 * index + 1;
    if (child >= heap_.size()) break;
    if (child + 1 < heap_.size() && heap_[child + 1].due < heap_[child].due) ++child;
    if (entry.due <= heap_[child].due) break;
    Place(index, heap_[child]);
    index = child;
  }
  Place(index, entry);
}

}  // namespace xtcp::internal
