#include "loop/timer_list.h"

#include <new>
#include <utility>

#include "base/callback_scope.h"
#include "base/check.h"
#include "base/log.h"
#include "loop/loop_context.h"
#include "loop/totals.h"
#include "reactor/event_loop.h"
#include "sys/syscalls.h"

namespace xtcp::internal {

TimerNode::TimerNode(std::shared_ptr<LoopContext> context, Task task, Time due, Time period)
    : context_(std::move(context)), period_(period), task_(std::move(task)), due_(due) {}

void TimerNode::Cancel() noexcept {
  armed_.store(false);
  TimerList& list = context_->timers;
  bool post = false;
  {
    // A node that is not in the list any more must not come into the mailbox, since nothing would
    // keep it alive there.
    MutexLock lock(list.mu_);
    post = !finished_ && ClaimPost();
  }
  if (post) context_->mailbox.Push(this);
}

void TimerNode::HandlePosted() {
  if (armed()) {
    context_->timers.Arm(*this);
  } else {
    context_->timers.Finish(*this);
  }
}

void TimerNode::HandleTimer() { context_->timers.Run(*this); }

std::shared_ptr<TimerNode> TimerList::Start(const std::shared_ptr<LoopContext>& context, Task task,
                                            TimerNode::Time due, TimerNode::Time period) noexcept {
  std::shared_ptr<TimerNode> node;
  try {
    node = std::make_shared<TimerNode>(context, std::move(task), due, period);
  } catch (const std::bad_alloc&) {
    return nullptr;
  }
  bool closed = false;
  {
    MutexLock lock(mu_);
    closed = closed_;
    if (!closed) {
      node->self_ = node;
      node->after_ = first_;
      if (first_ != nullptr) first_->before_ = node.get();
      first_ = node.get();
      static_cast<void>(node->ClaimPost());
    }
  }
  if (closed) return nullptr;
  mailbox_.Push(node.get());
  return node;
}

void TimerList::Arm(TimerNode& node) {
  XTCP_DCHECK(loop_ != nullptr, "a timer is armed without a loop");
  if (!node.counted_) {
    try {
      loop_->AddTimer();
      node.counted_ = true;
    } catch (const std::bad_alloc&) {
      XTCP_LOG(kError, "there is no memory for a timer: it will not run");
      node.armed_.store(false);
      Finish(node);
      return;
    }
  }
  loop_->Arm(&node, node.due_);
}

void TimerList::Run(TimerNode& node) {
  if (!node.armed()) return;  // the post of its end is on its way
  if (node.period_ == TimerNode::Time{0}) {
    node.armed_.store(false);
  } else {
    // Periods that were missed are not made up for.
    const TimerNode::Time now = sys::Now();
    node.due_ += node.period_;
    if (node.due_ <= now)
      node.due_ += (now - node.due_) / node.period_ * node.period_ + node.period_;
  }
  CountRun();
  if (CallTask(node.task_)) Add(exceptions_, 1);
  if (node.armed()) {
    Arm(node);
  } else {
    Finish(node);
  }
}

void TimerList::CountRun() { Add(run_, 1); }

void TimerList::Finish(TimerNode& node) {
  std::shared_ptr<TimerNode> keep;
  {
    MutexLock lock(mu_);
    if (node.finished_ || node.posted()) return;
    keep = Unlink(node);
  }
  End(node);
}

std::shared_ptr<TimerNode> TimerList::Unlink(TimerNode& node) {
  XTCP_DCHECK(!node.finished_, "a timer is finished twice");
  node.finished_ = true;
  (node.before_ == nullptr ? first_ : node.before_->after_) = node.after_;
  if (node.after_ != nullptr) node.after_->before_ = node.before_;
  node.before_ = node.after_ = nullptr;
  return std::move(node.self_);
}

void TimerList::End(TimerNode& node) {
  if (node.counted_) {
    loop_->AssertOnThread();
    loop_->Disarm(&node);
    loop_->RemoveTimer();
  }
  node.task_ = Task();
}

void TimerList::Stop() { EndAll(false); }

void TimerList::EndAll(bool also_posted) {
  const CallbackScope scope;
  std::shared_ptr<TimerNode> ended;  // a list of those that are taken out, by `self_`
  {
    MutexLock lock(mu_);
    closed_ = true;
    for (TimerNode* node = first_; node != nullptr;) {
      TimerNode* const next = node->after_;
      node->armed_.store(false);
      // One that is in the mailbox ends when the loop takes it out.
      if (also_posted || !node->posted()) {
        std::shared_ptr<TimerNode> self = Unlink(*node);
        self->self_ = std::exchange(ended, nullptr);
        ended = std::move(self);
      }
      node = next;
    }
  }
  while (ended != nullptr) {
    const std::shared_ptr<TimerNode> node = std::exchange(ended, std::move(ended->self_));
    End(*node);
  }
}

}  // namespace xtcp::internal
