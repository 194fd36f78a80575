#pragma once

#include <atomic>
#include <system_error>

#include "base/gate.h"
#include "reactor/channel.h"

namespace xtcp::internal {

// How other threads reach a loop: a lock-free stack of channels that want their loop's attention,
// and an eventfd(2) that is written only when the loop sleeps. A burst of posts costs one write;
// posts to a loop that is awake cost none, since it looks again before it sleeps.
//
// Thread safety: `Push` from any thread; all else on the loop's thread.
// Lifetime: may outlive its loop; a `Push` then goes nowhere.
class Mailbox {
 public:
  Mailbox() = default;
  Mailbox(const Mailbox&) = delete;
  Mailbox& operator=(const Mailbox&) = delete;

  // Opens the eventfd.
  std::error_code Open();

  // Closes the eventfd, after the wakers that are inside `Push` have left. Later ones do not touch
  // it.
  void Close();

  // Hands over a channel whose `ClaimPost` gave true. Allocates nothing. Any thread.
  void Push(Channel* channel);

  // Makes the loop's poller report, as a post to a sleeping loop does.
  void Wake();

  // All that were posted, the oldest first, linked by `next_`. From here on each can be posted
  // again.
  Channel* TakeAll();
  static Channel* Next(Channel* channel);

  bool empty() const { return top_.load(std::memory_order_acquire) == nullptr; }

  // Announces sleep. False when something waits in the box; then the loop must not sleep.
  bool AboutToSleep();
  void Awake() { asleep_.store(false, std::memory_order_relaxed); }

  int fd() const { return fd_.get(); }

 private:
  // Both sequentially consistent: a pusher first puts its channel in and then looks whether the
  // loop sleeps; the loop first says that it sleeps and then looks into the box. One of them sees
  // the other.
  std::atomic<Channel*> top_{nullptr};
  std::atomic<bool> asleep_{false};

  Gate wakers_;  // those between seeing a sleeping loop and having written to fd_
  UniqueFd fd_;
};

}  // namespace xtcp::internal
