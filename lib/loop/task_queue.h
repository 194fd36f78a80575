#pragma once

#include <xtcp/task.h>

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <system_error>
#include <vector>

#include "base/mutex.h"
#include "base/thread_annotations.h"
#include "reactor/channel.h"
#include "reactor/mailbox.h"

namespace xtcp::internal {

// Calls the application outside every connection: what it throws is logged, and true is returned.
bool CallTask(Task& task);

// The tasks that wait for a loop:
//
//   Push, any thread ──► waiting_ (a lock) ──► running_, swapped when it is used up ──► called in turn
//
// A burst is one post to the loop. Both vectors are kept, so that nothing is allocated once warm.
//
// Thread safety: `Push` and the counts from any thread; all else on the loop's thread.
class TaskQueue final : public Channel {
 public:
  explicit TaskQueue(Mailbox& mailbox) : mailbox_(mailbox) {}

  // `Errc::kStopped` after `Close`, `kNoMemory`. A task that is refused is destroyed with the argument.
  std::error_code Push(Task task) XTCP_EXCLUDES(mu_);

  // Refuses tasks from now on, and destroys those that wait. Where no loop ever ran: any thread.
  void Close() XTCP_EXCLUDES(mu_);

  bool empty() const XTCP_EXCLUDES(mu_);

  std::uint64_t run() const { return run_.load(std::memory_order_relaxed); }
  std::uint64_t exceptions() const { return exceptions_.load(std::memory_order_relaxed); }

  // One turn of the loop runs so many at most.
  static constexpr std::size_t kPerTurn = 1024;

 private:
  void HandlePosted() override;
  bool TakeWaiting() XTCP_EXCLUDES(mu_);

  Mailbox& mailbox_;

  // Loop thread only.
  std::vector<Task> running_;
  std::size_t next_ = 0;  // of running_

  std::atomic<std::uint64_t> run_{0};
  std::atomic<std::uint64_t> exceptions_{0};

  mutable Mutex mu_;
  std::vector<Task> waiting_ XTCP_GUARDED_BY(mu_);
  bool closed_ XTCP_GUARDED_BY(mu_) = false;
};

}  // namespace xtcp::internal
