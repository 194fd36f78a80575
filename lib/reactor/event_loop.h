#pragma once

#include <array>
#include <chrono>
#include <cstdint>
#include <system_error>
#include <utility>

#include "base/callback_scope.h"
#include "base/thread_end.h"
#include "reactor/channel.h"
#include "reactor/mailbox.h"
#include "reactor/poller.h"
#include "reactor/timer_queue.h"

namespace xtcp::internal {

// One thread's loop. An iteration: wait, events, due timers, posted channels, retired channels. Each
// step is bounded, so that none starves another; what is left over comes in the next iteration.
//
// Thread safety: all on the loop's thread, except what `Mailbox` allows.
class EventLoop {
 public:
  using Time = std::chrono::nanoseconds;  // of sys::Now

  // `mailbox` must outlive the loop.
  explicit EventLoop(Mailbox& mailbox) : mailbox_(mailbox) {}

  // Opens what `Run` needs; with an error nothing is left open.
  std::error_code Open();

  // Runs iterations on this thread until `Quit`, or until epoll itself is broken. It throws
  // ForcedUnwind when the thread ends inside.
  std::error_code Run();
  void Quit() { quit_ = true; }

  // Calls `body` on this thread as if in an iteration, then serves posted and retired channels: for the
  // end of a loop whose `Run` has failed.
  template <typename Body>
  void RunBroken(const Body& body);

  // Closes what `Open` opened.
  void Close();

  // Whether the loop behind `mailbox` runs on this thread.
  static bool IsCurrent(const Mailbox& mailbox) { return current_ == &mailbox; }

  // Watches the channel's descriptor. Error and hang-up are always reported (epoll_ctl(2)).
  std::error_code Watch(Channel* channel, std::uint32_t events);

  // No system call when `events` is what is watched already.
  std::error_code Rewatch(Channel* channel, std::uint32_t events);
  void Unwatch(Channel* channel);

  // Room for the timers of `channels` channels. Throws std::bad_alloc.
  void ReserveTimers(std::size_t channels) { timers_.Reserve(channels); }
  void Arm(Channel* channel, Time due) { timers_.Arm(channel, due); }
  void Disarm(Channel* channel) { timers_.Disarm(channel); }

  // Arms, unless the channel is armed for an earlier time: whoever is woken too early looks again.
  void ArmNoLaterThan(Channel* channel, Time due) {
    if (due < timers_.DueOf(channel)) timers_.Arm(channel, due);
  }

  // Calls `HandleRetired` at the end of this iteration.
  void Retire(Channel* channel);

  // Counts iterations: a channel that is visited twice with the same number is visited twice in one
  // iteration.
  std::uint32_t iteration() const { return iteration_; }

  // At most so many due timers, and posted channels, are served in one iteration.
  static constexpr int kTimersPerIteration = 1024;
  static constexpr int kPostsPerIteration = 1024;

 private:
  int Sleep(const CancellationOff& off, std::error_code* error);
  int TimeoutMs();
  void Dispatch(int count);
  void RunTimers();
  void RunPosted();
  void RunRetired();

  // Everything that runs inside is, for the application, inside a callback.
  class RunScope {
   public:
    explicit RunScope(const Mailbox& mailbox) : outer_(std::exchange(current_, &mailbox)) {}
    ~RunScope() { current_ = outer_; }
    RunScope(const RunScope&) = delete;
    RunScope& operator=(const RunScope&) = delete;

   private:
    const CallbackScope callback_;
    const Mailbox* const outer_;
  };

  static inline constinit thread_local const Mailbox* current_ = nullptr;

  Mailbox& mailbox_;
  Poller poller_;
  TimerQueue timers_;
  Channel* posted_ = nullptr;  // taken from the mailbox, and not served yet
  Channel* retired_ = nullptr;
  std::uint32_t iteration_ = 0;
  bool quit_ = false;
  std::array<epoll_event, 512> events_{};
};

template <typename Body>
void EventLoop::RunBroken(const Body& body) {
  const RunScope scope(mailbox_);
  ++iteration_;
  body();
  RunPosted();
  RunRetired();
}

}  // namespace xtcp::internal
