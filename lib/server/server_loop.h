#pragma once

#include <atomic>
#include <cstddef>
#include <memory>
#include <system_error>
#include <vector>

#include "base/mutex.h"
#include "base/thread_annotations.h"
#include "conn/conn_impl.h"
#include "conn/service_loop.h"
#include "loop/stops.h"
#include "reactor/channel.h"

namespace xtcp::internal {

class Acceptor;

// A server on one of its loops: its connections there, and its listeners, if it has any there. A
// connection is made, served and let go on the loop's thread.
//
//   Deal ─► dealt sockets ─► connections ─► the last one is gone, and a stop was asked for: it ends
//
// Thread safety: `Begin`, `Deal`, `NoteStops`, `Post`, `RequestEnd` and `totals` from any thread; all else
// on the loop's.
class ServerLoop final : public ServiceLoop, public Channel {
 public:
  // What the loops of a server report to. Called on their threads.
  class Owner {
   public:
    // An accepted socket could not be made into a connection; no error: a stop has overtaken it.
    virtual void ConnectionRefused(std::error_code error) = 0;
    virtual void ConnectionEnded(const StopReport& report) = 0;

    // The stop of the group has reached this loop.
    virtual void GroupStops(Stops stops) = 0;

    // The loop has begun: its listeners may be started.
    virtual void LoopBegins(ServerLoop& loop) = 0;

    // A stop was seen: its listeners are closed.
    virtual void LoopStops(ServerLoop& loop) = 0;

    // It is broken.
    virtual void LoopFailed(std::error_code error) = 0;

    // Nothing of the server lives on the loop any more, and nothing will.
    virtual void LoopEnded() = 0;

   protected:
    ~Owner() = default;
  };

  ServerLoop(Owner& owner, LoopCore& core, const Options& options,
             std::shared_ptr<ConnContext> context);

  // ---- Any thread.

  // Begins to live on its loop.
  void Begin() { Post(); }

  // Hands over a socket, or closes it and tells the owner that it was refused.
  void Deal(ConnectedSocket socket) XTCP_EXCLUDES(mu_);

  // Refuses all sends from now on, and notes that all connections are to be stopped; `Post` tells the
  // loop. Needs no memory, and makes no system call. `stops`: all that were asked for so far.
  void NoteStops(Stops stops) { context().stops.store(stops); }
  bool IsStopping() const { return stops_of_.stopping(); }

  // Makes the loop look at what was noted.
  void Post() XTCP_EXCLUDES(mu_);

  // The server has no connection any more, and gets none: the loop may end.
  void RequestEnd();

  // ---- The loop's thread.

  // Makes a connection from an accepted socket, and serves it.
  void Serve(ConnectedSocket socket);

 private:
  // ServiceLoop.
  void StopByGroup(Stops stops) override { owner_.GroupStops(stops); }
  void Abort(std::error_code error) override;
  void ConnectionEnded(const StopReport& report) override;
  void ConnectionGone(ConnImpl& conn) override;

  void HandlePosted() override;
  void HandleRetired() override;

  void TakeDealt() XTCP_EXCLUDES(mu_);
  void RefuseDealt() XTCP_EXCLUDES(mu_);
  void SeeStops();
  void TellStops();
  void EndIfOver() XTCP_EXCLUDES(mu_);
  void CountConnection(int change);

  // So many connections learn of a stop in one iteration.
  static constexpr int kStopsPerIteration = 1024;

  Owner& owner_;
  ConnContext& stops_of_;

  // All of them are ConnImpls. Callbacks get a reference to the element; the vector changes only
  // between turns.
  std::vector<ConnPtr> conns_;

  // Loop thread only: the stops that connections are told of, and below which index they have not been
  // told yet.
  Stops told_stops_ = Stops::kNone;
  std::size_t tell_next_ = 0;
  bool begun_ = false;
  std::atomic<bool> end_asked_{false};

  Mutex mu_;
  std::vector<ConnectedSocket> dealt_ XTCP_GUARDED_BY(mu_);
  bool gone_ XTCP_GUARDED_BY(mu_) = false;  // takes no more sockets
  bool over_ XTCP_GUARDED_BY(mu_) = false;  // and no more posts
};

}  // namespace xtcp::internal
