#pragma once

#include <chrono>
#include <memory>
#include <system_error>

#include "base/cache_line.h"
#include "loop/loop_context.h"
#include "loop/turn.h"
#include "reactor/channel.h"
#include "reactor/event_loop.h"
#include "sys/sync.h"

namespace xtcp::internal {

// The part of a service (a server, a dialled connection, a redialer) on one loop. Loop thread only.
class LoopService {
 public:
  // The stops of the group have reached this loop.
  virtual void StopByGroup(Stops stops) XTCP_ON_LOOP = 0;

  // The loop is broken, or its thread ends: the service ends everything now. This is called again
  // and again until it has detached.
  virtual void Abort(std::error_code error) XTCP_ON_LOOP = 0;

 protected:
  ~LoopService() = default;

 private:
  friend class LoopCore;
  LoopService* before_ = nullptr;
  LoopService* after_ = nullptr;
  bool attached_ = false;
};

// One loop of a group, and what belongs to the loop rather than to the services on it:
//
//   LoopContext   mailbox, pool, tasks, timers: any thread, and longer than the loop
//   EventLoop     poller, deadlines
//   Turn          the buffers that the connections of all services share, one turn after the other
//
// It begins at a cache line, so that no two loops share one.
//
// Thread safety: `NoteStops`, `Post`, `RequestQuit` and `Push` may be called on any thread;
// everything else on the loop's thread, or while no thread runs it.
class alignas(kCacheLine) LoopCore final : private Channel {
 public:
  explicit LoopCore(std::shared_ptr<LoopContext> context);
  ~LoopCore() { Close(); }

  // Gets the buffers of the turns, and opens the poller.
  std::error_code Open();

  // Serves until `RequestQuit`. An error means that the loop itself is broken, and that every
  // service on it was aborted; the same is done before the ForcedUnwind of a thread that ends
  // inside is passed on.
  std::error_code Run();

  // Takes the place of `Run` when there is no thread for it: ends, on this thread, what was to live
  // on the loop.
  void EndWithout(std::error_code error);

  // Runs one iteration. `*quits` says whether it was the last one.
  std::error_code RunOnce(std::chrono::nanoseconds at_most, bool* quits);

  // Ends tasks and timers, and closes what `Open` opened. To be called after `Run`, or in its
  // place.
  void Close();

  // `NoteStops` notes the group's stops, from which moment every send is refused; it makes no
  // system call. `Post` has the loop tell its services, and end its timers.
  void NoteStops(Stops stops) { context_->group_stops.store(stops); }
  void Post();

  // Nothing lives on the loop any more: has it end.
  void RequestQuit();

  // Add a service to those that learn of stops and failures, and take it out.
  void Attach(LoopService& service) XTCP_ON_LOOP;
  void Detach(LoopService& service) XTCP_ON_LOOP;

  // Returns a descriptor that is readable, while the loop does not run, when it has something to
  // do.
  int Descriptor();

  EventLoop& loop() { return loop_; }
  Turn& turn() { return turn_; }
  LoopContext& context() { return *context_; }
  const std::shared_ptr<LoopContext>& shared_context() const { return context_; }

  // Makes the loop serve `channel`, which `ClaimPost` gave the right to push. Any thread.
  void Push(Channel* channel);

 private:
  void HandlePosted() XTCP_ON_LOOP override;

  // Tells services of the group's stops, some of them in each iteration.
  void TellStops() XTCP_ON_LOOP;

  // Aborts every service, until there is none.
  void Fail(std::error_code error);

  const std::shared_ptr<LoopContext> context_;
  EventLoop loop_;
  Turn turn_;
  LoopService* services_ XTCP_OF_LOOP = nullptr;
  LoopService* tell_next_ XTCP_OF_LOOP = nullptr;  // the next one to learn of `told_stops_`
  Stops told_stops_ XTCP_OF_LOOP = Stops::kNone;
  bool closed_ = false;
  sys::Atomic<bool> quit_{false};
};

}  // namespace xtcp::internal
