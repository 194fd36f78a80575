#include "server/redialer_impl.h"

#include <xtcp/error.h>

#include <cstdint>
#include <new>
#include <utility>

#include "base/callback_scope.h"
#include "base/log.h"
#include "socket/resolve.h"
#include "sys/syscalls.h"

namespace xtcp {

using internal::CallbackScope;
using internal::ConnContext;
using internal::DialedConn;
using internal::Group;
using internal::LoopContext;
using internal::MutexLock;
using internal::Stops;

namespace {

std::shared_ptr<Group> GroupOf(const std::shared_ptr<LoopContext>& loop) {
  return loop == nullptr ? nullptr : loop->group.lock();
}

}  // namespace

Redialer::Impl::Impl(Options options, std::string address, std::shared_ptr<LoopContext> loop,
                     const Backoff& backoff)
    : address_(std::move(address)),
      loop_(std::move(loop)),
      group_(GroupOf(loop_)),
      core_(group_ == nullptr ? nullptr : &group_->core(loop_->index)),
      options_(std::move(options)),
      // Clients that are started at the same moment differ in their addresses and their clocks.
      waits_(backoff, reinterpret_cast<std::uintptr_t>(this) ^
                          static_cast<std::uint64_t>(sys::Now().count())) {}

// ---- Any thread.

std::error_code Redialer::Impl::Start() {
  if (const std::error_code error = internal::ParseForDial(address_).error) return error;
  if (loop_ == nullptr) return Errc::kNoLoop;
  if (group_ == nullptr) return Errc::kStopped;
  {
    MutexLock lock(mu_);
    FollowGroup();
    if (life_ == Life::kRuns) return Errc::kAlreadyUsed;
    if (stops_ != Stops::kNone) return Errc::kStopped;
    if (life_ == Life::kEnded) return Errc::kAlreadyUsed;
    life_ = Life::kRuns;
    self_ = shared_from_this();
  }
  switch (group_->Attach(*this)) {
    case Group::Attached::kRunning:
      GroupRuns();
      return {};
    case Group::Attached::kIdle:
      EndsWithoutLoop();
      return {};
    case Group::Attached::kRefused:
      break;
  }
  const std::shared_ptr<Impl> self = std::move(self_);
  End();
  return Errc::kStopped;
}

void Redialer::Impl::GroupRuns() {
  ran_.store(true);
  Post();
}

void Redialer::Impl::Post() {
  {
    MutexLock lock(mu_);
    if (over_ || !ClaimPost()) return;
  }
  core_->Push(this);
}

ConnPtr Redialer::Impl::conn() const {
  MutexLock lock(mu_);
  return conn_;
}

// ---- Stopping.

StopReport Redialer::Impl::Stop(StopMode mode) {
  StopReport report;
  StopWith(internal::Add(Stops::kNone, mode), &report);
  if (mode != StopMode::kGracefullyAndWait) return report;
  if (internal::InsideCallback()) {
    report.error = Errc::kWouldDeadlock;
    return report;
  }
  WaitForEnd();
  MutexLock lock(mu_);
  return report_;
}

StopReport Redialer::Impl::Stop(StopMode mode, internal::EndCall ended) {
  StopReport report;
  std::vector<internal::EndCall> at_once;
  try {
    at_once.reserve(1);
    MutexLock lock(mu_);
    if (ended != nullptr) (life_ == Life::kRuns ? ended_ : at_once).push_back(std::move(ended));
  } catch (const std::bad_alloc&) {
    report.error = Errc::kNoMemory;
    return report;
  }
  StopWith(internal::Add(Stops::kNone, mode), &report);
  Tell(std::move(at_once));
  return report;
}

void Redialer::Impl::StopWith(Stops stops, StopReport* report) {
  std::shared_ptr<DialedConn> under_way;
  bool runs = false;
  {
    MutexLock lock(mu_);
    FollowGroup();
    const Stops before = stops_;
    stops_ = internal::Has(before, Stops::kNow) ? before : before | stops;
    if (before == Stops::kNone) report_.connections = conn_ == nullptr ? 0 : 1;
    report->connections = report_.connections;
    runs = life_ == Life::kRuns;
    under_way = try_;
  }
  if (EndsWithoutLoop()) return;
  if (!runs || !ran_.load()) return;  // the loop sees it when it begins
  if (under_way != nullptr) {
    static_cast<void>(under_way->Stop(internal::Has(stops, Stops::kNow)
                                          ? StopMode::kImmediately
                                          : StopMode::kGracefullyButNotWait));
  }
  Post();
}

// `Start` attaches and then looks for a stop, a stop is noted and then looks here: one of them finds
// the other.
bool Redialer::Impl::EndsWithoutLoop() {
  {
    MutexLock lock(mu_);
    if (stops_ == Stops::kNone) return false;
  }
  if (group_ == nullptr || !group_->DetachIdle(*this)) return false;
  EndIdle();
  return true;
}

void Redialer::Impl::FollowGroup() {
  if (loop_ == nullptr || stops_ != Stops::kNone) return;
  const Stops group_stops = loop_->group_stops.load();
  if (group_stops == Stops::kNone) return;
  stops_ = group_stops;
  report_.connections = conn_ == nullptr ? 0 : 1;
}

// The connection learns of it by itself.
void Redialer::Impl::StopByGroup(Stops stops) {
  {
    MutexLock lock(mu_);
    FollowGroup();
    stops_ = internal::Has(stops_, Stops::kNow) ? stops_ : stops_ | stops;
  }
  EndIfOver();
}

// So does it of a loop that is broken.
void Redialer::Impl::Abort(std::error_code) { StopByGroup(Stops::kNow); }

void Redialer::Impl::WaitForEnd() {
  if (group_ != nullptr) {
    group_->TurnUntil([this] {
      MutexLock lock(mu_);
      return life_ != Life::kRuns;
    });
  }
  MutexLock lock(mu_);
  while (life_ == Life::kRuns) changed_.Wait(mu_);
}

// ---- The loop's thread: one connection after the other.

void Redialer::Impl::HandlePosted() {
  const bool first = !std::exchange(begun_, true);
  if (first && !BeginOnLoop()) {
    XTCP_LOG(kError, "there is no memory for a redialer: it ends");
    StopByGroup(Stops::kNow);
    return;
  }
  EndIfOver();
  if (first) Dial();
}

bool Redialer::Impl::BeginOnLoop() {
  core_->Attach(*this);
  try {
    core_->loop().AddTimer();
    has_timer_ = true;
    return true;
  } catch (const std::bad_alloc&) {
    return false;
  }
}

void Redialer::Impl::Dial() {
  const std::shared_ptr<DialedConn> next = MakeConnection();
  if (next == nullptr) return;
  // With an error there is no callback, and `ConnectionOver` was called.
  if (const std::error_code error = next->Dial(address_)) {
    XTCP_LOG_LIMITED(kWarn, "a redialer cannot dial: %s", error.message().c_str());
  }
}

// Null after a stop; and without memory, when it waits as after a dial that has failed.
std::shared_ptr<DialedConn> Redialer::Impl::MakeConnection() {
  try {
    auto next = std::make_shared<DialedConn>(options_, group_, loop_->index, false);
    next->SetObserver(std::shared_ptr<internal::DialObserver>(shared_from_this(), this));
    MutexLock lock(mu_);
    FollowGroup();
    if (stops_ != Stops::kNone) return nullptr;
    try_ = next;
    return next;
  } catch (const std::bad_alloc&) {
    WaitForNext();
    return nullptr;
  }
}

void Redialer::Impl::ConnectionBegins(const ConnPtr& conn) {
  MutexLock lock(mu_);
  FollowGroup();
  conn_ = conn;
  if (stops_ != Stops::kNone) ++report_.connections;
}

void Redialer::Impl::ConnectionEnds(const StopReport& report) {
  MutexLock lock(mu_);
  FollowGroup();
  conn_ = nullptr;
  if (stops_ == Stops::kNone) return;
  report_.cut += report.cut;
  report_.unsent_bytes += report.unsent_bytes;
  report_.unacked_bytes += report.unacked_bytes;
}

void Redialer::Impl::ConnectionOver(const ConnStats& stats) {
  core_->loop().AssertOnThread();
  std::shared_ptr<DialedConn> over;
  bool stopped = false;
  {
    MutexLock lock(mu_);
    FollowGroup();
    over = std::move(try_);
    stopped = stops_ != Stops::kNone;
  }
  if (stopped) {
    EndIfOver();
    return;
  }
  waits_.NoteEnd(stats.received_packets, stats.age);
  WaitForNext();
}

void Redialer::Impl::WaitForNext() { core_->loop().Arm(this, sys::Now() + waits_.Next()); }

// ---- The end.

// Once: after a stop, when no connection is under way.
void Redialer::Impl::EndIfOver() {
  {
    // A post that is on its way still needs this object, and comes here.
    MutexLock lock(mu_);
    if (!begun_ || over_ || posted() || stops_ == Stops::kNone || try_ != nullptr) return;
    over_ = true;
  }
  core_->loop().Disarm(this);
  core_->loop().Retire(this);
}

void Redialer::Impl::HandleRetired() {
  core_->Detach(*this);
  if (has_timer_) core_->loop().RemoveTimer();
  const std::shared_ptr<Impl> self = std::move(self_);
  End();
  group_->Detach(*this);
}

void Redialer::Impl::EndIdle() {
  const std::shared_ptr<Impl> self = std::move(self_);
  {
    MutexLock lock(mu_);
    FollowGroup();
    over_ = true;
  }
  End();
}

void Redialer::Impl::End() {
  {
    // What the application gave must not wait for this thread.
    const CallbackScope scope;
    options_.handler.reset();
  }
  std::vector<internal::EndCall> tell;
  {
    MutexLock lock(mu_);
    life_ = Life::kEnded;
    tell.swap(ended_);
    changed_.NotifyAll();
  }
  Tell(std::move(tell));
}

void Redialer::Impl::Tell(std::vector<internal::EndCall> calls) {
  StopReport report;
  {
    MutexLock lock(mu_);
    report = report_;
  }
  internal::MakeEndCalls(std::move(calls), report, ran_.load() ? loop_.get() : nullptr);
}

}  // namespace xtcp
