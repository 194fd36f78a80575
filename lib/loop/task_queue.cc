#include "loop/task_queue.h"

#include <xtcp/error.h>

#include <new>
#include <utility>

#include "base/callback_scope.h"
#include "base/log.h"
#include "base/thread_end.h"
#include "loop/totals.h"

namespace xtcp::internal {

bool CallTask(Task& task) {
  try {
    task();
    return false;
  } catch (const ForcedUnwind&) {
    throw;
  } catch (...) {
    LogUserException("a task");
  }
  return true;
}

std::error_code TaskQueue::Push(Task task) {
  bool post = false;
  try {
    MutexLock lock(mu_);
    if (closed_) return Errc::kStopped;
    waiting_.push_back(std::move(task));
    post = waiting_.size() == 1 && ClaimPost();
  } catch (const std::bad_alloc&) {
    return Errc::kNoMemory;
  }
  if (post) mailbox_.Push(this);
  return {};
}

void TaskQueue::CountRun() { Add(run_, 1); }

bool TaskQueue::TakeWaiting() {
  constexpr std::size_t kKept = 4 * kPerTurn;  // after a burst of more the memory is given back
  running_.clear();
  if (running_.capacity() > kKept) std::vector<Task>().swap(running_);
  next_ = 0;
  MutexLock lock(mu_);
  running_.swap(waiting_);
  return !running_.empty();
}

void TaskQueue::HandlePosted() {
  if (next_ == running_.size() && !TakeWaiting()) return;
  // It runs what was posted before this look and no more, so that a task that posts itself again
  // waits for the next iteration.
  for (std::size_t left = kPerTurn; next_ < running_.size() && left > 0; --left) {
    Task task = std::move(running_[next_++]);
    CountRun();
    if (CallTask(task)) Add(exceptions_, 1);
  }
  if ((next_ < running_.size() || !empty()) && ClaimPost()) mailbox_.Push(this);
}

bool TaskQueue::empty() const {
  MutexLock lock(mu_);
  return waiting_.empty();
}

void TaskQueue::Close() {
  const CallbackScope scope;
  std::vector<Task> dropped;
  {
    MutexLock lock(mu_);
    closed_ = true;
    dropped.swap(waiting_);
  }
  for (std::size_t i = next_; i < running_.size(); ++i) running_[i] = Task();
  next_ = running_.size();
  dropped.clear();
}

}  // namespace xtcp::internal
