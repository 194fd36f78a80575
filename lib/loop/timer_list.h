#pragma once

#include <xtcp/task.h>

#include <chrono>
#include <cstdint>
#include <memory>

#include "base/mutex.h"
#include "base/thread_annotations.h"
#include "reactor/channel.h"
#include "reactor/mailbox.h"
#include "sys/sync.h"

namespace xtcp::internal {

class EventLoop;
class TimerList;
struct LoopContext;

// A timer of the application:
//
//   Start, any thread ───► posted ──► armed on the loop ──► its task runs ──► again, or finished
//   Cancel, any thread ──► `armed_` is false ──► posted ──────────────────────────► finished
//
// It is armed and finished on its loop's thread; other threads note what they want, and post it.
class TimerNode final : public Channel {
 public:
  using Time = std::chrono::nanoseconds;  // of sys::Now

  TimerNode(std::shared_ptr<LoopContext> context, Task task, Time due, Time period);

  // `Cancel` ends the timer, and `armed` returns whether it will run once more. Any thread, at any
  // time.
  void Cancel() noexcept;
  bool armed() const noexcept { return armed_.load(); }

 private:
  friend class TimerList;

  void HandlePosted() XTCP_ON_LOOP override;
  void HandleTimer() XTCP_ON_LOOP override;

  const std::shared_ptr<LoopContext> context_;
  const Time period_;  // 0: once
  sys::Atomic<bool> armed_{true};

  // Loop thread only.
  Task task_;
  Time due_;
  bool counted_ = false;  // the loop has room for it (EventLoop::AddTimer)

  // Guarded by the list's lock.
  bool finished_ = false;
  std::shared_ptr<TimerNode> self_;  // while it is in the list
  TimerNode* before_ = nullptr;
  TimerNode* after_ = nullptr;
};

// The timers of one loop that have not finished. It keeps them alive.
//
// Thread safety: `Start` and the counts may be used on any thread; everything else on the loop's.
class TimerList {
 public:
  explicit TimerList(Mailbox& mailbox) : mailbox_(mailbox) {}

  // Makes a timer that is armed as soon as the loop looks. Returns null after `Stop`, or without
  // memory.
  std::shared_ptr<TimerNode> Start(const std::shared_ptr<LoopContext>& context, Task task,
                                   TimerNode::Time due, TimerNode::Time period) noexcept;

  // Tells the loop on which timers are armed, and null when that has ended.
  void SetLoop(EventLoop* loop) { loop_ = loop; }

  // Refuses timers from now on, and ends all there are.
  void Stop() XTCP_EXCLUDES(mu_);

  // Does the same for a loop that will not look into its mailbox again. If it never did, any thread
  // may call this.
  void Close() XTCP_EXCLUDES(mu_) { EndAll(true); }

  std::uint64_t run() const { return run_.load(std::memory_order_relaxed); }
  std::uint64_t exceptions() const { return exceptions_.load(std::memory_order_relaxed); }

  // Counts one run, of a timer of this list or of a connection.
  void CountRun();

 private:
  friend class TimerNode;

  // Arms the timer on the loop. If there is no memory for that, it is finished.
  void Arm(TimerNode& node) XTCP_ON_LOOP;

  // Its time has come: runs the task, then arms the timer again or finishes it.
  void Run(TimerNode& node) XTCP_ON_LOOP;

  // Finishes all timers; those that are in the mailbox only with `also_posted`.
  void EndAll(bool also_posted) XTCP_EXCLUDES(mu_);

  // Takes the timer out, unless a post of it is on its way, which will do so.
  void Finish(TimerNode& node) XTCP_ON_LOOP XTCP_EXCLUDES(mu_);

  // Takes it out of the list, and returns what kept it alive.
  std::shared_ptr<TimerNode> Unlink(TimerNode& node) XTCP_REQUIRES(mu_);

  // Does the rest for one that is not in the list any more, without the lock: its task is
  // destroyed.
  void End(TimerNode& node);

  Mailbox& mailbox_;
  EventLoop* loop_ = nullptr;  // loop thread only

  sys::Atomic<std::uint64_t> run_{0};
  sys::Atomic<std::uint64_t> exceptions_{0};

  Mutex mu_;
  TimerNode* first_ XTCP_GUARDED_BY(mu_) = nullptr;
  bool closed_ XTCP_GUARDED_BY(mu_) = false;
};

}  // namespace xtcp::internal
