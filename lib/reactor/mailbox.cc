#include "reactor/mailbox.h"

#include <cerrno>
#include <cstdint>
#include <utility>

#include "base/thread_end.h"
#include "sys/syscalls.h"

namespace xtcp::internal {

std::error_code Mailbox::Open() {
  fd_ = UniqueFd(sys::EventFd());
  if (!fd_.valid()) return {errno, std::system_category()};
  return {};
}

void Mailbox::Close() {
  wakers_.CloseAndWait();
  fd_.Reset();
}

void Mailbox::Push(Channel* channel) {
  Channel* top = top_.load(std::memory_order_relaxed);
  do {
    channel->next_ = top;
  } while (!top_.compare_exchange_weak(top, channel, std::memory_order_seq_cst));
  if (asleep_.load(std::memory_order_seq_cst) && asleep_.exchange(false)) Wake();
}

void Mailbox::Wake() {
  if (!wakers_.Enter()) return;
  const CancellationOff off;  // no other thread will wake the loop
  const std::uint64_t one = 1;
  // The loop watches the eventfd edge-triggered and never reads it, so that every write is an
  // event. EAGAIN says that the counter is at its end (eventfd(2)): the loop has events enough.
  while (sys::Write(fd_.get(), &one, sizeof one) < 0 && errno == EINTR) {
  }
  wakers_.Leave();
}

Channel* Mailbox::TakeAll() {
  Channel* newest = top_.exchange(nullptr, std::memory_order_seq_cst);
  Channel* oldest = nullptr;
  while (newest != nullptr) {
    Channel* next = std::exchange(newest->next_, oldest);
    oldest = std::exchange(newest, next);
  }
  return oldest;
}

Channel* Mailbox::Next(Channel* channel) {
  Channel* next = channel->next_;
  // This is an exchange and not a store because it has to take part in the order of the posters'
  // exchanges: a poster that was told "already posted" has written what it wants seen before this
  // line.
  channel->posted_.exchange(false, std::memory_order_acq_rel);
  return next;
}

bool Mailbox::AboutToSleep() {
  asleep_.store(true, std::memory_order_seq_cst);
  if (top_.load(std::memory_order_seq_cst) == nullptr) return true;
  Awake();
  return false;
}

}  // namespace xtcp::internal
