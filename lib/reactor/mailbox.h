#pragma once

#include <system_error>

#include "base/gate.h"
#include "reactor/channel.h"
#include "sys/sync.h"

namespace xtcp::internal {

// The way in which other threads reach a loop: a lock-free stack of channels that want their loop's
// attention, and an eventfd(2) that is written only when the loop sleeps. A burst of posts costs
// one write; posts to a loop that is awake cost none, since it looks again before it sleeps.
//
// Thread safety: `Push` may be called on any thread, everything else on the loop's.
// Lifetime: it may outlive its loop; a `Push` then has no effect.
class Mailbox {
 public:
  Mailbox() = default;
  Mailbox(const Mailbox&) = delete;
  Mailbox& operator=(const Mailbox&) = delete;

  // Opens the eventfd.
  std::error_code Open();

  // Closes the eventfd, after the threads that are inside `Push` have left. Later ones do not touch
  // it.
  void Close();

  // Hands over a channel whose `ClaimPost` returned true. It allocates nothing. Any thread.
  void Push(Channel* channel);

  // Makes the loop's poller report, as a post to a sleeping loop does.
  void Wake();

  // All that were posted, the oldest first, linked by `next_`. From here on each can be posted
  // again.
  Channel* TakeAll();

  // Returns the channel after `channel`, which from now on can be posted again.
  static Channel* Next(Channel* channel);

  bool empty() const { return top_.load(std::memory_order_acquire) == nullptr; }

  // Announces sleep. False when something waits in the box; then the loop must not sleep.
  bool AboutToSleep();
  void Awake() { asleep_.store(false, std::memory_order_relaxed); }

  int fd() const { return fd_.get(); }

 private:
  // Both are sequentially consistent: a poster first puts its channel in and then looks whether the
  // loop sleeps; the loop first says that it sleeps and then looks into the box. At least one of
  // them sees the other.
  sys::Atomic<Channel*> top_{nullptr};
  sys::Atomic<bool> asleep_{false};

  Gate wakers_;  // threads that have seen a sleeping loop and have not yet written to fd_
  UniqueFd fd_;
};

}  // namespace xtcp::internal
