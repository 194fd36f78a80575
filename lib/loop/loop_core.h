#pragma once

#include <atomic>
#include <chrono>
#include <memory>
#include <system_error>

#include "loop/loop_context.h"
#include "loop/turn.h"
#include "reactor/channel.h"
#include "reactor/event_loop.h"

namespace xtcp::internal {

// What a service (a server, a dialled connection) is on one loop. Loop thread only.
class LoopService {
 public:
  // The stops of the group have reached this loop.
  virtual void StopByGroup(Stops stops) = 0;

  // The loop is broken, or its thread ends: end everything now. It is called again and again until the
  // service has detached.
  virtual void Abort(std::error_code error) = 0;

 protected:
  ~LoopService() = default;

 private:
  friend class LoopCore;
  LoopService* before_ = nullptr;
  LoopService* after_ = nullptr;
  bool attached_ = false;
};

// One loop of a group: what belongs to the loop, and not to the services on it.
//
//   LoopContext   mailbox, pool, tasks, timers: any thread, and longer than the loop
//   EventLoop     poller, deadlines
//   Turn          the buffers that the connections of all services share, one turn after the other
//
// Thread safety: `Stop`, `RequestQuit` and `Push` from any thread; all else on the loop's thread, or
// while no thread runs it.
class LoopCore final : private Channel {
 public:
  explicit LoopCore(std::shared_ptr<LoopContext> context);
  ~LoopCore() { Close(); }

  std::error_code Open();

  // Serves until `RequestQuit`. With an error the loop itself is broken: every service on it was
  // aborted. So it was when the thread ended inside (ForcedUnwind).
  std::error_code Run();

  // Instead of `Run`, when there is no thread for it: ends what is to live on the loop, on this thread.
  void EndWithout(std::error_code error);

  // One turn; `*quits`: it was the last one.
  std::error_code RunOnce(std::chrono::nanoseconds at_most, bool* quits);

  // Ends tasks and timers, and closes what `Open` opened. After `Run`, or in its place.
  void Close();

  // The group's stops: services are told, and timers end. `NoteStops` makes no system call.
  void NoteStops(Stops stops) { context_->group_stops.store(stops); }
  void Post();

  // Nothing lives on the loop any more: it ends.
  void RequestQuit();

  void Attach(LoopService& service);
  void Detach(LoopService& service);

  // A descriptor that is readable when the loop has something to do, while it does not run.
  int Descriptor();

  EventLoop& loop() { return loop_; }
  Turn& turn() { return turn_; }
  LoopContext& context() { return *context_; }
  const std::shared_ptr<LoopContext>& shared_context() const { return context_; }

  // Makes the loop serve `channel`, which `ClaimPost` gave the right to push. Any thread.
  void Push(Channel* channel);

 private:
  void HandlePosted() override;
  void TellStops();
  void Fail(std::error_code error);

  const std::shared_ptr<LoopContext> context_;
  EventLoop loop_;
  Turn turn_;
  LoopService* services_ = nullptr;
  LoopService* tell_next_ = nullptr;  // to learn of `told_stops_`
  Stops told_stops_ = Stops::kNone;
  bool closed_ = false;
  std::atomic<bool> quit_{false};
};

}  // namespace xtcp::internal
