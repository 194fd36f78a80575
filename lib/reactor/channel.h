#pragma once

#include <atomic>
#include <chrono>
#include <cstddef>
#include <cstdint>

#include "socket/unique_fd.h"

namespace xtcp::internal {

// What an event loop serves: a descriptor, one timer, and a place in the loop's mailbox. All of it
// is inside the object, so that neither a post nor a stop ever needs memory.
//
// Lifetime: must outlive its registration, its timer and its stay in the mailbox. An object that is
// done with all three calls `EventLoop::Retire` and is let go at the end of the iteration, because a
// later event of the same batch may still name it.
class Channel {
 public:
  // `events` as epoll_ctl(2) names them. Never called for a descriptor that was removed, also not
  // from the same batch.
  virtual void HandleEvents(std::uint32_t) {}

  // The time set by `EventLoop::Arm` has come.
  virtual void HandleTimer() {}

  // `Mailbox::Push` was called since the last time.
  virtual void HandlePosted() {}

  // The iteration is over and nothing refers to the object any more; it may delete itself.
  virtual void HandleRetired() {}

  Channel(const Channel&) = delete;
  Channel& operator=(const Channel&) = delete;

  // True for the caller that must call `Mailbox::Push` now. Until the loop takes the channel out
  // again, all others get false: what they changed before the call will be seen by that
  // `HandlePosted`. Any thread. A caller that can race with the channel's closing must hold the lock
  // that guards the closing.
  bool ClaimPost() { return !posted_.exchange(true, std::memory_order_acq_rel); }

 protected:
  Channel() = default;
  ~Channel() = default;

  // Whether it is, or is about to be, in the mailbox.
  bool posted() const { return posted_.load(std::memory_order_acquire); }

  UniqueFd fd_;

 private:
  friend class EventLoop;
  friend class Mailbox;
  friend class TimerQueue;
  static constexpr std::uint32_t kNoIndex = ~std::uint32_t{0};

  std::uint32_t interest_ = 0;
  bool registered_ = false;          // loop thread only, and so all but posted_
  std::atomic<bool> posted_{false};  // acq_rel: what was written before a post is seen after it
  std::uint32_t timer_index_ = kNoIndex;
  Channel* next_ = nullptr;  // in the mailbox, or among the retired
};

}  // namespace xtcp::internal
