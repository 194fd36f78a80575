#include "reactor/event_loop.h"

#include <algorithm>

#include "sys/syscalls.h"

namespace xtcp::internal {

namespace {

// With thousands of channels the next one of a batch has long left the caches. What its turn will
// touch comes while this one's system calls run. Any address will do, also of one that is gone.
void Prefetch(const void* channel) {
  constexpr std::size_t kLine = 64, kTouched = 320;
  if (channel == nullptr) return;  // the eventfd's mark
  const char* const bytes = static_cast<const char*>(channel);
  for (std::size_t at = 0; at < kTouched; at += kLine) __builtin_prefetch(bytes + at);
}

}  // namespace

std::error_code EventLoop::Open() {
  std::error_code error = poller_.Open();
  if (!error) error = mailbox_.Open();
  if (!error) error = poller_.Add(mailbox_.fd(), EPOLLIN | EPOLLET, nullptr);
  if (error) Close();
  return error;
}

void EventLoop::Close() {
  mailbox_.Close();
  poller_.Close();
}

std::error_code EventLoop::Run() {
  const RunScope scope(mailbox_);
  // A thread is cancelled while its loop waits, and nowhere else: there nothing is half done.
  const CancellationOff off;
  std::error_code error;
  while (!quit_) {
    const bool may_sleep = posted_ == nullptr && mailbox_.AboutToSleep();
    const int count = may_sleep ? Sleep(off, &error) : poller_.Wait(events_, 0, &error);
    mailbox_.Awake();
    if (count < 0) break;
    ++iteration_;
    Dispatch(count);
    RunTimers();
    RunPosted();
    RunRetired();
  }
  return error;
}

int EventLoop::Sleep(const CancellationOff& off, std::error_code* error) {
  const int timeout = TimeoutMs();
  const CancellationOff::Pause pause(off);
  return poller_.Wait(events_, timeout, error);
}

std::error_code EventLoop::Watch(Channel* channel, std::uint32_t events) {
  const std::error_code error = poller_.Add(channel->fd_.get(), events, channel);
  if (!error) {
    channel->registered_ = true;
    channel->interest_ = events;
  }
  return error;
}

std::error_code EventLoop::Rewatch(Channel* channel, std::uint32_t events) {
  if (!channel->registered_) return Watch(channel, events);
  if (channel->interest_ == events) return {};
  const std::error_code error = poller_.Modify(channel->fd_.get(), events, channel);
  if (!error) channel->interest_ = events;
  return error;
}

void EventLoop::Unwatch(Channel* channel) {
  if (!std::exchange(channel->registered_, false)) return;
  poller_.Remove(channel->fd_.get());
}

void EventLoop::Retire(Channel* channel) { channel->next_ = std::exchange(retired_, channel); }

int EventLoop::TimeoutMs() {
  if (timers_.empty()) return -1;
  const Time left = timers_.first() - sys::Now();
  if (left <= Time{0}) return 0;
  // Rounded up: a loop that wakes just before its timer would spin until it is due.
  const auto ms = std::chrono::ceil<std::chrono::milliseconds>(left).count();
  return static_cast<int>(std::min<decltype(ms)>(ms, 1'000'000'000));
}

void EventLoop::Dispatch(int count) {
  for (int i = 0; i < count; ++i) {
    const epoll_event& event = events_[static_cast<std::size_t>(i)];
    if (i + 1 < count) Prefetch(events_[static_cast<std::size_t>(i) + 1].data.ptr);
    Channel* channel = static_cast<Channel*>(event.data.ptr);
    if (channel == nullptr) continue;     // the eventfd: the mailbox is looked into anyway
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

void EventLoop::RunPosted() {
  if (posted_ == nullptr) posted_ = mailbox_.TakeAll();
  for (int left = kPostsPerIteration; posted_ != nullptr && left > 0; --left) {
    Channel* const channel = posted_;
    posted_ = Mailbox::Next(channel);
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
