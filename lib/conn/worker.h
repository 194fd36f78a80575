#pragma once

#include <xtcp/handler.h>
#include <xtcp/options.h>
#include <xtcp/stop_mode.h>

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <system_error>
#include <vector>

#include "base/mutex.h"
#include "conn/conn_context.h"
#include "conn/conn_impl.h"
#include "conn/totals.h"
#include "conn/turn.h"
#include "reactor/event_loop.h"
#include "socket/socket_address.h"
#include "socket/unique_fd.h"

namespace xtcp::internal {

// An accepted socket on its way to the worker that will serve it.
struct AcceptedSocket {
  UniqueFd fd;
  ConnectionEnds ends;
};

// What runs workers: a server, or a dial. Called on the workers' threads. By default nothing is done.
class WorkerOwner {
 public:
  // A connection is over: its descriptor is closed, and kClosed comes next.
  virtual void ConnectionEnded(const StopReport& ending) = 0;

  // An accepted socket could not be made into a connection; no error: a stop has overtaken it.
  virtual void ConnectionRefused(std::error_code) {}

  // A stop has reached this worker's loop, before its connections see it.
  virtual void StopReachedLoop(class Worker&) {}

 protected:
  ~WorkerOwner() = default;
};

// One event loop and the connections on it. A connection is made, served and let go on the worker's
// thread.
//
// Thread safety: `Deal`, `NoteStop`, `Post`, `RequestQuit` and `totals` from any thread; all else on
// the worker's.
class Worker final : public Channel {
 public:
  // All must outlive the worker; `options` is the owner's copy. `own_timers`: how many channels
  // beside the connections may arm a timer on this loop.
  Worker(WorkerOwner& owner, const Options& options, std::shared_ptr<ConnContext> context,
         std::size_t own_timers);
  ~Worker();

  std::error_code Open();

  // Serves until `RequestQuit` was called and the last connection is gone. With an error the loop
  // itself is broken; all connections have been closed with it. So they have when the thread ends
  // inside (ForcedUnwind).
  std::error_code Run();

  // Closes what `Open` opened, and sockets that were dealt too late. After `Run`, or instead.
  void Close();

  // Hands over a socket, or closes it and tells the owner that it was refused.
  void Deal(AcceptedSocket socket) XTCP_EXCLUDES(mu_);

  // Refuses all sends from now on, and notes that all connections are to be stopped; `Post` tells the
  // loop. Needs no memory, and makes no system call. `stops`: all that were asked for so far.
  void NoteStops(Stops stops) { context_->stops.store(stops); }
  bool IsStopping() const { return context_->stopping(); }

  // Makes the loop look at what was noted.
  void Post();

  // Ends `Run` once no connection is left.
  void RequestQuit();

  // Makes a connection from an accepted socket, and serves it.
  void Serve(AcceptedSocket socket);

  // Serves a connection that was made elsewhere.
  std::error_code Serve(std::shared_ptr<ConnImpl> conn, AcceptedSocket socket, EventType first);

  // For ConnImpl.
  const ConnPtr& PtrOf(const ConnImpl& conn) const { return conns_[conn.worker_index()]; }
  void Erase(ConnImpl& conn);
  WorkerOwner& owner() { return owner_; }
  EventLoop& loop() { return loop_; }
  Turn& turn() { return turn_; }
  const Service& service() const { return service_; }
  ConnContext& context() { return *context_; }
  const LoopTotals& totals() const { return totals_; }

  // So many connections learn of a stop in one iteration.
  static constexpr int kStopsPerIteration = 1024;

 private:
  void HandlePosted() override;

  void TakeDealt();
  void TellStops();
  void Fail(std::error_code error);
  void RefuseDealt();

  WorkerOwner& owner_;
  const std::shared_ptr<ConnContext> context_;
  const std::size_t own_timers_;
  EventLoop loop_;
  Turn turn_;
  LoopTotals totals_;
  const Service service_;

  // All of them are ConnImpls. Callbacks get a reference to the element, so that no count is
  // touched; the vector changes only between turns.
  std::vector<ConnPtr> conns_;

  // Loop thread only: the stops that connections are told of, and below which index they have not been
  // told yet.
  Stops told_stops_ = Stops::kNone;
  std::size_t tell_next_ = 0;

  std::atomic<bool> quit_{false};

  Mutex mu_;
  std::vector<AcceptedSocket> dealt_ XTCP_GUARDED_BY(mu_);
  bool gone_ XTCP_GUARDED_BY(mu_) = false;  // takes no more sockets
};

}  // namespace xtcp::internal
