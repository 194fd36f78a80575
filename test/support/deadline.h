#pragma once

#include <chrono>
#include <condition_variable>
#include <cstddef>
#include <functional>
#include <mutex>
#include <string>
#include <thread>

namespace xtcp::test {

// How long a test waits for something that should take milliseconds. It says nothing about speed: it
// only turns a hang into a failure. So it is long enough for a machine on which a dozen other
// programs spin.
inline constexpr std::chrono::seconds kDeadline{60};

// Waits until `predicate` holds; false when the deadline passed first. `lock` is held around it.
template <typename Predicate>
bool WaitUntil(std::unique_lock<std::mutex>& lock, std::condition_variable& changed,
               Predicate predicate, std::chrono::milliseconds deadline = kDeadline) {
  return changed.wait_until(lock, std::chrono::steady_clock::now() + deadline, predicate);
}

// The same for what nobody announces: counts in /proc, and a connection's `Stats`. It polls.
template <typename Predicate>
bool WaitUntil(Predicate predicate, std::chrono::milliseconds deadline = kDeadline) {
  const auto end = std::chrono::steady_clock::now() + deadline;
  while (!predicate()) {
    if (std::chrono::steady_clock::now() >= end) return predicate();
    std::this_thread::sleep_for(std::chrono::microseconds(200));
  }
  return true;
}

// Waits for another thread that is about to answer, for a round of a few hundred nanoseconds. Where
// both have a processor it only spins; it gives its own away when the other one seems to have none. A
// yield each time would cost a busy machine's time slice a round.
template <typename Predicate>
void SpinUntil(Predicate predicate) {
  for (int i = 1; !predicate(); ++i) {
    if (i % 5'000 == 0) std::this_thread::yield();
  }
}

// For a loop that takes as many rounds as go into a second, but not more than `most`, and at least a
// hundredth of that: what a round may show needs two processors at once, which a busy machine gives
// rarely.
class Rounds {
 public:
  explicit Rounds(int most) : most_(most) {}

  // From 1 on; 0: it is over.
  int Next() {
    const bool late = std::chrono::steady_clock::now() >= end_ && round_ >= most_ / 100;
    return round_ < most_ && !late ? ++round_ : 0;
  }

 private:
  const int most_;
  const std::chrono::steady_clock::time_point end_ =
      std::chrono::steady_clock::now() + std::chrono::seconds(1);
  int round_ = 0;
};

// Something that happens once, for one thread to wait for another.
class Signal {
 public:
  void Set();

  // False when the deadline passed first.
  bool Wait(std::chrono::milliseconds deadline = kDeadline);

  bool IsSet() const;

 private:
  mutable std::mutex mutex_;
  std::condition_variable changed_;
  bool set_ = false;
};

// A count that only grows, for one thread to wait for others.
class Tally {
 public:
  void Add(std::size_t n = 1);

  // False when the deadline passed first.
  bool WaitFor(std::size_t n, std::chrono::milliseconds deadline = kDeadline);

  std::size_t count() const;

 private:
  mutable std::mutex mutex_;
  std::condition_variable changed_;
  std::size_t count_ = 0;
};

// Runs `body`, which may block, on a thread of its own. When it takes too long the program ends,
// since nothing can end the thread.
void WithinDeadline(const std::string& what, const std::function<void()>& body);

}  // namespace xtcp::test
