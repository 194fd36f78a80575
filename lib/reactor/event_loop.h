#pragma once

#include <array>
#include <atomic>
#include <chrono>
#include <cstdint>
#include <system_error>
#include <utility>

#include "base/callback_scope.h"
#include "base/check.h"
#include "base/thread_end.h"
#include "reactor/channel.h"
#include "reactor/mailbox.h"
#include "reactor/poller.h"
#include "reactor/timer_queue.h"

namespace xtcp::internal {

// How a loop spends its time, since it began. Each is written by the loop alone, and read on any
// thread, hence relaxed atomics.
struct LoopTimes {
  std::atomic<std::uint64_t> iterations{0};
  std::atomic<std::uint64_t> busy_ns{0};
  std::atomic<std::uint64_t> longest_ns{0};         // iteration of the current minute
  std::atomic<std::uint64_t> longest_before_ns{0};  // of the minute before
};

// One thread's loop. An iteration: wait, events, due timers, posted channels, retired channels.
// Each step is bounded, so that none starves another; what is left over comes in the next
// iteration.
//
// Thread safety: everything runs on the loop's thread, except what `Mailbox` allows.
class EventLoop {
 public:
  using Time = std::chrono::nanoseconds;  // of sys::Now

  // Both must outlive the loop.
  EventLoop(Mailbox& mailbox, LoopTimes& times) : mailbox_(mailbox), times_(times) {}

  // Opens what `Run` needs; with an error nothing is left open.
  std::error_code Open();

  // Runs iterations on this thread until `Quit`, or until epoll itself is broken. It throws
  // ForcedUnwind when the thread ends inside.
  std::error_code Run();
  void Quit() { quit_ = true; }
  bool quits() const { return quit_; }

  // Runs one iteration, waiting at most so long, and leaves the loop as if it slept: a post makes
  // `descriptor` readable.
  std::error_code RunOnce(Time at_most);

  // While it does not run: makes sure that `descriptor` is readable when something waits.
  void PrepareToBePolled();

  // The poller's; readable when it has something to report.
  int descriptor() const { return poller_.fd(); }

  // For how long somebody else may wait for it: 0 when something waits already, negative for ever.
  Time TimeLeft();

  // Calls `body` on this thread as if in an iteration, then serves posted and retired channels. It
  // is meant for the end of a loop whose `Run` has failed.
  template <typename Body>
  void RunBroken(const Body& body);

  // Serves what was posted and is not served yet, and retired channels, until there are none:
  // nobody will do so any more.
  void Drain();

  // Closes what `Open` opened.
  void Close();

  // Returns whether the loop that `mailbox` belongs to runs on this thread.
  static bool IsCurrent(const Mailbox& mailbox) { return current_ == &mailbox; }

  // Ends a debug build's process on any other thread than the one that runs the loop, as long as
  // one does.
  void AssertOnThread() const XTCP_ASSERT_CAPABILITY(loop_thread) {
    XTCP_DCHECK(IsCurrent(mailbox_) || !runs_.load(std::memory_order_relaxed),
                "what belongs to a loop is used on another thread");
  }

  // Watches the channel's descriptor. Error and hang-up are always reported (epoll_ctl(2)).
  std::error_code Watch(Channel* channel, std::uint32_t events) XTCP_ON_LOOP;

  // Changes what is watched. It makes no system call when `events` are watched already.
  std::error_code Rewatch(Channel* channel, std::uint32_t events) XTCP_ON_LOOP;
  void Unwatch(Channel* channel) XTCP_ON_LOOP;

  // One more channel may arm its timer from now on, so that arming needs no memory; one less.
  // `AddTimer` throws std::bad_alloc.
  void AddTimer() XTCP_ON_LOOP {
    AssertOnThread();
    timers_.Reserve(timer_count_ + 1);
    ++timer_count_;
  }
  void RemoveTimer() XTCP_ON_LOOP {
    XTCP_DCHECK(timer_count_ > 0, "room for a timer is given back that nobody has");
    --timer_count_;
  }
  void Arm(Channel* channel, Time due) XTCP_ON_LOOP {
    AssertOnThread();
    timers_.Arm(channel, due);
  }
  void Disarm(Channel* channel) XTCP_ON_LOOP {
    AssertOnThread();
    timers_.Disarm(channel);
  }

  // Arms the timer, unless it is armed for an earlier time: a channel that is woken too early looks
  // at its deadlines and arms it again.
  void ArmNoLaterThan(Channel* channel, Time due) XTCP_ON_LOOP {
    if (due < timers_.DueOf(channel)) timers_.Arm(channel, due);
  }

  // Has `HandleRetired` called at the end of this iteration.
  void Retire(Channel* channel) XTCP_ON_LOOP;

  // The number of this iteration. A channel that sees the same number twice is visited twice in one
  // iteration.
  std::uint32_t iteration() const { return iteration_; }

  // When this iteration began: the time at which the loop had waited.
  Time iteration_began() const { return began_; }

  // Serves a channel at the end of this iteration or in the next one, as `Mailbox::Push` does,
  // without an atomic operation.
  void PushLocally(Channel* channel);

  // At most so many due timers, and posted channels, are served in one iteration.
  static constexpr int kTimersPerIteration = 1024;
  static constexpr int kPostsPerIteration = 1024;

 private:
  std::error_code Iterate(Time at_most, const CancellationOff* off) XTCP_ON_LOOP;
  int Sleep(int timeout_ms, const CancellationOff* off, std::error_code* error);
  int TimeoutMs(Time now, Time at_most) const;
  void NoteBusy(Time until);
  bool has_posted() const {
    return posted_ != nullptr || local_ != nullptr || pushed_first_ != nullptr;
  }
  void Dispatch(int count) XTCP_ON_LOOP;

  // Calls the channels whose timers are due.
  void RunTimers() XTCP_ON_LOOP;

  // Calls the channels that were posted before it looked.
  void RunPosted() XTCP_ON_LOOP;

  // Lets go of the channels that were retired in this iteration.
  void RunRetired() XTCP_ON_LOOP;

  // Marks this thread as the one that runs the loop. For the application, everything that runs
  // inside is inside a callback.
  class XTCP_SCOPED_CAPABILITY RunScope {
   public:
    explicit RunScope(EventLoop& loop) XTCP_ACQUIRE(loop_thread)
        : loop_(loop), outer_(std::exchange(current_, &loop.mailbox_)) {
      if constexpr (kDebugChecks) {
        XTCP_DCHECK(!loop_.runs_.exchange(true), "a loop runs on two threads, or within itself");
      }
    }
    ~RunScope() XTCP_RELEASE() {
      if constexpr (kDebugChecks) loop_.runs_.store(false);
      current_ = outer_;
    }
    RunScope(const RunScope&) = delete;
    RunScope& operator=(const RunScope&) = delete;

   private:
    const CallbackScope callback_;
    EventLoop& loop_;
    const Mailbox* const outer_;
  };

  // The mailbox of the loop that runs on this thread.
  static inline constinit thread_local const Mailbox* current_ = nullptr;

  Mailbox& mailbox_;
  LoopTimes& times_;
  Poller poller_;
  TimerQueue timers_;
  Channel* posted_ = nullptr;        // taken from the mailbox, and not served yet
  Channel* local_ = nullptr;         // taken from those below, and not served yet
  Channel* pushed_first_ = nullptr;  // posted on this thread, the oldest first
  Channel* pushed_last_ = nullptr;
  Channel* retired_ = nullptr;
  std::uint32_t iteration_ = 0;
  std::size_t timer_count_ = 0;
  bool quit_ = false;
  std::atomic<bool> runs_{false};  // a thread is in it; for `AssertOnThread` only
  Time began_{0};                  // the iteration that runs; 0: none
  Time minute_ends_{0};            // of `longest_ns`
  std::array<epoll_event, 512> events_{};
};

template <typename Body>
void EventLoop::RunBroken(const Body& body) {
  const RunScope scope(*this);
  ++iteration_;
  body();
  RunPosted();
  RunRetired();
}

}  // namespace xtcp::internal
