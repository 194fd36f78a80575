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

// Totals of one loop since it began. A turn is one round of the loop: it waits, and serves what
// came.
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

// A timer of `Loop::RunAfter` or `Loop::RunEvery`. Its destructor cancels it, unless it was
// detached.
//
// Thread safety: `Cancel`, `armed` and the destructor may be called on any thread, at any time,
// even in the timer's own task, which then runs to its end; for everything else it is as safe as an
// `int`. Lifetime: it may outlive its loop.
class XTCP_API Timer {
 public:
  // Makes an empty one, for which nothing is armed.
  Timer() noexcept = default;
  Timer(Timer&& other) noexcept = default;
  Timer& operator=(Timer&& other) noexcept;
  ~Timer() { Cancel(); }

  // Ends the timer: its task does not begin again. After a call on the loop's thread it does not
  // run any more at all; after one on another thread it may be running just now. The task is
  // destroyed on the loop's thread.
  void Cancel() noexcept;

  // Lets the timer run on without this handle, which is empty then.
  void Detach() noexcept;

  // Returns whether the task will run once more, as far as this thread knows.
  bool armed() const noexcept;

 private:
  friend class Loop;
  std::shared_ptr<internal::TimerNode> node_;
};

// A handle of one event loop: a small value that may be copied. An empty one, and one whose group
// has ended, refuses tasks. Everything that runs on a loop runs on one thread, one thing after the
// other, so that state which belongs to a loop needs no lock.
//
// Thread safety: any thread, even with the caller's own locks held, since nothing here waits or
// runs a task. Lifetime: it may outlive its group.
class XTCP_API Loop {
 public:
  // Makes an empty handle.
  Loop() noexcept = default;

  // Runs `task` once on the loop's thread, outside every connection's callback. Tasks that one
  // thread posts run in order. One turn of the loop runs what was posted before it looked, at most
  // 1,024 tasks. A task is a callback: calls that wait do not wait in it. What it throws is logged
  // and counted.
  //
  // Returns `Errc::kStopped` if the group has ended, `kNoLoop` on an empty handle, or `kNoMemory`;
  // then the task is destroyed before the call returns. A task that was accepted and did not run is
  // destroyed on the loop's thread before `LoopGroup::Run` returns.
  [[nodiscard]] std::error_code Post(Task task) const;

  // Runs `task` once, `delay` after this call by the monotonic clock; 0 or less means in the next
  // turn. It runs not before that time, and at most 1 ms and a turn of the loop after it. The timer
  // is empty when `Post` would have refused the task. A stop of the group ends all timers.
  [[nodiscard]] Timer RunAfter(std::chrono::milliseconds delay, Task task) const;

  // Runs `task` again and again, for the first time after one `period`, which is at least 1 ms. A
  // period that was missed is not made up for. An exception from the task does not end it.
  [[nodiscard]] Timer RunEvery(std::chrono::milliseconds period, Task task) const;

  // Returns whether this thread runs the loop now.
  bool IsCurrent() const noexcept;

  // Returns the loop's place in its group, 0 for an empty handle.
  std::size_t index() const noexcept;

  // Returns the totals now. Reading them changes nothing, and disturbs nothing.
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
// Lifetime: neither copied nor moved. It and what was made for it may be destroyed in any order, on
// any thread and in every callback. After fork(2) a child may only leave it alone, or _exit(2).
class XTCP_API LoopGroup {
 public:
  // Makes `loops` loops, from 1 to 1024; 0 means as many as processors this process may run on
  // (sched_getaffinity(2)). Throws std::invalid_argument for more. It opens no descriptor and
  // starts no thread yet.
  explicit LoopGroup(std::size_t loops = 1);

  // Calls `Stop(kImmediately)`, and waits for `Run` and for look-ups of names that are under way;
  // inside a callback it waits for nothing.
  ~LoopGroup();

  LoopGroup(const LoopGroup&) = delete;
  LoopGroup& operator=(const LoopGroup&) = delete;

  // Runs the first loop on this thread and the others on threads that it starts and joins, named
  // xtcp-loop-1 and so on. Returns when a stop of the group has ended everything that lived on it,
  // or at once if the stop came first. Without a stop it runs on even when nothing lives on it.
  //
  // Returns `Errc::kAlreadyUsed` the second time, and `kWouldDeadlock` inside a callback. When a
  // loop cannot be opened, cannot be started or fails, the group stops gracefully and that error is
  // returned.
  [[nodiscard]] std::error_code Run();

  // Stops every server, connection, dial and redialer on the group as their own stops do, and all
  // timers. The report counts the connections that were open when this stop began, or were admitted
  // while it ran, even those that something else stopped as well. After it `Dial` and `Start`
  // return `Errc::kStopped`, while `Post` works until the end.
  StopReport Stop(StopMode mode);

  // Drains every server on the group, as `Server::Drain` does.
  void Drain(DrainMode mode = DrainMode::kOwnListeners);

  // Returns whether a stop has begun, or the group has ended.
  bool IsStopped() const;

  // Returns the number of loops.
  std::size_t size() const noexcept;

  // Returns the loop with that index, which must be less than `size()`.
  Loop operator[](std::size_t i) const;

  // Returns the loops in turn, one with each call.
  Loop Next();

  // Takes the place of `Run` for a group of one inside somebody else's loop: one turn on this
  // thread, which is the loop's thread during the call. It waits for something to do for `at_most`,
  // and not at all for 0. On the thread that made the last `RunOnce`, outside callbacks, calls that
  // wait turn the loop themselves until they are done.
  //
  // Returns no error if the loop turned; `Errc::kStopped` once a stop has ended everything;
  // `kAlreadyUsed` on a group of more than one loop, after `Run`, and while another thread is
  // inside; `kWouldDeadlock` inside a callback; or the loop's error, as `Run` does.
  [[nodiscard]] std::error_code RunOnce(std::chrono::milliseconds at_most);

  // Returns a descriptor for poll(2), epoll(7) and their like, which is readable when `RunOnce` has
  // something to do; or -1, with a line in the log, when it cannot be opened. It belongs to the
  // group.
  int Descriptor();

  // Returns how long to wait for `Descriptor` before `RunOnce` is due all the same: until the next
  // timer, rounded up; 0 when something waits already, and -1 when there is no timer.
  std::chrono::milliseconds Timeout();

 private:
  friend struct internal::LoopAccess;
  std::shared_ptr<internal::Group> group_;
};

}  // namespace xtcp
