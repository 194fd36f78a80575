#pragma once

#include <cstddef>
#include <memory>
#include <system_error>
#include <vector>

#include "base/cache_line.h"
#include "base/mutex.h"
#include "base/thread_annotations.h"
#include "conn/conn_impl.h"
#include "conn/service_loop.h"
#include "loop/stops.h"
#include "loop/totals.h"
#include "reactor/channel.h"
#include "server/visit.h"
#include "sys/sync.h"

namespace xtcp::internal {

class Acceptor;

// A server on one of its loops, with its connections there. A connection is made, served and
// released on the loop's thread:
//
//   Deal ─► dealt sockets ─► connections ─► the last one is gone, the end was requested: it ends
//
// It begins at a cache line, and so does what other threads write: no two loops share one, and a
// loop that deals takes none away that this one uses in each turn.
//
// Thread safety: `Begin`, `Deal`, `NoteStops`, `IsStopping`, `Post`, `RequestEnd` and `totals` may
// be called on any thread; everything else on the loop's.
class alignas(kCacheLine) ServerLoop final : public ServiceLoop, public Channel {
 public:
  // The server, as its loops see it. It is called on their threads.
  class Owner {
   public:
    // An accepted socket could not be made into a connection. No error means that a stop has
    // overtaken it.
    virtual void ConnectionRefused(std::error_code error) = 0;
    virtual void ConnectionEnded(const StopReport& report) = 0;

    // The stop of the group has reached this loop.
    virtual void GroupStops(Stops stops) = 0;

    // The loop has begun: its listeners may be started.
    virtual void LoopBegins(ServerLoop& loop) XTCP_ON_LOOP = 0;

    // A stop was seen: the listeners on this loop are to be closed.
    virtual void LoopStops(ServerLoop& loop) = 0;

    // Whether the server drains; and a drain was seen: its listeners are to be drained.
    virtual bool Drains() const = 0;
    virtual void LoopDrains(ServerLoop& loop) XTCP_ON_LOOP = 0;

    // The loop is broken.
    virtual void LoopFailed(std::error_code error) = 0;

    // Nothing of the server lives on the loop any more, and nothing will.
    virtual void LoopEnded() = 0;

   protected:
    ~Owner() = default;
  };

  ServerLoop(Owner& owner, LoopCore& core, const Options& options, Ref<ConnContext> context);

  // ---- Any thread.

  // Begins to live on its loop.
  void Begin() { Post(); }

  // Hands over a socket. If that fails it is closed, and the owner is told.
  void Deal(ConnectedSocket socket) XTCP_EXCLUDES(mu_);

  // Refuses all sends from now on, and notes that all connections are to be stopped; `Post` tells
  // the loop. It needs no memory and makes no system call. `stops` are all that were asked for so
  // far.
  void NoteStops(Stops stops) { context().stops.store(stops); }
  bool IsStopping() const { return stops_of_.stopping(); }

  // Queues a stage of a visit; it is dropped where nothing lives any more.
  void Visit(ServerVisit::Stage& stage) XTCP_EXCLUDES(mu_);

  // Has the loop look at what was noted.
  void Post() XTCP_EXCLUDES(mu_);

  // The server has no connection any more, and gets none: the loop may end.
  void RequestEnd();

  const LoopTotals& totals() const { return totals_; }

  // ---- The loop's thread.

  // Makes a connection from an accepted socket, and serves it.
  void Serve(ConnectedSocket socket) XTCP_ON_LOOP;

 private:
  // ServiceLoop.
  void StopByGroup(Stops stops) XTCP_ON_LOOP override { owner_.GroupStops(stops); }
  void Abort(std::error_code error) XTCP_ON_LOOP override;
  void ConnectionEnded(const StopReport& report) XTCP_ON_LOOP override;
  void ConnectionGone(ConnImpl& conn) XTCP_ON_LOOP override;

  void HandlePosted() XTCP_ON_LOOP override;
  void HandleRetired() XTCP_ON_LOOP override;

  // Makes connections from the sockets that were dealt.
  void TakeDealt() XTCP_ON_LOOP XTCP_EXCLUDES(mu_);

  // Closes the sockets that were dealt, and those that are still to come.
  void RefuseDealt() XTCP_EXCLUDES(mu_);

  // Looks for stops that the connections have not been told of.
  void SeeStops() XTCP_ON_LOOP;
  void SeeDrain() XTCP_ON_LOOP;
  void TellDrain() XTCP_ON_LOOP;

  // Goes on with the visit that is under way, or begins the next one.
  void VisitSome() XTCP_ON_LOOP XTCP_EXCLUDES(mu_);
  ServerVisit::Stage* NextStage() XTCP_EXCLUDES(mu_);

  // Tells connections of the stops, some of them in each iteration.
  void TellStops() XTCP_ON_LOOP;

  // Ends, once, when the server has no connection on any loop and this one nothing to do for it.
  void EndIfOver() XTCP_ON_LOOP XTCP_EXCLUDES(mu_);
  void CountConnection(int change);

  // The number of connections that learn of a stop in one iteration.
  static constexpr int kPerIteration = 1024;

  LoopTotals totals_;
  Owner& owner_;
  ConnContext& stops_of_;

  // All of them are ConnImpls. Callbacks get a reference to the element, so the vector changes only
  // between turns.
  std::vector<ConnPtr> conns_ XTCP_OF_LOOP;

  // Loop thread only: the stops that connections are told of, and the index below which they have
  // not been told yet.
  Stops told_stops_ XTCP_OF_LOOP = Stops::kNone;
  std::size_t tell_next_ XTCP_OF_LOOP = 0;
  bool begun_ XTCP_OF_LOOP = false;

  // Of a drain: below which index connections have not been told of it.
  bool drains_ XTCP_OF_LOOP = false;
  std::size_t drain_next_ XTCP_OF_LOOP = 0;

  // The stage that is under way, and below which index its connections are. What a connection notes
  // of the last visit changes from one visit to the next, so that none gets two of the same.
  ServerVisit::Stage* stage_ XTCP_OF_LOOP = nullptr;
  std::size_t visit_next_ XTCP_OF_LOOP = 0;
  bool visit_mark_ XTCP_OF_LOOP = false;

  alignas(kCacheLine) sys::Atomic<bool> end_asked_{false};
  Mutex mu_;
  std::vector<ConnectedSocket> dealt_ XTCP_GUARDED_BY(mu_);
  ServerVisit::Stage* first_stage_ XTCP_GUARDED_BY(mu_) = nullptr;  // of those that wait
  ServerVisit::Stage* last_stage_ XTCP_GUARDED_BY(mu_) = nullptr;
  bool gone_ XTCP_GUARDED_BY(mu_) = false;  // takes no more sockets
  bool over_ XTCP_GUARDED_BY(mu_) = false;  // and no more posts
};

}  // namespace xtcp::internal
