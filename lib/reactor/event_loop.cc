#include "reactor/event_loop.h"

#include <algorithm>

#include "base/cache_line.h"
#include "sys/syscalls.h"

namespace xtcp::internal {

namespace {

// With thousands of channels the next one of a batch has long left the caches. Its memory is
// fetched while this one's system calls run: what a turn touches of a connection (decisions/0026),
// wherever in a cache line that begins. Any address will do, even that of a channel that is gone.
void Prefetch(const void* channel) {
  constexpr std::size_t kTouched = 224;
  if (channel == nullptr) return;  // the eventfd's mark
  const char* const bytes = static_cast<const char*>(channel);
  for (std::size_t at = 0; at < kTouched; at += kCacheLine) PrefetchForRead(bytes + at);
  PrefetchForRead(bytes + kTouched - 1);
}

constexpr EventLoop::Time kForever = EventLoop::Time::max();

}  // namespace

std::error_code EventLoop::Open() {
  std::error_code error = poller_.Open();
  if (!error) error = mailbox_.Open();
  // Edge-triggered, because the eventfd is never read (docs/decisions/0004).
  if (!error) error = poller_.Add(mailbox_.fd(), EPOLLIN | EPOLLET, nullptr);
  if (error) Close();
  return error;
}

void EventLoop::Close() {
  mailbox_.Close();
  poller_.Close();
}

std::error_code EventLoop::Run() {
  const RunScope scope(*this);
  // A thread can be cancelled while its loop waits, where nothing is half done, and nowhere else.
  const CancellationOff off;
  std::error_code error;
  while (!quit_ && !error) error = Iterate(kForever, &off);
  return error;
}

void EventLoop::Drain() {
  const RunScope scope(*this);
  ++iteration_;
  do {
    RunPosted();
    RunRetired();
  } while (has_posted() || !mailbox_.empty());
}

std::error_code EventLoop::RunOnce(Time at_most) {
  const RunScope scope(*this);
  const CancellationOff off;
  const std::error_code error = Iterate(at_most, nullptr);
  NoteBusy(sys::Now());
  PrepareToBePolled();
  return error;
}

void EventLoop::PrepareToBePolled() {
  if (has_posted() || !mailbox_.AboutToSleep()) mailbox_.Wake();
}

std::error_code EventLoop::Iterate(Time at_most, const CancellationOff* off) {
  std::error_code error;
  Time now = sys::Now();
  NoteBusy(now);
  const bool may_sleep = !has_posted() && mailbox_.AboutToSleep();
  const int count =
      may_sleep ? Sleep(TimeoutMs(now, at_most), off, &error) : poller_.Wait(events_, 0, &error);
  if (may_sleep) now = sys::Now();
  began_ = now;
  mailbox_.Awake();
  if (count < 0) return error;
  ++iteration_;
  Dispatch(count);
  RunTimers();
  RunPosted();
  RunRetired();
  return error;
}

int EventLoop::Sleep(int timeout_ms, const CancellationOff* off, std::error_code* error) {
  if (off == nullptr) return poller_.Wait(events_, timeout_ms, error);
  const CancellationOff::Pause pause(*off);
  return poller_.Wait(events_, timeout_ms, error);
}

// The iteration that began at `began_` is over.
void EventLoop::NoteBusy(Time until) {
  if (began_ == Time{0}) return;  // there was none
  constexpr Time kMinute = std::chrono::minutes(1);
  const auto busy = static_cast<std::uint64_t>((until - began_).count());
  began_ = Time{0};
  const auto add = [](std::atomic<std::uint64_t>& counter, std::uint64_t n) {
    counter.store(counter.load(std::memory_order_relaxed) + n, std::memory_order_relaxed);
  };
  add(times_.iterations, 1);
  add(times_.busy_ns, busy);
  if (until >= minute_ends_) {
    // Of two minutes ago there is nothing to keep.
    const bool next = until < minute_ends_ + kMinute;
    times_.longest_before_ns.store(next ? times_.longest_ns.load(std::memory_order_relaxed) : 0,
                                   std::memory_order_relaxed);
    times_.longest_ns.store(0, std::memory_order_relaxed);
    minute_ends_ = until + kMinute;
  }
  if (busy > times_.longest_ns.load(std::memory_order_relaxed)) {
    times_.longest_ns.store(busy, std::memory_order_relaxed);
  }
}

EventLoop::Time EventLoop::TimeLeft() {
  if (has_posted() || !mailbox_.AboutToSleep()) return Time{0};
  if (timers_.empty()) return Time{-1};
  return std::max(timers_.first() - sys::Now(), Time{0});
}

void EventLoop::PushLocally(Channel* channel) {
  XTCP_DCHECK(IsCurrent(mailbox_), "a channel is pushed locally on another thread");
  if (began_ == Time{0}) {  // it is about to sleep, and has looked into its lists already
    mailbox_.Push(channel);
    return;
  }
  channel->next_ = nullptr;
  (pushed_last_ == nullptr ? pushed_first_ : pushed_last_->next_) = channel;
  pushed_last_ = channel;
}

std::error_code EventLoop::Watch(Channel* channel, std::uint32_t events) {
  AssertOnThread();
  XTCP_DCHECK(!channel->registered_, "a channel is watched twice");
  const std::error_code error = poller_.Add(channel->fd_.get(), events, channel);
  if (!error) {
    channel->registered_ = true;
    channel->interest_ = static_cast<std::uint8_t>(events);
  }
  return error;
}

std::error_code EventLoop::Rewatch(Channel* channel, std::uint32_t events) {
  XTCP_DCHECK(events <= 0xff, "a channel is watched anew for events that it cannot note");
  if (!channel->registered_) return Watch(channel, events);
  if (channel->interest_ == events) return {};
  const std::error_code error = poller_.Modify(channel->fd_.get(), events, channel);
  if (!error) channel->interest_ = static_cast<std::uint8_t>(events);
  return error;
}

void EventLoop::Unwatch(Channel* channel) {
  AssertOnThread();
  if (!std::exchange(channel->registered_, false)) return;
  poller_.Remove(channel->fd_.get());
}

void EventLoop::Retire(Channel* channel) {
  AssertOnThread();
  XTCP_DCHECK(!channel->registered_, "a channel is retired while it is watched");
  XTCP_DCHECK(channel->timer_index_ == Channel::kNoIndex,
              "a channel is retired with its timer armed");
  XTCP_DCHECK(!channel->posted(), "a channel is retired while it is in the mailbox");
  channel->next_ = std::exchange(retired_, channel);
}

int EventLoop::TimeoutMs(Time now, Time at_most) const {
  Time left = at_most;
  if (!timers_.empty()) left = std::min(left, timers_.first() - now);
  if (left <= Time{0}) return 0;
  if (left == kForever) return -1;
  // Rounded up: a loop that wakes just before its timer would spin until it is due.
  const auto ms = std::chrono::ceil<std::chrono::milliseconds>(left).count();
  return static_cast<int>(std::min<decltype(ms)>(ms, 1'000'000'000));
}

void EventLoop::Dispatch(int count) {
  for (int i = 0; i < count; ++i) {
    const epoll_event& event = events_[static_cast<std::size_t>(i)];
    if (i + 1 < count) Prefetch(events_[static_cast<std::size_t>(i) + 1].data.ptr);
    Channel* channel = static_cast<Channel*>(event.data.ptr);
    if (channel == nullptr) continue;     // the eventfd: RunPosted looks into the mailbox anyway
    if (!channel->registered_) continue;  // closed by an earlier event of this batch
    channel->HandleEvents(event.events);
  }
}

void EventLoop::RunTimers() {
  if (timers_.empty()) return;
  const Time now = sys::Now();
  for (int left = kTimersPerIteration; left > 0; --left) {
    Channel* const channel = timers_.TakeDue(now);
    if (channel == nullptr) return;
    channel->HandleTimer();
  }
}

// First what other threads have posted, then what this one has; not what comes meanwhile.
void EventLoop::RunPosted() {
  if (posted_ == nullptr) posted_ = mailbox_.TakeAll();
  if (local_ == nullptr) {
    local_ = std::exchange(pushed_first_, nullptr);
    pushed_last_ = nullptr;
  }
  for (int left = kPostsPerIteration; left > 0; --left) {
    Channel*& list = posted_ != nullptr ? posted_ : local_;
    if (list == nullptr) return;
    Channel* const channel = list;
    list = Mailbox::Next(channel);
    channel->HandlePosted();
  }
}

void EventLoop::RunRetired() {
  while (retired_ != nullptr) {
    Channel* channel = std::exchange(retired_, retired_->next_);
    channel->HandleRetired();
  }
}

}  // namespace xtcp::internal
