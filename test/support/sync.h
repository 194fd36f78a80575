#pragma once

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <mutex>

#include "support/held_thread.h"

// Stands in for what lib/sys/sync.h gives the library, in the variant that says so
// (XTCP_SYNC_HEADER): a thread that a test holds asks ahead of each operation. For all other threads
// these are the standard ones.
namespace xtcp::sys {

// What the library uses of std::atomic.
template <typename T>
class Atomic {
 public:
  constexpr Atomic() noexcept = default;
  constexpr Atomic(T value) noexcept : value_(value) {}  // NOLINT: as std::atomic
  Atomic(const Atomic&) = delete;
  Atomic& operator=(const Atomic&) = delete;

  T load(std::memory_order order = std::memory_order_seq_cst) const noexcept {
    Ask("load");
    return value_.load(order);
  }
  void store(T value, std::memory_order order = std::memory_order_seq_cst) noexcept {
    Ask("store");
    value_.store(value, order);
  }
  T exchange(T value, std::memory_order order = std::memory_order_seq_cst) noexcept {
    Ask("exchange");
    return value_.exchange(value, order);
  }
  // It fails for no reason on some machines; here never, so that a schedule can be repeated.
  bool compare_exchange_weak(T& expected, T value,
                             std::memory_order order = std::memory_order_seq_cst) noexcept {
    return compare_exchange_strong(expected, value, order);
  }
  bool compare_exchange_strong(T& expected, T value,
                               std::memory_order order = std::memory_order_seq_cst) noexcept {
    Ask("compare_exchange");
    return value_.compare_exchange_strong(expected, value, order);
  }
  T fetch_add(T n, std::memory_order order = std::memory_order_seq_cst) noexcept {
    Ask("fetch_add");
    return value_.fetch_add(n, order);
  }
  T fetch_sub(T n, std::memory_order order = std::memory_order_seq_cst) noexcept {
    Ask("fetch_sub");
    return value_.fetch_sub(n, order);
  }
  T fetch_or(T bits, std::memory_order order = std::memory_order_seq_cst) noexcept {
    Ask("fetch_or");
    return value_.fetch_or(bits, order);
  }
  T fetch_and(T bits, std::memory_order order = std::memory_order_seq_cst) noexcept {
    Ask("fetch_and");
    return value_.fetch_and(bits, order);
  }

  void wait(T old, std::memory_order order = std::memory_order_seq_cst) const noexcept {
    if (test::HeldThread* held = test::HeldThread::Current()) {
      for (bool goes_on = true; goes_on; goes_on = held->SleepAt(this)) {
        held->Step("wait");
        if (value_.load(order) != old) return;
      }
    }
    value_.wait(old, order);
  }
  void notify_one() noexcept { Notify(false); }
  void notify_all() noexcept { Notify(true); }

 private:
  static void Ask(const char* operation) {
    if (test::HeldThread* held = test::HeldThread::Current()) held->Step(operation);
  }
  void Notify(bool all) noexcept {
    if (test::HeldThread* held = test::HeldThread::Current()) {
      held->Step("notify");
      held->WakeAt(this, all);
    }
    value_.notify_all();  // those that nobody holds look again
  }

  std::atomic<T> value_{};
};

class Mutex {
 public:
  Mutex() = default;
  Mutex(const Mutex&) = delete;
  Mutex& operator=(const Mutex&) = delete;

  void lock() {
    if (test::HeldThread* held = test::HeldThread::Current()) {
      held->StepWhen("lock", [this] { return !taken_; });
    }
    mutex_.lock();
    taken_ = true;
  }
  void unlock() {
    taken_ = false;
    mutex_.unlock();
  }

 private:
  friend class ConditionVariable;
  std::mutex mutex_;
  std::atomic<bool> taken_{false};
};

class ConditionVariable {
 public:
  ConditionVariable() = default;
  ConditionVariable(const ConditionVariable&) = delete;
  ConditionVariable& operator=(const ConditionVariable&) = delete;

  void wait(std::unique_lock<Mutex>& lock) {
    Mutex& mutex = *lock.mutex();
    if (test::HeldThread* held = test::HeldThread::Current()) {
      held->Step("wait");
      const std::uint64_t before = notified_;
      mutex.unlock();
      held->StepWhen("wake", [this, before] { return notified_ != before; });
      mutex.lock();
      return;
    }
    mutex.taken_ = false;
    std::unique_lock<std::mutex> inner(mutex.mutex_, std::adopt_lock);
    condition_.wait(inner);
    inner.release();
    mutex.taken_ = true;
  }
  void notify_all() {
    if (test::HeldThread* held = test::HeldThread::Current()) held->Step("notify_all");
    ++notified_;
    condition_.notify_all();
  }

 private:
  std::condition_variable condition_;
  std::atomic<std::uint64_t> notified_{0};
};

// A held thread that looks again and again would only be schedules more.
inline constexpr int kLooksAtLock = 0;

}  // namespace xtcp::sys
