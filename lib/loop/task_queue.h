#pragma once

#include <xtcp/task.h>

#include <cstddef>
#include <cstdint>
#include <system_error>
#include <vector>

#include "base/mutex.h"
#include "base/thread_annotations.h"
#include "reactor/channel.h"
#include "reactor/mailbox.h"
#include "sys/sync.h"

namespace xtcp::internal {

// Calls the application outside every connection. Returns whether it threw, which is logged.
bool CallTask(Task& task);

// The tasks that wait for a loop:
//
//   Push, any thread ──► waiting_ (a lock) ──► running_, when that is used up ──► called in turn
//
// A burst is one post to the loop. The memory of both vectors is kept, so that after a while
// nothing is allocated any more.
//
// Thread safety: `Push` and the counts may be used on any thread; everything else on the loop's.
class TaskQueue final : public Channel {
 public:
  explicit TaskQueue(Mailbox& mailbox) : mailbox_(mailbox) {}

  // Queues a task. Returns `Errc::kStopped` after `Close`, or `kNoMemory`; then the task is
  // destroyed with the argument.
  std::error_code Push(Task task) XTCP_EXCLUDES(mu_);

  // Refuses tasks from now on, and destroys those that wait. If no loop ever ran, any thread may
  // call it.
  void Close() XTCP_EXCLUDES(mu_);

  bool empty() const XTCP_EXCLUDES(mu_);

  // Counts a task that ran elsewhere on the loop: one of a connection. Loop thread only.
  void CountRun();

  std::uint64_t run() const { return run_.load(std::memory_order_relaxed); }
  std::uint64_t exceptions() const { return exceptions_.load(std::memory_order_relaxed); }

  // The number of tasks that run in one iteration at most.
  static constexpr std::size_t kPerTurn = 1024;

 private:
  void HandlePosted() XTCP_ON_LOOP override;

  // Makes `waiting_` the next `running_`, and returns whether there is anything in it.
  bool TakeWaiting() XTCP_EXCLUDES(mu_);

  Mailbox& mailbox_;

  // Loop thread only.
  std::vector<Task> running_;
  std::size_t next_ = 0;  // the one of running_ that is called next

  sys::Atomic<std::uint64_t> run_{0};
  sys::Atomic<std::uint64_t> exceptions_{0};

  mutable Mutex mu_;
  std::vector<Task> waiting_ XTCP_GUARDED_BY(mu_);
  bool closed_ XTCP_GUARDED_BY(mu_) = false;
};

}  // namespace xtcp::internal
