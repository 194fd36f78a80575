#pragma once

#include <time.h>

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <cstdio>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "support/clock.h"

// What it costs to hand tasks to a loop on another thread. It uses nothing of any library:
// `post(task)` hands the task over, on any thread, and a loop runs meanwhile.
namespace bench {

// Waits a little. It does not yield: where other programs run, that may take very long.
inline void Rest() {
  const timespec little{0, 20'000};
  nanosleep(&little, nullptr);
}

// Has `task` run on the loop, and waits.
template <typename Post, typename Task>
void RunThere(const Post& post, Task task) {
  std::atomic<bool> done{false};
  post([&] {
    task();
    done.store(true, std::memory_order_release);
  });
  while (!done.load(std::memory_order_acquire)) Rest();
}

// A thread that posts. It waits when too many of its tasks have not run.
template <typename Post>
class Producer {
 public:
  std::uint64_t PostUntil(std::uint64_t end, const Post& post) {
    std::uint64_t posted = 0;
    for (; posted % 64 != 0 || ReadNs(CLOCK_MONOTONIC) < end; ++posted) {
      while (posted - ran_.load(std::memory_order_acquire) >= kAhead) Rest();
      post([this] {
        ran_.store(ran_.load(std::memory_order_relaxed) + 1, std::memory_order_release);
      });
    }
    while (ran_.load(std::memory_order_acquire) != posted) Rest();
    return posted;
  }

 private:
  static constexpr std::uint64_t kAhead = 1024;
  alignas(64) std::atomic<std::uint64_t> ran_{0};
};

// Prints how many tasks a second run that so many threads post, and what one costs the loop's
// thread.
template <typename Post>
void MeasurePosts(std::size_t threads, double seconds, const Post& post) {
  std::uint64_t cpu_before = 0, cpu_after = 0;
  RunThere(post, [&] { cpu_before = ReadNs(CLOCK_THREAD_CPUTIME_ID); });
  const auto producers = std::make_unique<Producer<Post>[]>(threads);
  std::atomic<std::uint64_t> tasks{0};
  const std::uint64_t begin = ReadNs(CLOCK_MONOTONIC);
  {
    std::vector<std::jthread> running;
    for (std::size_t i = 0; i < threads; ++i) {
      running.emplace_back([&, i] {
        tasks += producers[i].PostUntil(begin + static_cast<std::uint64_t>(seconds * 1e9), post);
      });
    }
  }
  const auto ns = static_cast<double>(ReadNs(CLOCK_MONOTONIC) - begin);
  RunThere(post, [&] { cpu_after = ReadNs(CLOCK_THREAD_CPUTIME_ID); });
  const auto count = static_cast<double>(tasks);
  std::printf("tasks_per_s %.9g\nloop_cpu_ns %.9g\n", count / ns * 1e9,
              static_cast<double>(cpu_after - cpu_before) / count);
}

// Prints the microseconds from posting to the beginning of the task, as NAME_p50 and NAME_p99.
template <typename Post>
void MeasureDelay(const std::string& name, const Post& post) {
  constexpr std::size_t kSamples = 500;
  std::vector<std::uint64_t> samples;
  for (std::size_t i = 0; i < kSamples; ++i) {
    const timespec pause{0, 100'000};  // until a loop that has nothing to do sleeps
    nanosleep(&pause, nullptr);
    std::uint64_t began = 0;
    const std::uint64_t posted = ReadNs(CLOCK_MONOTONIC);
    RunThere(post, [&] { began = ReadNs(CLOCK_MONOTONIC); });
    samples.push_back(began - posted);
  }
  std::sort(samples.begin(), samples.end());
  for (const auto& [percent, index] :
       {std::pair{"50", kSamples / 2}, {"99", kSamples * 99 / 100}}) {
    std::printf("%s_p%s %.9g\n", name.c_str(), percent, static_cast<double>(samples[index]) / 1e3);
  }
}

// Prints the delays to a loop that sleeps, and to one that a task of 5 microseconds, which posts
// itself again, keeps busy.
template <typename Post>
void MeasureDelays(const Post& post) {
  MeasureDelay("asleep", post);
  struct Busy {
    const Post& post;
    std::atomic<bool>& over;
    void operator()() const {
      const std::uint64_t end = ReadNs(CLOCK_MONOTONIC) + 5'000;
      while (ReadNs(CLOCK_MONOTONIC) < end) {
      }
      if (!over) post(*this);
    }
  };
  std::atomic<bool> over{false};
  post(Busy{post, over});
  MeasureDelay("busy", post);
  over = true;
  RunThere(post, [] {});  // the busy task, which may be under way, does not post itself again
  RunThere(post, [] {});
}

// What `post_NAME rate THREADS` or `post_NAME delay` asks for.
template <typename Post>
void MeasureAsTold(const std::vector<std::string>& words, const Post& post) {
  if (words.at(0) == "rate") MeasurePosts(std::stoul(words.at(1)), 0.4, post);
  if (words.at(0) == "delay") MeasureDelays(post);
  std::fflush(stdout);
}

}  // namespace bench
