#pragma once

#include <xtcp/loop.h>
#include <xtcp/stop_mode.h>

#include <chrono>
#include <cstddef>
#include <memory>
#include <system_error>
#include <thread>
#include <vector>

#include "base/mutex.h"
#include "base/thread_annotations.h"
#include "loop/loop_core.h"
#include "loop/names.h"
#include "loop/stops.h"
#include "sys/sync.h"

namespace xtcp::internal {

// Something that lives on a group: a server, a dialled connection, a redialer. It keeps itself
// alive while it is attached.
class Member {
 public:
  // The group begins to run: what the member has to do on its loops may be posted now. The group's
  // lock is held.
  virtual void GroupRuns() = 0;

  // The group's servers drain. The group's lock is held.
  virtual void DrainMember(DrainMode) {}

  // Nothing ever ran on the group, and nothing will: the member ends at once, without an event. It
  // is detached already.
  virtual void EndIdle() = 0;

 protected:
  ~Member() = default;

 private:
  friend class Group;
  Member* before_ = nullptr;
  Member* after_ = nullptr;
  bool attached_ = false;
};

// Event loops and what lives on them:
//
//   Group ─┬─► LoopCore, one for each loop ──► LoopServices: what a member is on that loop
//          ├─► Members: servers, dialled connections, redialers
//          └─► Names: threads that look names up
//
// How it stops: `Stop` notes the stop in each loop's context, where every send sees it, and posts
// it to the loops, which hand it to the services on them. A member detaches when it has ended on
// all of its loops. When the last one has detached, the loops are told to quit, and `Run` joins
// them.
//
// Thread safety: any thread, unless said otherwise.
class Group final : public std::enable_shared_from_this<Group> {
 public:
  // Makes a group of `loops` loops, 0 for one a processor. Throws std::bad_alloc.
  static std::shared_ptr<Group> Make(std::size_t loops);
  ~Group();

  // These do what `LoopGroup` says of them.
  std::error_code Run() XTCP_EXCLUDES(mu_);
  std::error_code RunOnce(std::chrono::nanoseconds at_most) XTCP_EXCLUDES(mu_);
  int Descriptor() XTCP_EXCLUDES(mu_);
  std::chrono::milliseconds Timeout() XTCP_EXCLUDES(mu_);

  StopReport Stop(StopMode mode) XTCP_EXCLUDES(mu_);
  bool IsStopped() const XTCP_EXCLUDES(mu_);
  void Drain(DrainMode mode) XTCP_EXCLUDES(mu_);

  // Waits until the group has ended, unless nothing ever ran.
  void WaitForEnd() XTCP_EXCLUDES(mu_);

  // The handle of a group that was stopped goes: nobody else may turn one that was embedded any
  // more, so this thread does.
  void TurnToEnd() XTCP_EXCLUDES(mu_);

  // The group's handle goes: waits for the look-ups of names; inside a callback `Run` does so
  // instead.
  void EndLookUps() XTCP_EXCLUDES(mu_);

  std::size_t size() const { return loops_.size(); }
  LoopCore& core(std::size_t i) { return *loops_[i]; }
  std::size_t NextIndex() { return next_.fetch_add(1, std::memory_order_relaxed) % loops_.size(); }
  Names& names() { return names_; }

  // ---- For its members.

  enum class Attached { kRefused, kIdle, kRunning };

  // Adds a member. Returns kRefused after a stop or the end, and kIdle when `GroupRuns`, or
  // `EndIdle`, will follow.
  Attached Attach(Member& member) XTCP_EXCLUDES(mu_);

  // Removes a member, which has ended.
  void Detach(Member& member) XTCP_EXCLUDES(mu_);

  // Removes a member if nothing ever ran, and returns whether it did.
  bool DetachIdle(Member& member) XTCP_EXCLUDES(mu_);

  // Count a connection that is open on the group from now on, and one that has ended or was closed
  // without an event.
  void ConnectionBegan() XTCP_EXCLUDES(mu_);
  void ConnectionEnded(const StopReport& report) XTCP_EXCLUDES(mu_);

  // Keeps an object alive that the loops use and that is no member, until it is let go, or the
  // loops have ended. Returns false if they have ended already. Throws std::bad_alloc.
  bool Keep(std::shared_ptr<void> object) XTCP_EXCLUDES(mu_);
  void LetGo(const void* object) XTCP_EXCLUDES(mu_);

  // Returns whether something lives on the group.
  bool HasMembers() const XTCP_EXCLUDES(mu_);

  // Returns the error that `Run` will return, if there is one.
  std::error_code error() const XTCP_EXCLUDES(mu_);

  // On the thread, outside callbacks, that turns a group which somebody else's loop embeds: turns
  // it until `done()`. Elsewhere it does nothing: there the caller may sleep.
  template <typename Done>
  void TurnUntil(const Done& done) {
    while (IsTurnedHere() && !done()) {
      if (RunOnce(std::chrono::seconds(1))) return;
    }
  }

 private:
  enum class Life { kIdle, kRunning, kEmbedded, kEnded };

  bool IsTurnedHere() const;

  Group() = default;

  // Opens all loops, and tells the members that they run.
  std::error_code Open() XTCP_EXCLUDES(mu_);

  // Starts a thread for each loop but the first. What was to live on a loop that gets none is
  // ended.
  void StartThreads();

  // Runs one loop on this thread until its end.
  void RunLoop(LoopCore& core);
  void JoinThreads();

  // Ends the members of a group that never ran.
  void EndIdleMembers() XTCP_EXCLUDES(mu_);
  void Unlink(Member& member) XTCP_REQUIRES(mu_);

  // A loop failed, or could not be had: stops gracefully. `Run` returns the first such error.
  void Fail(std::error_code error) XTCP_EXCLUDES(mu_);

  // Nothing lives on the group any more: its loops end.
  void QuitLoops();

  // The loops have ended: closes them, lets go of what was kept for them, and releases the threads
  // that wait for the end.
  void NoteEnd() XTCP_EXCLUDES(mu_);

  // Begins to be turned by `RunOnce`; no error when it has begun before.
  std::error_code Embed() XTCP_EXCLUDES(mu_);

  std::vector<std::unique_ptr<LoopCore>> loops_;  // constant once made
  sys::Atomic<std::size_t> next_{0};
  Names names_;

  std::vector<std::thread> threads_;  // of the loops but the first; the running thread's only

  sys::Atomic<std::thread::id> turner_{};  // of an embedded group: who made the last `RunOnce`

  mutable Mutex mu_;
  CondVar ended_;
  Life life_ XTCP_GUARDED_BY(mu_) = Life::kIdle;
  bool used_ XTCP_GUARDED_BY(mu_) = false;        // `Run` was called
  bool embedded_ XTCP_GUARDED_BY(mu_) = false;    // `RunOnce` has begun
  bool turning_ XTCP_GUARDED_BY(mu_) = false;     // a thread is in it
  bool ends_names_ XTCP_GUARDED_BY(mu_) = false;  // the handle went inside a callback
  Stops stops_ XTCP_GUARDED_BY(mu_) = Stops::kNone;
  Member* members_ XTCP_GUARDED_BY(mu_) = nullptr;
  std::vector<std::shared_ptr<void>> kept_ XTCP_GUARDED_BY(mu_);
  std::size_t open_ XTCP_GUARDED_BY(mu_) = 0;  // connections
  StopReport report_ XTCP_GUARDED_BY(mu_);
  std::error_code error_ XTCP_GUARDED_BY(mu_);
};

}  // namespace xtcp::internal
