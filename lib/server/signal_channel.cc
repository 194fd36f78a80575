#include "server/signal_channel.h"

#include <xtcp/error.h>

#include <algorithm>
#include <cerrno>
#include <new>
#include <utility>

#include "base/log.h"
#include "loop/loop_core.h"
#include "sys/syscalls.h"

namespace xtcp::internal {

// ---- The thread that waits.

std::error_code SignalChannel::Open() {
  fd_ = UniqueFd(sys::EventFd());
  if (!fd_.valid()) return {errno, std::system_category()};
  count_.fd = fd_.get();
  return {};
}

std::error_code SignalChannel::Begin(const std::shared_ptr<SignalChannel>& self,
                                     const std::shared_ptr<Daemon>& daemon) {
  daemon_ = daemon;
  group_ = &daemon->group();
  try {
    // A group that has ended keeps nothing, and its loops must not see what nobody keeps.
    kept_ = group_->Keep(self);
  } catch (const std::bad_alloc&) {
    return Errc::kNoMemory;
  }
  if (kept_) Post();
  return {};
}

void SignalChannel::Leave() {
  leaves_.store(true);
  if (kept_) Post();
}

void SignalChannel::Post() {
  if (ClaimPost()) group_->core(0).Push(this);
}

// ---- The loop.

void SignalChannel::HandlePosted() {
  EventLoop& loop = group_->core(0).loop();
  if (leaves_.load()) {
    if (std::exchange(retired_, true)) return;
    if (has_timer_) {
      loop.Disarm(this);
      loop.RemoveTimer();
    }
    loop.Unwatch(this);
    loop.Retire(this);
    return;
  }
  // A group that was stopped before it ran has loops that were never opened.
  if (std::exchange(begun_, true) || loop.descriptor() < 0) return;
  error_ = Watch();
  if (!error_) return;
  XTCP_LOG(kError, "signals cannot be seen: %s", error_.message().c_str());
  const std::shared_ptr<Daemon> daemon = daemon_.lock();
  if (daemon != nullptr) daemon->Stop(StopMode::kGracefullyButNotWait);
}

std::error_code SignalChannel::Watch() {
  EventLoop& loop = group_->core(0).loop();
  try {
    loop.AddTimer();  // so that no signal ever needs memory
  } catch (const std::bad_alloc&) {
    return Errc::kNoMemory;
  }
  has_timer_ = true;
  // Edge-triggered, because it is never read: each signal writes to it, and is counted beside it.
  return loop.Watch(this, EPOLLIN | EPOLLET);
}

void SignalChannel::HandleEvents(std::uint32_t) {
  const std::uint32_t count = count_.count.load();
  const std::uint32_t before = std::exchange(seen_, count);
  const std::shared_ptr<Daemon> daemon = daemon_.lock();
  if (daemon == nullptr || count == before) return;
  if (count > 1) {
    XTCP_LOG(kInfo, "a second signal: stops immediately");
    daemon->Stop(StopMode::kImmediately);
  } else if (drain_.count() > 0) {
    XTCP_LOG(kInfo, "a signal: drains");
    drained_at_ = sys::Now() + drain_;
    daemon->BeginDrain();
    HandleTimer();
  } else {
    XTCP_LOG(kInfo, "a signal: stops gracefully");
    daemon->Stop(StopMode::kGracefullyButNotWait);
  }
}

// While it drains it looks now and then whether something is left. Nothing tells a group so.
void SignalChannel::HandleTimer() {
  constexpr Time kLook = std::chrono::milliseconds(20);
  const std::shared_ptr<Daemon> daemon = daemon_.lock();
  if (daemon == nullptr || leaves_.load()) return;
  const Time now = sys::Now();
  if (now >= drained_at_ || daemon->IsDrained()) {
    XTCP_LOG(kInfo, "drained: stops gracefully");
    daemon->Stop(StopMode::kGracefullyButNotWait);
  } else {
    group_->core(0).loop().Arm(this, std::min(drained_at_, now + kLook));
  }
}

void SignalChannel::HandleRetired() { group_->LetGo(this); }

}  // namespace xtcp::internal
