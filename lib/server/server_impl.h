#pragma once

#include <xtcp/server.h>

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string_view>
#include <system_error>
#include <vector>

#include "base/mutex.h"
#include "base/thread_annotations.h"
#include "loop/group.h"
#include "loop/stops.h"
#include "server/acceptor.h"
#include "server/end_calls.h"
#include "server/server_loop.h"
#include "socket/socket.h"
#include "sys/sync.h"

namespace xtcp {

// All of a server that must live until it has ended, whatever becomes of the `Server`. It lives on
// a group of loops, its own or one that it shares, with a `ServerLoop` on each of them:
//
//   Acceptor ──► MayAdmit ──► Accepted ──┬─► ServerLoop of the loop that accepts
//                                        └─► ServerLoop of another loop (Deal)
//
// How it stops: `Stop` notes the stop and posts it to every loop. Each closes its listeners and
// ends its connections. When the last connection is gone the loops are told to end. When all of
// them have ended the server leaves its group, and threads that wait for it are released.
class Server::Impl final : public std::enable_shared_from_this<Server::Impl>,
                           public internal::ServerLoop::Owner,
                           public internal::AcceptSink,
                           public internal::Member {
 public:
  Impl(Options options, std::shared_ptr<internal::Group> group, bool owns_group);

  std::error_code Listen(std::string_view address);
  std::error_code Adopt(int fd);
  std::error_code Start();
  std::error_code Serve();
  StopReport Stop(StopMode mode) XTCP_EXCLUDES(mu_);
  StopReport Stop(StopMode mode, internal::EndCall ended) XTCP_EXCLUDES(mu_);
  void WaitForEnd() XTCP_EXCLUDES(mu_);
  bool IsStopped() const XTCP_EXCLUDES(mu_);
  void Drain(DrainMode mode) XTCP_EXCLUDES(mu_);
  bool IsDraining() const { return drains_.load(); }
  std::error_code ForEach(internal::ServerVisit::Call visit) XTCP_EXCLUDES(mu_);
  std::vector<Address> Addresses() const XTCP_EXCLUDES(mu_);
  std::size_t ConnectionCount() const XTCP_EXCLUDES(mu_);
  ServerStats Stats() const XTCP_EXCLUDES(mu_);
  internal::Group& group() { return *group_; }

 private:
  enum class Life { kIdle, kStarting, kServing, kEnded };

  // ServerLoop::Owner.
  void ConnectionRefused(std::error_code error) override;
  void ConnectionEnded(const StopReport& report) override;
  void GroupStops(internal::Stops stops) override;
  void LoopBegins(internal::ServerLoop& loop) XTCP_ON_LOOP override;
  void LoopStops(internal::ServerLoop& loop) override;
  bool Drains() const override { return drains_.load(); }
  void LoopDrains(internal::ServerLoop& loop) XTCP_ON_LOOP override;
  void LoopFailed(std::error_code error) override { Fail(error); }
  void LoopEnded() override;

  // AcceptSink.
  bool MayAccept(bool adopted) const override;
  bool MayAdmit() override;
  void Accepted(internal::ConnectedSocket socket, internal::EventLoop& loop) XTCP_ON_LOOP override;
  void SetUpFailed(std::error_code error) override { ConnectionRefused(error); }
  void AcceptFailed() override;
  void ListenerDied(std::error_code error) override;
  void ListenerDrained() override;

  // Member.
  void GroupRuns() override;
  void EndIdle() override;
  void DrainMember(DrainMode mode) override { Drain(mode); }

  // Makes an acceptor. It takes `fd` and `file` over when there is no error.
  std::error_code AddListener(internal::UniqueFd& fd, internal::SocketFile& file,
                              const internal::TcpOptions* apply, bool adopted);

  // Makes what it needs on each loop, and joins the group.
  std::error_code Begin();
  std::error_code MakeLoops();

  // Finds out what `max_connections_` is.
  std::error_code FindLimit();
  std::error_code ServeOnOwnGroup();

  // Notes a stop, and tells the loops.
  void StopWith(internal::Stops stops, StopReport* report) XTCP_EXCLUDES(mu_);

  // Ends the server at once if it was stopped and is attached to a group on which nothing ever ran.
  // Returns whether it did.
  bool EndsWithoutLoops() XTCP_EXCLUDES(mu_);

  // Takes a stop of the group over, if there is one. To be called by everything that depends on it.
  void FollowGroup() XTCP_REQUIRES(mu_);

  // Has every send refused from now on.
  void NoteStops(internal::Stops stops) XTCP_REQUIRES(mu_);

  // Whether nothing is left of a server that drains.
  bool HasDrained() const XTCP_REQUIRES(mu_);

  // A loop is broken, or no listener is left: stops gracefully. `Serve` returns the first such
  // error.
  void Fail(std::error_code error);

  // No connection is left, and none will come: the loops end.
  void EndLoops();

  // To be called when no loop has them: under the lock before the server serves, or at its end.
  void CloseListeners();

  // The server has ended: releases threads that wait, and makes the calls that were asked for.
  void End() XTCP_EXCLUDES(mu_);
  void Tell(std::vector<internal::EndCall> calls) XTCP_EXCLUDES(mu_);

  // Returns the index of the loop on which the i-th listener accepts.
  std::size_t LoopOfListener(std::size_t i) const { return owns_group_ ? 0 : i % loops_.size(); }

  const Options options_;
  const internal::TcpOptions tcp_;
  const std::shared_ptr<internal::Group> group_;
  const bool owns_group_;

  // They are written before the server joins its group. From then on each acceptor belongs to its
  // loop.
  std::vector<std::unique_ptr<internal::ServerLoop>> loops_;
  std::vector<std::unique_ptr<internal::Acceptor>> acceptors_;
  std::size_t max_connections_ = 0;
  std::shared_ptr<Impl> self_;  // while it lives on the group

  sys::Atomic<std::size_t> next_loop_{0};
  sys::Atomic<std::size_t> listening_{0};
  sys::Atomic<std::size_t> loops_left_{0};  // that have not ended
  internal::AcceptPause accept_pause_;
  sys::Atomic<bool> ran_{false};  // its group runs, or ran while it was there
  sys::Atomic<bool> drains_{false};
  sys::Atomic<DrainMode> drain_mode_{DrainMode::kOwnListeners};  // written before `drains_`

  mutable internal::Mutex mu_;
  internal::CondVar changed_;
  Life life_ XTCP_GUARDED_BY(mu_) = Life::kIdle;
  internal::Stops stops_ XTCP_GUARDED_BY(mu_) = internal::Stops::kNone;
  std::size_t open_ XTCP_GUARDED_BY(mu_) = 0;  // admitted and not ended
  StopReport report_ XTCP_GUARDED_BY(mu_);
  std::vector<internal::EndCall> ended_ XTCP_GUARDED_BY(mu_);
  std::error_code error_ XTCP_GUARDED_BY(mu_);
  bool drained_ XTCP_GUARDED_BY(mu_) = false;  // every listener is closed
  std::vector<Address> addresses_ XTCP_GUARDED_BY(mu_);
  std::uint64_t accepted_ XTCP_GUARDED_BY(mu_) = 0;
  std::uint64_t refused_ XTCP_GUARDED_BY(mu_) = 0;
  std::uint64_t closed_ XTCP_GUARDED_BY(mu_) = 0;
  std::uint64_t accept_errors_ XTCP_GUARDED_BY(mu_) = 0;
};

}  // namespace xtcp
