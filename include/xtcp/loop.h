#pragma once

#include <xtcp/export.h>
#include <xtcp/stop_mode.h>
#include <xtcp/task.h>

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <system_error>

namespace xtcp {

namespace internal {
struct LoopContext;
class TimerNode;
class Group;
struct LoopAccess;
}  // namespace internal

// Totals of one loop since it began. A turn is one round of the loop: it waits, and serves what came.
struct LoopStats {
  // Rounds of the loop.
  std::uint64_t turns = 0;

  // Tasks of `Loop::Post` and `Conn::Post` that have run.
  std::uint64_t tasks = 0;

  // Runs of timers of `Loop::RunAfter` and `RunEvery`, and calls of `Handler::OnTimer`.
  std::uint64_t timers = 0;

  // Exceptions that left tasks, and the tasks of timers.
  std::uint64_t exceptions = 0;

  // The time that was not spent waiting.
  std::chrono::nanoseconds busy{0};

  // The longest turn of the last one to two minutes, without its waiting.
  std::chrono::nanoseconds longest_turn{0};

  // Connections that live on the loop now.
  std::size_t connections = 0;
};

// A timer of `Loop::RunAfter` or `Loop::RunEvery`. Its end cancels it, unless it was detached.
//
// Thread safety: `Cancel`, `armed` and the destructor from any thread, at any time, also in the timer's
// own task, which then runs to its end; all else as an `int`.
// Lifetime: it may outlive its loop.
class XTCP_API Timer {
 public:
  // Empty: nothing is armed.
  Timer() noexcept = default;
  Timer(Timer&& other) noexcept = default;
  Timer& operator=(Timer&& other) noexcept;
  ~Timer() { Cancel(); }

  // The task does not begin again; when this is called on the loop's thread it does not run again at
  // all, elsewhere it may be running just now. It is destroyed on the loop's thread.
  void Cancel() noexcept;

  // The timer runs on without this handle, which is empty then.
  void Detach() noexcept;

  // Whether the task will run once more, as far as is known here.
  bool armed() const noexcept;

 private:
  friend class Loop;
  std::shared_ptr<internal::TimerNode> node_;
};

// One event loop, as a handle: a small value to be copied. An empty one, and one whose group has ended,
// refuses. All that runs on a loop runs on one thread, one thing after the other: state that belongs to
// a loop needs no lock.
//
// Thread safety: any thread, with locks of the caller's own held, since nothing here waits or runs a
// task.
// Lifetime: it may outlive its group.
class XTCP_API Loop {
 public:
  Loop() noexcept = default;

  // Runs `task` once on the loop's thread, outside every connection's callback. Tasks that one thread
  // posts run in order. One turn of the loop runs what was posted before it looked, at most 1,024
  // tasks. A task is a callback: calls that wait do not wait in it. What it throws is logged and
  // counted. `Errc::kStopped` when the group has ended, `kNoLoop` on an empty handle, `kNoMemory`; then
  // the task is destroyed before the call returns. One that was accepted and did not run is destroyed
  // on the loop's thread before `LoopGroup::Run` returns.
  [[nodiscard]] std::error_code Post(Task task) const;

  // Runs `task` once, `delay` after this call (0 or less: at the next turn), by the monotonic clock: not
  // before, and at most 1 ms and a turn of the loop later. The timer is empty where `Post` would have
  // refused. A stop of the group ends all timers.
  [[nodiscard]] Timer RunAfter(std::chrono::milliseconds delay, Task task) const;

  // Runs `task` again and again, for the first time after one `period`, which is at least 1 ms. A
  // period that was missed is not made up for. An exception from the task does not end it.
  [[nodiscard]] Timer RunEvery(std::chrono::milliseconds period, Task task) const;

  // Whether this thread runs the loop now.
  bool IsCurrent() const noexcept;

  // Its place in its group; 0 for an empty handle.
  std::size_t index() const noexcept;

  // Reading them changes nothing, and disturbs nothing.
  LoopStats Stats() const;

  // Whether both are handles of the same loop, or both are empty.
  bool operator==(const Loop&) const = default;

 private:
  friend struct internal::LoopAccess;
  std::shared_ptr<internal::LoopContext> context_;
};

// Event loops that servers, dialled connections, timers and tasks share, one thread each.
//
//   LoopGroup group(2);
//   Server data(data_options, group), admin(admin_options, group);
//   … data.Listen(…), data.Start(), admin.Listen(…), admin.Start() …
//   group.Run();                                    // until group.Stop(…)
//
// Thread safety: any thread; `RunOnce`, `Descriptor` and `Timeout` on one thread at a time.
// Lifetime: neither copied nor moved. It and what was made for it may be destroyed in any order, on any
// thread and in every callback. After fork(2) a child may only leave it alone, or _exit(2).
class XTCP_API LoopGroup {
 public:
  // `loops` from 1 to 1024; 0: as many as processors this process may run on (sched_getaffinity(2)).
  // More throw std::invalid_argument. Opens no descriptor and starts no thread yet.
  explicit LoopGroup(std::size_t loops = 1);

  // `Stop(kImmediately)`, and waits for `Run` and for look-ups of names that are under way; inside a
  // callback it waits for nothing.
  ~LoopGroup();

  LoopGroup(const LoopGroup&) = delete;
  LoopGroup& operator=(const LoopGroup&) = delete;

  // Runs the first loop on this thread and the others on threads that it starts and joins, named
  // xtcp-loop-1 and so on. Returns when a stop of the group has ended everything that lived on it; at
  // once when the stop came first. Without a stop it runs on although nothing lives on it.
  // `Errc::kAlreadyUsed` the second time, `kWouldDeadlock` inside a callback. When a loop cannot be
  // opened, cannot be started or fails, the group stops gracefully, and that error is returned.
  [[nodiscard]] std::error_code Run();

  // Stops every server, connection, dial and redialer on the group as their own stops do, and all
  // timers. The report counts the connections that were open when this stop began, or were admitted
  // while it ran, whoever else stopped them too. After it `Dial` and `Start` are `Errc::kStopped`;
  // `Post` works until the end.
  StopReport Stop(StopMode mode);

  // Whether a stop has begun, or the group has ended.
  bool IsStopped() const;

  // The number of loops.
  std::size_t size() const noexcept;

  // The loop with that index, which must be less than `size()`.
  Loop operator[](std::size_t i) const;

  // The loops in turn.
  Loop Next();

  // Instead of `Run`, for a group of one inside somebody else's loop. One turn on this thread, which is
  // the loop's during the call; it waits for something to do for `at_most` (0: not at all). No error
  // when it turned; `Errc::kStopped` once a stop has ended everything; `kAlreadyUsed` on a group of more
  // than one, after `Run`, and while another thread is in it; `kWouldDeadlock` inside a callback; or the
  // loop's error, as `Run`. On the thread that made the last `RunOnce`, outside callbacks, calls that
  // wait turn the loop themselves until they are done.
  [[nodiscard]] std::error_code RunOnce(std::chrono::milliseconds at_most);

  // A descriptor for poll(2), epoll(7) and their like, which is readable when `RunOnce` has something to
  // do; -1, and a line in the log, when it cannot be had. It belongs to the group.
  int Descriptor();

  // How long to wait for `Descriptor` before `RunOnce` is due all the same, rounded up: until the next
  // timer; 0: something waits; -1: for ever.
  std::chrono::milliseconds Timeout();

 private:
  friend struct internal::LoopAccess;
  std::shared_ptr<internal::Group> group_;
};

}  // namespace xtcp
