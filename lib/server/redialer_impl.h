#pragma once

#include <xtcp/redialer.h>

#include <memory>
#include <string>
#include <system_error>
#include <vector>

#include "base/mutex.h"
#include "base/thread_annotations.h"
#include "conn/dialed_conn.h"
#include "loop/group.h"
#include "loop/loop_core.h"
#include "loop/stops.h"
#include "reactor/channel.h"
#include "server/end_calls.h"
#include "server/redial_waits.h"
#include "sys/sync.h"

namespace xtcp {

// All of a redialer that must live until it has ended, whatever becomes of the `Redialer`.
//
//            ┌────────── the wait is over (a timer of the loop) ◄──────────┐
//   Start ─► dial ─► a DialedConn of its own: kConnected … kClosed, or OnDialFailed
//                                                      │
//   Stop ─► ends the wait, the dial or the connection ─┴─► ended
//
// On its loop it is a service beside its connection: the group's stop reaches both.
class Redialer::Impl final : public std::enable_shared_from_this<Redialer::Impl>,
                             public internal::Channel,
                             private internal::DialObserver,
                             private internal::Member,
                             private internal::LoopService {
 public:
  // `loop` may be that of no group.
  Impl(Options options, std::string address, std::shared_ptr<internal::LoopContext> loop,
       const Backoff& backoff);

  std::error_code Start() XTCP_EXCLUDES(mu_);
  ConnPtr conn() const XTCP_EXCLUDES(mu_);
  StopReport Stop(StopMode mode) XTCP_EXCLUDES(mu_);
  StopReport Stop(StopMode mode, internal::EndCall ended) XTCP_EXCLUDES(mu_);
  void WaitForEnd() XTCP_EXCLUDES(mu_);

 private:
  enum class Life { kIdle, kRuns, kEnded };

  // DialObserver.
  void ConnectionBegins(const ConnPtr& conn) XTCP_ON_LOOP override;
  void ConnectionEnds(const StopReport& report) XTCP_ON_LOOP override;
  void ConnectionOver(const ConnStats& stats) override;

  // Member.
  void GroupRuns() override;
  void EndIdle() override;

  // LoopService.
  void StopByGroup(internal::Stops stops) XTCP_ON_LOOP override;
  void Abort(std::error_code error) XTCP_ON_LOOP override;

  // Channel.
  void HandlePosted() XTCP_ON_LOOP override;
  void HandleTimer() XTCP_ON_LOOP override { Dial(); }
  void HandleRetired() XTCP_ON_LOOP override;

  // Notes a stop, and hands it to the connection.
  void StopWith(internal::Stops stops, StopReport* report) XTCP_EXCLUDES(mu_);

  // Ends it at once if it was stopped and is attached to a group on which nothing ever ran. Returns
  // whether it did.
  bool EndsWithoutLoop() XTCP_EXCLUDES(mu_);

  // A stop of the group is one of this, from the first moment at which anybody here looks.
  void FollowGroup() XTCP_REQUIRES(mu_);

  // Makes the loop look at what was noted.
  void Post() XTCP_EXCLUDES(mu_);

  // ---- The loop's thread.

  bool BeginOnLoop() XTCP_ON_LOOP;
  void Dial() XTCP_ON_LOOP XTCP_EXCLUDES(mu_);
  std::shared_ptr<internal::DialedConn> MakeConnection() XTCP_ON_LOOP XTCP_EXCLUDES(mu_);
  void WaitForNext() XTCP_ON_LOOP;
  void EndIfOver() XTCP_ON_LOOP XTCP_EXCLUDES(mu_);

  // It has ended: releases threads that wait, and makes the calls that were asked for.
  void End() XTCP_EXCLUDES(mu_);
  void Tell(std::vector<internal::EndCall> calls) XTCP_EXCLUDES(mu_);

  const std::string address_;
  const std::shared_ptr<internal::LoopContext> loop_;
  const std::shared_ptr<internal::Group> group_;  // null: there is none
  internal::LoopCore* const core_;                // of the group

  Options options_;             // the handler is let go at the end
  std::shared_ptr<Impl> self_;  // while it lives on the group
  sys::Atomic<bool> ran_{false};

  // Loop thread only.
  bool begun_ = false;
  bool has_timer_ = false;
  internal::RedialWaits waits_;

  mutable internal::Mutex mu_;
  internal::CondVar changed_;
  Life life_ XTCP_GUARDED_BY(mu_) = Life::kIdle;
  bool over_ XTCP_GUARDED_BY(mu_) = false;  // takes no more posts
  internal::Stops stops_ XTCP_GUARDED_BY(mu_) = internal::Stops::kNone;
  std::shared_ptr<internal::DialedConn> try_ XTCP_GUARDED_BY(mu_);  // under way
  ConnPtr conn_ XTCP_GUARDED_BY(mu_);                               // established
  StopReport report_ XTCP_GUARDED_BY(mu_);
  std::vector<internal::EndCall> ended_ XTCP_GUARDED_BY(mu_);
};

}  // namespace xtcp
