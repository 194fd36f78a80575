#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>

#include "reactor/loop_thread.h"
#include "socket/unique_fd.h"
#include "sys/sync.h"

namespace xtcp::internal {

// An object that an event loop serves. It has a descriptor, one timer, and a place in the loop's
// mailbox, all of them inside the object, so that neither a post nor a stop ever needs memory.
//
// Lifetime: it must outlive its registration, its timer and its stay in the mailbox. An object that
// is done with all three calls `EventLoop::Retire` and is released at the end of the iteration,
// because a later event of the same batch may still name it.
class Channel {
 public:
  // The descriptor has events, named as in epoll_ctl(2). This is never called for a descriptor that
  // was removed, not even when the event is in the same batch as the one that led to the removal.
  virtual void HandleEvents(std::uint32_t) XTCP_ON_LOOP {}

  // The time set by `EventLoop::Arm` has come.
  virtual void HandleTimer() XTCP_ON_LOOP {}

  // `Mailbox::Push` has been called since the last time.
  virtual void HandlePosted() XTCP_ON_LOOP {}

  // The iteration is over and nothing refers to the object any more; it may delete itself.
  virtual void HandleRetired() XTCP_ON_LOOP {}

  Channel(const Channel&) = delete;
  Channel& operator=(const Channel&) = delete;

  // Returns true to the caller that must call `Mailbox::Push` now. Until the loop takes the channel
  // out again, all other callers get false: what they changed before the call will be seen by that
  // `HandlePosted`. Any thread. A caller that can race with the channel's closing must hold the
  // lock that guards the closing.
  bool ClaimPost() { return !posted_.exchange(true, std::memory_order_acq_rel); }

 protected:
  Channel() = default;
  ~Channel() = default;

  // Returns whether the channel is in the mailbox, or about to be.
  bool posted() const { return posted_.load(std::memory_order_acquire); }

  UniqueFd fd_;

 private:
  friend class EventLoop;
  friend class Mailbox;
  friend class TimerQueue;
  static constexpr std::uint32_t kNoIndex = ~std::uint32_t{0};

  // Loop thread only, all but posted_.
  std::uint32_t timer_index_ = kNoIndex;
  Channel* next_ = nullptr;          // in the mailbox, or among the retired
  std::uint8_t interest_ = 0;        // the events that the poller watches, but for flags
  bool registered_ = false;          // the poller knows the descriptor
  sys::Atomic<bool> posted_{false};  // acq_rel: what was written before a post is seen after it
};

}  // namespace xtcp::internal
