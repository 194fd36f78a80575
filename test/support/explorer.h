#pragma once

#include <cstddef>
#include <functional>
#include <limits>
#include <memory>
#include <string>

namespace xtcp::test {

// The schedules of a few short threads, one after the other: at each operation on what they share
// (held_thread.h) it is decided which of them goes on. One thread runs at a time, so memory is
// sequentially consistent here; orders that only a processor makes are for the other variants.
//
//   Exploration result = Explore({}, [](Schedule& schedule) -> std::string {
//     ... make everything anew ...
//     schedule.Add("sender", [&] { ... });
//     schedule.RunToEnd();
//     return ... what is wrong, or "" ...;
//   });
//   REQUIRE(result.problem == "");
class Schedule {
 public:
  // A thread that waits ahead of its first line.
  void Add(std::string name, std::function<void()> body);

  // Runs the threads until each has ended, or waits for something that none of them will do. This is
  // what differs from schedule to schedule.
  void Run();

  // The same for threads that all must end. Where one waits for ever the program ends with the steps
  // that led there, since nothing can end the thread.
  void RunToEnd();

  // As `Run`, in one order: to bring threads where the exploration is to begin.
  void Settle();

  // Whether this thread has ended.
  bool Ended(const std::string& name) const;

  // A step of the thread that calls it, for places where the library makes none.
  void Pause();

  // How many steps were made so far: an order of what the threads do.
  std::size_t now() const;

  // Lets the threads go, which then run as the system likes, and joins them. They must end.
  void Finish();

 private:
  friend struct Exploration Explore(const struct ExploreOptions& options,
                                    const std::function<std::string(Schedule&)>& body);
  class Engine;
  explicit Schedule(Engine& engine) : engine_(engine) {}
  Engine& engine_;
};

struct ExploreOptions {
  static constexpr std::size_t kAll = std::numeric_limits<std::size_t>::max();

  // How often a schedule may take the turn from a thread that could go on. Where all orders are too
  // many: nearly every mistake shows with two.
  std::size_t preemptions = kAll;

  // Fails when there are more.
  std::size_t most = 200'000;
};

struct Exploration {
  std::size_t schedules = 0;
  std::string problem;  // of the first schedule that had one, with its steps
};

// Calls `body` once for each schedule, on this thread, until it finds a problem.
Exploration Explore(const ExploreOptions& options,
                    const std::function<std::string(Schedule&)>& body);

}  // namespace xtcp::test
