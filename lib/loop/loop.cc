#include <xtcp/error.h>
#include <xtcp/loop.h>

#include <algorithm>
#include <chrono>
#include <stdexcept>
#include <utility>

#include "base/callback_scope.h"
#include "base/thread_end.h"
#include "loop/group.h"
#include "loop/loop_access.h"
#include "loop/loop_context.h"
#include "reactor/event_loop.h"
#include "sys/syscalls.h"

namespace xtcp {

using internal::Group;
using internal::LoopAccess;
using internal::TimerNode;

namespace {

constexpr std::chrono::milliseconds kLongest = std::chrono::years(100);
constexpr std::size_t kMostLoops = 1024;

}  // namespace

// ---- Timer.

Timer& Timer::operator=(Timer&& other) noexcept {
  if (this != &other) {
    Cancel();
    node_ = std::move(other.node_);
  }
  return *this;
}

void Timer::Cancel() noexcept {
  if (const std::shared_ptr<TimerNode> node = std::move(node_)) node->Cancel();
}

void Timer::Detach() noexcept { node_.reset(); }

bool Timer::armed() const noexcept { return node_ != nullptr && node_->armed(); }

// ---- Loop.

std::error_code Loop::Post(Task task) const {
  return context_ == nullptr ? Errc::kNoLoop : context_->tasks.Push(std::move(task));
}

Timer Loop::RunAfter(std::chrono::milliseconds delay, Task task) const {
  Timer timer;
  if (context_ == nullptr) return timer;
  delay = std::clamp(delay, std::chrono::milliseconds(0), kLongest);
  timer.node_ =
      context_->timers.Start(context_, std::move(task), sys::Now() + delay, TimerNode::Time{0});
  return timer;
}

Timer Loop::RunEvery(std::chrono::milliseconds period, Task task) const {
  Timer timer;
  if (context_ == nullptr) return timer;
  period = std::clamp(period, std::chrono::milliseconds(1), kLongest);
  timer.node_ = context_->timers.Start(context_, std::move(task), sys::Now() + period, period);
  return timer;
}

bool Loop::IsCurrent() const noexcept {
  return context_ != nullptr && internal::EventLoop::IsCurrent(context_->mailbox);
}

std::size_t Loop::index() const noexcept { return context_ == nullptr ? 0 : context_->index; }

LoopStats Loop::Stats() const {
  LoopStats stats;
  if (context_ == nullptr) return stats;
  const internal::LoopTimes& times = context_->times;
  stats.turns = times.iterations.load(std::memory_order_relaxed);
  stats.busy = std::chrono::nanoseconds(times.busy_ns.load(std::memory_order_relaxed));
  stats.longest_turn =
      std::chrono::nanoseconds(std::max(times.longest_ns.load(std::memory_order_relaxed),
                                        times.longest_before_ns.load(std::memory_order_relaxed)));
  stats.tasks = context_->tasks.run();
  stats.timers = context_->timers.run();
  stats.exceptions = context_->tasks.exceptions() + context_->timers.exceptions();
  stats.connections = context_->connections.load(std::memory_order_relaxed);
  return stats;
}

// ---- LoopGroup.

LoopGroup::LoopGroup(std::size_t loops) {
  if (loops > kMostLoops) {
    throw std::invalid_argument("xtcp::LoopGroup: loops must be at most 1024");
  }
  group_ = Group::Make(loops);
}

LoopGroup::~LoopGroup() {
  const internal::CancellationOff off;
  group_->Stop(StopMode::kImmediately);
  if (!internal::InsideCallback()) {
    group_->TurnToEnd();
    group_->WaitForEnd();
  }
  group_->EndLookUps();
}

// Those that may outlast the handle keep the inside themselves.
std::error_code LoopGroup::Run() {
  const std::shared_ptr<Group> group = group_;
  return group->Run();
}

StopReport LoopGroup::Stop(StopMode mode) {
  const internal::CancellationOff off;
  const std::shared_ptr<Group> group = group_;
  return group->Stop(mode);
}

void LoopGroup::Drain(DrainMode mode) {
  const internal::CancellationOff off;
  const std::shared_ptr<Group> group = group_;
  group->Drain(mode);
}

bool LoopGroup::IsStopped() const { return group_->IsStopped(); }

std::size_t LoopGroup::size() const noexcept { return group_->size(); }

Loop LoopGroup::operator[](std::size_t i) const {
  return LoopAccess::Make(group_->core(i).shared_context());
}

Loop LoopGroup::Next() { return (*this)[group_->NextIndex()]; }

std::error_code LoopGroup::RunOnce(std::chrono::milliseconds at_most) {
  const std::shared_ptr<Group> group = group_;
  return group->RunOnce(std::clamp(at_most, std::chrono::milliseconds(0), kLongest));
}

int LoopGroup::Descriptor() { return group_->Descriptor(); }

std::chrono::milliseconds LoopGroup::Timeout() { return group_->Timeout(); }

}  // namespace xtcp
