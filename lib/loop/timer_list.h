#pragma once

#include <xtcp/task.h>

#include <atomic>
#include <chrono>
#include <cstdint>
#include <memory>

#include "base/mutex.h"
#include "base/thread_annotations.h"
#include "reactor/channel.h"
#include "reactor/mailbox.h"

namespace xtcp::internal {

class EventLoop;
class TimerList;
struct LoopContext;

// A timer of the application. It is armed and ended on its loop's thread; other threads note what they
// want, and post it.
class TimerNode final : public Channel {
 public:
  using Time = std::chrono::nanoseconds;  // of sys::Now

  TimerNode(std::shared_ptr<LoopContext> context, Task task, Time due, Time period);

  // Any thread, any time.
  void Cancel() noexcept;
  bool armed() const noexcept { return armed_.load(); }

 private:
  friend class TimerList;

  void HandlePosted() override;
  void HandleTimer() override;

  const std::shared_ptr<LoopContext> context_;
  const Time period_;  // 0: once
  std::atomic<bool> armed_{true};

  // Loop thread only.
  Task task_;
  Time due_;
  bool counted_ = false;  // there is room for it among the loop's timers

  // Guarded by the list's lock.
  bool finished_ = false;
  std::shared_ptr<TimerNode> self_;  // while it is in the list
  TimerNode* before_ = nullptr;
  TimerNode* after_ = nullptr;
};

// The timers of one loop that have not ended.
//
// Thread safety: `Start` and the counts from any thread; all else on the loop's thread.
class TimerList {
 public:
  explicit TimerList(Mailbox& mailbox) : mailbox_(mailbox) {}

  // A timer that is armed as soon as the loop looks; null after `Close`, or without memory.
  std::shared_ptr<TimerNode> Start(const std::shared_ptr<LoopContext>& context, Task task,
                                   TimerNode::Time due, TimerNode::Time period) noexcept;

  // The loop runs; it ends.
  void SetLoop(EventLoop* loop) { loop_ = loop; }

  // Refuses timers from now on, and ends all there are.
  void Stop() XTCP_EXCLUDES(mu_);

  // The same for a loop that will not look into its mailbox again, or never did: then on any thread.
  void Close() XTCP_EXCLUDES(mu_) { EndAll(true); }

  std::uint64_t run() const { return run_.load(std::memory_order_relaxed); }
  std::uint64_t exceptions() const { return exceptions_.load(std::memory_order_relaxed); }

  // Counts a connection's OnTimer, too.
  void CountRun();

 private:
  friend class TimerNode;

  void Arm(TimerNode& node);
  void Run(TimerNode& node);

  void EndAll(bool also_posted) XTCP_EXCLUDES(mu_);

  // Takes it out, unless a post of it is on its way, which will do so.
  void Finish(TimerNode& node) XTCP_EXCLUDES(mu_);
  std::shared_ptr<TimerNode> Unlink(TimerNode& node) XTCP_REQUIRES(mu_);
  void End(TimerNode& node);

  Mailbox& mailbox_;
  EventLoop* loop_ = nullptr;  // loop thread only

  std::atomic<std::uint64_t> run_{0};
  std::atomic<std::uint64_t> exceptions_{0};

  Mutex mu_;
  TimerNode* first_ XTCP_GUARDED_BY(mu_) = nullptr;
  bool closed_ XTCP_GUARDED_BY(mu_) = false;
};

}  // namespace xtcp::internal
