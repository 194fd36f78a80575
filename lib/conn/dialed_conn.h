#pragma once

#include <xtcp/error.h>
#include <xtcp/options.h>

#include <atomic>
#include <cstddef>
#include <memory>
#include <string>
#include <string_view>
#include <system_error>
#include <vector>

#include "conn/conn_impl.h"
#include "conn/dialer.h"
#include "conn/service_loop.h"
#include "loop/group.h"
#include "loop/names.h"

namespace xtcp::internal {

// What hears of a dialled connection beside its handler: a redialer. It is called on the
// connection's loop.
class DialObserver {
 public:
  // Comes before kConnected.
  virtual void ConnectionBegins(const ConnPtr& conn) XTCP_ON_LOOP = 0;

  // Comes before kClosed, with what a stop's report says of the connection.
  virtual void ConnectionEnds(const StopReport& report) XTCP_ON_LOOP = 0;

  // Comes last: after kClosed or OnDialFailed, or after a dial that was refused.
  virtual void ConnectionOver(const ConnStats& stats) = 0;

 protected:
  ~DialObserver() = default;
};

// A base of its own, so that the options exist before the bases that refer to them.
struct DialedOptions {
  Options options;
};

// A connection made by `NewConn`: a service of its own, with one connection. It lives on a loop of
// a group that others share, or brings a group of one loop, which runs on the thread that calls
// `DialAndServe`.
//
//   Dial ─► (look up the name) ─► on the loop: Dialer ─► kConnected … kClosed ──┬─► LetGo
//                                                  └───► OnDialFailed ──────────┘
class DialedConn final : private DialedOptions,
                         public ConnImpl,
                         public std::enable_shared_from_this<DialedConn>,
                         private ServiceLoop,
                         private Member,
                         private Dialer::Owner {
 public:
  // Makes one for a loop of `group`, which with `own` nothing but this connection uses. `options`
  // are valid.
  DialedConn(Options options, const std::shared_ptr<Group>& group, std::size_t loop, bool own);

  // Makes one that cannot be dialled: `Dial` and `DialAndServe` return `refusal`.
  DialedConn(Options options, const std::shared_ptr<Group>& unused, Errc refusal);
  ~DialedConn() override;

  std::error_code Dial(std::string_view address) override;
  std::error_code DialAndServe(std::string_view address) override;
  StopReport Stop(StopMode mode) override;

  // To be called before the dial.
  void SetObserver(std::shared_ptr<DialObserver> observer) { observer_ = std::move(observer); }

 private:
  class NameLookUp;
  struct Dialling;

  bool accepted() const override { return false; }
  bool ends_with_closed() const override { return false; }
  void HandlePosted() XTCP_ON_LOOP override;

  // ServiceLoop.
  void StopByGroup(Stops stops) XTCP_ON_LOOP override;
  void Abort(std::error_code error) XTCP_ON_LOOP override;
  void ConnectionEnded(const StopReport& report) XTCP_ON_LOOP override;
  void ConnectionGone(ConnImpl&) XTCP_ON_LOOP override { LetGoIfOver(); }

  // Member.
  void GroupRuns() override {}
  void EndIdle() override;

  // Dialer::Owner.
  bool DialIsStopped() const XTCP_ON_LOOP override;
  void DialSucceeded(ConnectedSocket socket, int reset) XTCP_ON_LOOP override;
  void DialFailed(std::error_code error) XTCP_ON_LOOP override;
  void DialerGone() XTCP_ON_LOOP override;

  static constexpr int kTimers = 2;

  std::shared_ptr<Group> group() const { return ConnImpl::context().loop->group.lock(); }

  // The dial is refused, or was stopped on a group that never ran: no callback follows. The first
  // such end counts.
  std::error_code Refuse(std::error_code error);

  // `DialAndServe` with a group of its own: looks the name up, and runs the group on this thread.
  std::error_code DialOnOwnLoop(std::string_view address);
  std::error_code ServeOnOwnLoop(const std::shared_ptr<Group>& group);

  // Makes what the dial needs; `address` is the name to look up, if there is one. Throws
  // std::bad_alloc.
  void MakeDialling(std::string address);

  // Returns the error with which the dial has ended, if it failed. To be called after the end.
  std::error_code DialResult() const;

  // On the loop's thread: begins the dial, and goes on when a name has been looked up or a stop
  // came.
  void BeginOnLoop() XTCP_ON_LOOP;
  void GoOn() XTCP_ON_LOOP;

  // After the last callback, when nothing but handles refers to the connection any more: releases
  // its handler and user data, and leaves the loop and the group.
  void LetGoIfOver();
  void LetGo();

  // Null on a loop that others share; the dialling thread's only.
  std::shared_ptr<Group> own_group_;
  ConnPtr self_;  // while it is attached to the group
  std::shared_ptr<DialObserver> observer_;
  // Until the dial has ended. It is made before the dial begins; from then on it is the loop's.
  std::unique_ptr<Dialling> dialling_;
  const Errc refusal_{};  // if it is not 0, what every dial returns
  const bool owns_group_;
  bool begun_ = false;        // on the loop
  bool has_timers_ = false;   // room for its own and the dialer's
  bool established_ = false;  // served, or was
  bool over_ = false;         // after OnDialFailed, or when no callback comes
};

}  // namespace xtcp::internal
