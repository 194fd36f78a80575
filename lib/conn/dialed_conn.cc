#include "conn/dialed_conn.h"

#include <xtcp/error.h>

#include <cerrno>
#include <new>
#include <utility>

#include "base/callback_scope.h"
#include "base/log.h"
#include "base/scope.h"
#include "base/thread_end.h"
#include "loop/loop_access.h"
#include "socket/resolve.h"
#include "sys/sync.h"
#include "sys/syscalls.h"
#include "types/validate_options.h"

namespace xtcp::internal {

// The addresses of a dial, on their way from a thread of `Names`, or from the one that dials, to
// the connection's loop.
class DialedConn::NameLookUp final : public LookUp {
 public:
  NameLookUp(std::string address, std::weak_ptr<DialedConn> conn)
      : LookUp(std::move(address)), conn_(std::move(conn)) {}

  void Done(Resolution resolution) noexcept override {
    Set(std::move(resolution));
    if (const std::shared_ptr<DialedConn> conn = conn_.lock()) conn->PostDial();
  }
  void Set(Resolution resolution) {
    resolution_ = std::move(resolution);
    done_.store(true, std::memory_order_release);
  }

  bool done() const { return done_.load(std::memory_order_acquire); }
  Resolution& resolution() { return resolution_; }

 private:
  const std::weak_ptr<DialedConn> conn_;
  Resolution resolution_;
  sys::Atomic<bool> done_{false};
};

// What a connection needs while it is dialled, and not any more when it is established.
struct DialedConn::Dialling {
  Dialer dialer;
  std::shared_ptr<NameLookUp> look_up;  // until its result was taken
  const std::chrono::nanoseconds since;
};

DialedConn::DialedConn(Options with, const std::shared_ptr<Group>& group, std::size_t loop,
                       bool own)
    : DialedOptions{std::move(with)},
      ConnImpl(Ref<ConnContext>::Make(group->core(loop).shared_context(), options.protocol,
                                      options.send_buffer_limit),
               SendState::kNew),
      ServiceLoop(group->core(loop), options, ConnImpl::shared_context(),
                  ConnImpl::context().loop->dialled_totals),
      own_group_(own ? group : nullptr),
      owns_group_(own) {}

DialedConn::DialedConn(Options with, const std::shared_ptr<Group>& unused, Errc refusal)
    : DialedOptions{std::move(with)},
      ConnImpl(Ref<ConnContext>::Make(unused->core(0).shared_context(), options.protocol,
                                      options.send_buffer_limit),
               SendState::kNew),
      ServiceLoop(unused->core(0), options, ConnImpl::shared_context(),
                  ConnImpl::context().loop->dialled_totals),
      own_group_(unused),
      refusal_(refusal),
      owns_group_(true) {}

DialedConn::~DialedConn() = default;

// ---- Any thread.

std::error_code DialedConn::Dial(std::string_view address) {
  if (refusal_ != Errc{}) return refusal_;
  if (owns_group_) return Errc::kNoLoop;
  const CancellationOff off;
  const std::shared_ptr<DialedConn> keep = shared_from_this();
  Resolution resolution = ParseForDial(address);
  if (resolution.error) return resolution.error;
  if (!EnterState(SendState::kNew, SendState::kResolving)) return Errc::kAlreadyUsed;
  const std::shared_ptr<Group> group = this->group();
  if (StopWasAsked() || group == nullptr) return Refuse(Errc::kStopped);
  const bool is_name = resolution.is_name;
  try {
    MakeDialling(std::string(address));
  } catch (const std::bad_alloc&) {
    return Refuse(Errc::kNoMemory);
  }
  // From `Attach` on a stop on another thread may end it all, if nothing ever ran.
  const std::shared_ptr<NameLookUp> look_up = dialling_->look_up;
  if (!is_name) look_up->Set(std::move(resolution));
  self_ = keep;
  std::error_code error;
  if (group->Attach(*this) == Group::Attached::kRefused) error = Errc::kStopped;
  if (!error && is_name) error = group->names().Begin(look_up);
  // From here on the loop has it.
  if (!error && BeginDial()) return {};
  group->Detach(*this);
  return Refuse(error ? error : Errc::kStopped);
}

void DialedConn::MakeDialling(std::string address) {
  Dialer::Owner& owner = *this;
  auto look_up = std::make_shared<NameLookUp>(std::move(address), weak_from_this());
  dialling_.reset(new Dialling{.dialer = {owner, ServiceLoop::loop(), options},
                               .look_up = std::move(look_up),
                               .since = sys::Now()});
}

std::error_code DialedConn::DialResult() const {
  const ConnStats stats = Stats();
  return stats.reason == CloseReason::kConnectFailed ? stats.error : std::error_code();
}

std::error_code DialedConn::Refuse(std::error_code error) {
  // A stop may have ended it already, on a group that never ran.
  if (!CloseUnopened(error)) return Errc::kStopped;
  LetGo();
  return error;
}

std::error_code DialedConn::DialAndServe(std::string_view address) {
  if (InsideCallback()) return Errc::kWouldDeadlock;
  if (refusal_ != Errc{}) return refusal_;
  const std::shared_ptr<DialedConn> keep = shared_from_this();
  if (owns_group_) return DialOnOwnLoop(address);
  if (const std::error_code error = Dial(address)) return error;
  WaitForEnd();
  return DialResult();
}

StopReport DialedConn::Stop(StopMode mode) {
  const std::shared_ptr<Group> group = owns_group_ ? nullptr : this->group();
  if (group == nullptr) return ConnImpl::Stop(mode);
  // It is noted first. A dial attaches and then looks for a stop: one of them finds the other.
  const bool waits = mode == StopMode::kGracefullyAndWait;
  const StopReport report = ConnImpl::Stop(waits ? StopMode::kGracefullyButNotWait : mode);
  if (group->DetachIdle(*this)) {
    EndIdle();
    return {};
  }
  return waits ? ConnImpl::Stop(mode) : report;
}

void DialedConn::EndIdle() {
  if (owns_group_) return;  // it ends when its group looks into the mailbox for the last time
  if (!CloseUnopened(Errc::kStopped)) return;
  over_ = true;
  LetGoIfOver();
}

// ---- With a loop of its own, on the thread that dials.

std::error_code DialedConn::DialOnOwnLoop(std::string_view address) {
  if (!EnterState(SendState::kNew, SendState::kResolving)) return Errc::kAlreadyUsed;
  // Whatever becomes of the dial and of this thread, threads that wait are released when all is
  // closed.
  const AtScopeEnd released([this] { ReleaseWaiters(); });
  const std::shared_ptr<Group> group = std::move(own_group_);
  if (StopWasAsked()) return Refuse(Errc::kStopped);
  Resolution resolution = [&] {
    const CancellationOff off;
    return ResolveForDial(address);
  }();
  if (resolution.error == Errc::kBadAddress) return Refuse(resolution.error);
  try {
    MakeDialling({});
  } catch (const std::bad_alloc&) {
    return Refuse(Errc::kNoMemory);
  }
  dialling_->look_up->Set(std::move(resolution));
  return ServeOnOwnLoop(group);
}

std::error_code DialedConn::ServeOnOwnLoop(const std::shared_ptr<Group>& group) {
  self_ = shared_from_this();
  static_cast<void>(group->Attach(*this));
  EnterState(SendState::kResolving, SendState::kDialing);
  ConnImpl::Post();
  static_cast<void>(group->Run());
  return DialResult();
}

// ---- On the loop: the dial.

void DialedConn::HandlePosted() {
  if (established_) {
    ConnImpl::HandlePosted();
  } else if (is_closed()) {
    LetGoIfOver();
  } else {
    if (!begun_) BeginOnLoop();
    if (!is_closed()) GoOn();
  }
}

void DialedConn::BeginOnLoop() {
  core().Attach(*this);
  begun_ = true;
  int timers = 0;
  try {
    for (; timers < kTimers; ++timers) ServiceLoop::loop().AddTimer();
  } catch (const std::bad_alloc&) {
    for (; timers > 0; --timers) ServiceLoop::loop().RemoveTimer();
    has_timers_ = false;
    DialFailed(Errc::kNoMemory);
    return;
  }
  has_timers_ = true;
  dialling_->dialer.StartClock(dialling_->since);
}

void DialedConn::GoOn() {
  if (DialIsStopped()) {
    const std::error_code error = owns_group_ ? group()->error() : std::error_code{};
    DialFailed(error ? error : Errc::kStopped);
  } else if (dialling_->look_up != nullptr && dialling_->look_up->done()) {
    Resolution resolution = std::move(dialling_->look_up->resolution());
    dialling_->look_up.reset();
    if (resolution.error) {
      DialFailed(resolution.error);
    } else {
      dialling_->dialer.Begin(std::move(resolution.addresses));
    }
  }
}

bool DialedConn::DialIsStopped() const { return StopWasAsked() || ConnImpl::context().stopping(); }

void DialedConn::DialSucceeded(ConnectedSocket socket, int reset) {
  dialling_->dialer.Retire();
  if (reset != 0) NoteReset(reset);
  SetHandles(&self_);
  LoopContext& loop = *ConnImpl::context().loop;
  const std::shared_ptr<Group> group = this->group();
  group->ConnectionBegan();
  loop.connections.store(loop.connections.load(std::memory_order_relaxed) + 1,
                         std::memory_order_relaxed);
  established_ = true;
  if (observer_ != nullptr) observer_->ConnectionBegins(self_);
  const std::error_code error =
      Begin(std::move(socket.fd), std::move(socket.ends), EventType::kConnected);
  if (!error) return;
  established_ = false;
  ConnectionEnded({});
  DialFailed(error);
}

void DialedConn::DialFailed(std::error_code error) {
  if (dialling_ != nullptr && begun_) dialling_->dialer.Retire();
  if (!CloseUnopened(error)) return;
  try {
    options.handler->OnDialFailed(self_ != nullptr ? self_ : shared_from_this(), error);
  } catch (const ForcedUnwind&) {
    throw;
  } catch (...) {
    LogUserExceptionOf(*this);
  }
  over_ = true;
}

void DialedConn::DialerGone() {
  dialling_.reset();
  LetGoIfOver();
}

// ---- On the loop: the end.

void DialedConn::StopByGroup(Stops stops) {
  if (established_) {
    StopByService(stops);
  } else if (!is_closed()) {
    DialFailed(Errc::kStopped);
  }
}

void DialedConn::Abort(std::error_code error) {
  if (established_) {
    ConnImpl::Abort(error);
  } else if (!is_closed()) {
    DialFailed(error);
  }
}

void DialedConn::ConnectionEnded(const StopReport& report) {
  LoopContext& loop = *ConnImpl::context().loop;
  loop.connections.store(loop.connections.load(std::memory_order_relaxed) - 1,
                         std::memory_order_relaxed);
  group()->ConnectionEnded(report);
  if (observer_ != nullptr) observer_->ConnectionEnds(report);
}

void DialedConn::LetGoIfOver() {
  core().loop().AssertOnThread();
  if (established_ ? !is_closed() : !over_) return;
  if (!posted() && (dialling_ == nullptr || !begun_)) LetGo();
}

void DialedConn::LetGo() {
  const std::shared_ptr<Group> group = this->group();
  if (begun_) {
    core().loop().AssertOnThread();
    core().Detach(*this);
    for (int i = 0; has_timers_ && i < kTimers; ++i) ServiceLoop::loop().RemoveTimer();
  }
  {
    // The destructors of what the application gave may call what waits, which must not wait here.
    const CallbackScope scope;
    DropUserData();
    options.handler.reset();
    dialling_.reset();
  }
  const ConnPtr self = std::move(self_);
  const std::shared_ptr<DialObserver> observer = std::move(observer_);
  if (observer != nullptr) observer->ConnectionOver(Stats());
  if (!owns_group_) ReleaseWaiters();
  if (group == nullptr) return;
  group->Detach(*this);
  if (owns_group_) group->Stop(StopMode::kImmediately);
}

}  // namespace xtcp::internal

namespace xtcp {

using internal::DialedConn;
using internal::Group;
using internal::LoopAccess;

ConnPtr NewConn(Options options) {
  internal::ValidateOptions(options);
  return std::make_shared<DialedConn>(std::move(options), Group::Make(1), 0, true);
}

ConnPtr NewConn(Options options, Loop loop) {
  internal::ValidateOptions(options);
  const auto& context = LoopAccess::ContextOf(loop);
  const std::shared_ptr<Group> group = context == nullptr ? nullptr : context->group.lock();
  if (group == nullptr) {
    return std::make_shared<DialedConn>(std::move(options), Group::Make(1),
                                        context == nullptr ? Errc::kNoLoop : Errc::kStopped);
  }
  return std::make_shared<DialedConn>(std::move(options), group, context->index, false);
}

}  // namespace xtcp
