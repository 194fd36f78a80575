#include "loop/loop_core.h"

#include <xtcp/error.h>

#include <cerrno>
#include <new>
#include <utility>

#include "base/check.h"
#include "base/log.h"
#include "base/thread_end.h"
#include "sys/syscalls.h"

namespace xtcp::internal {

LoopCore::LoopCore(std::shared_ptr<LoopContext> context)
    : context_(std::move(context)), loop_(context_->mailbox, context_->times) {}

std::error_code LoopCore::Open() {
  try {
    turn_.Allocate();
  } catch (const std::bad_alloc&) {
    return Errc::kNoMemory;
  }
  if (const std::error_code error = loop_.Open()) return error;
  context_->timers.SetLoop(&loop_);
  return {};
}

std::error_code LoopCore::Run() {
  try {
    const std::error_code error = loop_.Run();
    if (error) Fail(error);
    return error;
  } catch (const ForcedUnwind&) {
    const CancellationOff off;
    turn_.Abandon();
    Fail({ECANCELED, std::system_category()});
    throw;
  }
}

void LoopCore::EndWithout(std::error_code error) {
  Fail(error);
  Close();
}

std::error_code LoopCore::RunOnce(std::chrono::nanoseconds at_most, bool* quits) {
  const std::error_code error = loop_.RunOnce(at_most);
  if (error) Fail(error);
  *quits = error || loop_.quits();
  return error;
}

int LoopCore::Descriptor() {
  loop_.PrepareToBePolled();
  return loop_.descriptor();
}

void LoopCore::Close() {
  if (std::exchange(closed_, true)) return;
  loop_.AssertOnThread();
  context_->timers.SetLoop(&loop_);
  context_->tasks.Close();
  context_->timers.Stop();
  loop_.Drain();
  XTCP_DCHECK(services_ == nullptr, "a loop is closed while services live on it");
  context_->timers.Close();
  context_->timers.SetLoop(nullptr);
  loop_.Close();
  turn_.Free();
  // A connection that has ended, and is still held, holds no memory of its loop.
  context_->pool.Trim();
}

void LoopCore::RequestQuit() {
  quit_.store(true);
  Post();
}

void LoopCore::Post() {
  if (ClaimPost()) context_->mailbox.Push(this);
}

void LoopCore::Push(Channel* channel) {
  if (EventLoop::IsCurrent(context_->mailbox)) {
    loop_.PushLocally(channel);
  } else {
    context_->mailbox.Push(channel);
  }
}

void LoopCore::HandlePosted() {
  const Stops stops = context_->group_stops.load();
  if (stops != told_stops_) {
    told_stops_ = stops;
    context_->timers.Stop();
    tell_next_ = services_;
  }
  TellStops();
  if (quit_.load()) loop_.Quit();
}

// Services that attach from now on see the stop by themselves.
void LoopCore::TellStops() {
  constexpr int kPerIteration = 1024;
  for (int left = kPerIteration; tell_next_ != nullptr && left > 0; --left) {
    LoopService& service = *tell_next_;
    tell_next_ = service.after_;
    service.StopByGroup(told_stops_);
  }
  if (tell_next_ != nullptr) Post();
}

void LoopCore::Attach(LoopService& service) {
  XTCP_DCHECK(!service.attached_, "a service is attached to a loop twice");
  service.attached_ = true;
  service.before_ = nullptr;
  service.after_ = services_;
  if (services_ != nullptr) services_->before_ = &service;
  services_ = &service;
}

void LoopCore::Detach(LoopService& service) {
  if (!std::exchange(service.attached_, false)) return;
  if (tell_next_ == &service) tell_next_ = service.after_;
  (service.before_ == nullptr ? services_ : service.before_->after_) = service.after_;
  if (service.after_ != nullptr) service.after_->before_ = service.before_;
}

void LoopCore::Fail(std::error_code error) {
  loop_.AssertOnThread();
  XTCP_LOG(kError, "an event loop is broken: %s", error.message().c_str());
  // It is repeated because a post may still bring a connection, and because a service for which
  // another thread is just posting leaves only when that post has arrived.
  do {
    loop_.RunBroken([&]() XTCP_ON_LOOP {
      for (LoopService* service = services_; service != nullptr;) {
        LoopService* const next = service->after_;
        service->Abort(error);
        service = next;
      }
    });
    if (services_ != nullptr) sys::Yield();
  } while (services_ != nullptr);
}

}  // namespace xtcp::internal
