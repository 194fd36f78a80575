#include "loop/group.h"

#include <xtcp/error.h>

#include <cerrno>
#include <string>
#include <utility>

#include "base/callback_scope.h"
#include "base/check.h"
#include "base/log.h"
#include "base/scope.h"
#include "base/thread_end.h"
#include "sys/syscalls.h"

namespace xtcp::internal {

std::shared_ptr<Group> Group::Make(std::size_t loops) {
  const std::size_t count =
      loops > 0 ? loops : static_cast<std::size_t>(sys::AvailableProcessors());
  const std::shared_ptr<Group> group(new Group());
  group->loops_.reserve(count);
  for (std::size_t i = 0; i < count; ++i) {
    group->loops_.push_back(std::make_unique<LoopCore>(std::make_shared<LoopContext>(group, i)));
  }
  return group;
}

// What is still posted to a loop that never ran may be an object that the group keeps.
Group::~Group() {
  for (const std::unique_ptr<LoopCore>& core : loops_) core->Close();
}

// ---- Running.

std::error_code Group::Run() {
  if (InsideCallback()) return Errc::kWouldDeadlock;
  {
    MutexLock lock(mu_);
    if (std::exchange(used_, true) || embedded_) return Errc::kAlreadyUsed;
    if (life_ == Life::kEnded) return {};  // a stop came first
    life_ = Life::kRunning;
  }
  const AtScopeEnd end([this] { NoteEnd(); });  // even when this thread ends in a callback
  if (const std::error_code error = Open()) {
    Fail(error);
    EndIdleMembers();
    return error;
  }
  StartThreads();
  RunLoop(*loops_.front());
  JoinThreads();
  MutexLock lock(mu_);
  return error_;
}

std::error_code Group::Open() {
  const CancellationOff off;
  for (const std::unique_ptr<LoopCore>& core : loops_) {
    if (const std::error_code error = core->Open()) return error;
  }
  MutexLock lock(mu_);
  for (Member* member = members_; member != nullptr; member = member->after_) member->GroupRuns();
  return {};
}

void Group::StartThreads() {
  const CancellationOff off;
  std::error_code failure;
  try {
    threads_.reserve(loops_.size());
  } catch (const std::bad_alloc&) {
    failure = Errc::kNoMemory;
  }
  for (std::size_t i = 1; i < loops_.size(); ++i) {
    LoopCore& core = *loops_[i];
    std::thread thread;
    // A name of this length needs no memory.
    if (!failure) {
      failure = sys::StartThread(
          "xtcp-loop-" + std::to_string(i), [this, &core] { RunLoop(core); }, &thread);
    }
    if (!failure) {
      threads_.push_back(std::move(thread));
      continue;
    }
    // What was to live on the loops that have no thread ends here, and everything else gracefully.
    Fail(failure);
    core.EndWithout(failure);
  }
}

void Group::RunLoop(LoopCore& core) {
  try {
    const std::error_code error = core.Run();
    core.Close();
    if (error) Fail(error);
  } catch (const ForcedUnwind&) {
    const CancellationOff off;
    core.Close();
    Fail({ECANCELED, std::system_category()});
    throw;
  }
}

void Group::JoinThreads() {
  const CancellationOff off;
  for (std::thread& thread : threads_) thread.join();
  threads_.clear();
}

void Group::NoteEnd() {
  const CancellationOff off;
  JoinThreads();
  for (const std::unique_ptr<LoopCore>& core : loops_) core->Close();
  names_.Close();
  bool names_too = false;
  std::vector<std::shared_ptr<void>> kept;
  {
    MutexLock lock(mu_);
    life_ = Life::kEnded;
    kept.swap(kept_);
    names_too = ends_names_;
    ended_.NotifyAll();
  }
  if (names_too) names_.End();
}

void Group::Fail(std::error_code error) {
  {
    MutexLock lock(mu_);
    if (!error_) error_ = error;
  }
  Stop(StopMode::kGracefullyButNotWait);
}

// ---- Inside somebody else's loop.

std::error_code Group::Embed() {
  if (loops_.size() > 1) return Errc::kAlreadyUsed;
  {
    MutexLock lock(mu_);
    if (life_ == Life::kEmbedded) return {};
    if (used_ && !embedded_) return Errc::kAlreadyUsed;
    if (life_ == Life::kEnded) return Errc::kStopped;
    life_ = Life::kEmbedded;
    embedded_ = true;
  }
  const std::error_code error = Open();
  if (error) {
    Fail(error);
    EndIdleMembers();
    NoteEnd();
  }
  return error;
}

std::error_code Group::RunOnce(std::chrono::nanoseconds at_most) {
  if (InsideCallback()) return Errc::kWouldDeadlock;
  {
    MutexLock lock(mu_);
    if (std::exchange(turning_, true)) return Errc::kAlreadyUsed;
  }
  const AtScopeEnd turned([this] {
    MutexLock lock(mu_);
    turning_ = false;
    ended_.NotifyAll();
  });
  if (const std::error_code error = Embed()) return error;
  turner_.store(std::this_thread::get_id());
  bool over = false;
  if (const std::error_code error = loops_.front()->RunOnce(at_most, &over)) Fail(error);
  if (!over) return {};
  NoteEnd();
  MutexLock lock(mu_);
  return error_ ? error_ : Errc::kStopped;
}

bool Group::IsTurnedHere() const {
  return turner_.load(std::memory_order_relaxed) == std::this_thread::get_id() && !InsideCallback();
}

int Group::Descriptor() {
  const std::error_code error = Embed();
  if (!error) return loops_.front()->Descriptor();
  XTCP_LOG(kError, "a group of loops has no descriptor: %s", error.message().c_str());
  return -1;
}

std::chrono::milliseconds Group::Timeout() {
  if (Embed()) return std::chrono::milliseconds(-1);
  const std::chrono::nanoseconds left = loops_.front()->loop().TimeLeft();
  if (left.count() < 0) return std::chrono::milliseconds(-1);
  return std::chrono::ceil<std::chrono::milliseconds>(left);
}

// ---- Stopping.

StopReport Group::Stop(StopMode mode) {
  const bool waits = mode == StopMode::kGracefullyAndWait;
  StopReport report;
  bool tell = false;
  bool over = false;
  bool idle = false;
  {
    MutexLock lock(mu_);
    const Stops before = std::exchange(stops_, Add(stops_, mode));
    if (before == Stops::kNone) report_.connections = open_;
    report.connections = report_.connections;
    idle = life_ == Life::kIdle;
    if (idle) life_ = Life::kEnded;
    tell = stops_ != before;
    // Noted before the lock is released, since a second stop, which returns at once, promises as
    // well that no send is accepted after it.
    if (tell) {
      for (const std::unique_ptr<LoopCore>& core : loops_) core->NoteStops(stops_);
    }
    over = members_ == nullptr;
  }
  if (idle) {
    EndIdleMembers();
    for (const std::unique_ptr<LoopCore>& core : loops_) core->Close();
  } else if (tell) {
    for (const std::unique_ptr<LoopCore>& core : loops_) core->Post();
    if (over) QuitLoops();
  }
  if (!waits) return report;
  if (InsideCallback()) {
    report.error = Errc::kWouldDeadlock;
    return report;
  }
  WaitForEnd();
  MutexLock lock(mu_);
  return report_;
}

void Group::WaitForEnd() {
  TurnUntil([this] {
    MutexLock lock(mu_);
    return life_ == Life::kIdle || life_ == Life::kEnded;
  });
  MutexLock lock(mu_);
  while (life_ == Life::kRunning || life_ == Life::kEmbedded) ended_.Wait(mu_);
}

void Group::TurnToEnd() {
  for (;;) {
    {
      MutexLock lock(mu_);
      while (turning_) ended_.Wait(mu_);
      if (life_ != Life::kEmbedded) return;
    }
    static_cast<void>(RunOnce(std::chrono::seconds(1)));
  }
}

void Group::EndLookUps() {
  if (InsideCallback()) {
    MutexLock lock(mu_);
    ends_names_ = life_ == Life::kRunning || life_ == Life::kEmbedded;
    if (ends_names_) return;
  }
  names_.End();
}

void Group::QuitLoops() {
  for (const std::unique_ptr<LoopCore>& core : loops_) core->RequestQuit();
}

void Group::EndIdleMembers() {
  for (;;) {
    Member* member = nullptr;
    {
      MutexLock lock(mu_);
      member = members_;
      if (member == nullptr) return;
      Unlink(*member);
    }
    member->EndIdle();
  }
}

bool Group::IsStopped() const {
  MutexLock lock(mu_);
  return stops_ != Stops::kNone || life_ == Life::kEnded;
}

void Group::Drain(DrainMode mode) {
  MutexLock lock(mu_);
  for (Member* member = members_; member != nullptr; member = member->after_) {
    member->DrainMember(mode);
  }
}

std::error_code Group::error() const {
  MutexLock lock(mu_);
  return error_;
}

// ---- Members.

Group::Attached Group::Attach(Member& member) {
  MutexLock lock(mu_);
  if (stops_ != Stops::kNone || life_ == Life::kEnded) return Attached::kRefused;
  XTCP_DCHECK(!member.attached_, "a member is attached to its group twice");
  member.attached_ = true;
  member.before_ = nullptr;
  member.after_ = members_;
  if (members_ != nullptr) members_->before_ = &member;
  members_ = &member;
  return life_ == Life::kIdle ? Attached::kIdle : Attached::kRunning;
}

void Group::Unlink(Member& member) {
  XTCP_DCHECK(member.attached_, "a member is taken out of a group in which it is not");
  member.attached_ = false;
  (member.before_ == nullptr ? members_ : member.before_->after_) = member.after_;
  if (member.after_ != nullptr) member.after_->before_ = member.before_;
}

void Group::Detach(Member& member) {
  bool over = false;
  {
    MutexLock lock(mu_);
    if (!member.attached_) return;
    Unlink(member);
    over = members_ == nullptr && stops_ != Stops::kNone;
  }
  if (over) QuitLoops();
}

bool Group::DetachIdle(Member& member) {
  MutexLock lock(mu_);
  if (life_ != Life::kIdle || !member.attached_) return false;
  Unlink(member);
  return true;
}

bool Group::HasMembers() const {
  MutexLock lock(mu_);
  return members_ != nullptr;
}

bool Group::Keep(std::shared_ptr<void> object) {
  MutexLock lock(mu_);
  if (life_ == Life::kEnded) return false;
  kept_.push_back(std::move(object));
  return true;
}

void Group::LetGo(const void* object) {
  std::shared_ptr<void> kept;  // destroyed without the lock
  MutexLock lock(mu_);
  for (std::shared_ptr<void>& each : kept_) {
    if (each.get() != object) continue;
    kept = std::move(each);
    each = std::move(kept_.back());
    kept_.pop_back();
    return;
  }
}

void Group::ConnectionBegan() {
  MutexLock lock(mu_);
  ++open_;
  if (stops_ != Stops::kNone) ++report_.connections;
}

void Group::ConnectionEnded(const StopReport& report) {
  MutexLock lock(mu_);
  XTCP_DCHECK(open_ > 0, "more connections of a group have ended than had begun");
  --open_;
  if (stops_ == Stops::kNone) return;
  report_.cut += report.cut;
  report_.unsent_bytes += report.unsent_bytes;
  report_.unacked_bytes += report.unacked_bytes;
}

}  // namespace xtcp::internal
