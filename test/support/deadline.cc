#include "support/deadline.h"

#include "support/violations.h"

namespace xtcp::test {

void Signal::Set() {
  std::lock_guard lock(mutex_);
  set_ = true;
  changed_.notify_all();
}

bool Signal::Wait(std::chrono::milliseconds deadline) {
  std::unique_lock lock(mutex_);
  return WaitUntil(
      lock, changed_, [&] { return set_; }, deadline);
}

bool Signal::IsSet() const {
  std::lock_guard lock(mutex_);
  return set_;
}

void Tally::Add(std::size_t n) {
  std::lock_guard lock(mutex_);
  count_ += n;
  changed_.notify_all();
}

bool Tally::WaitFor(std::size_t n, std::chrono::milliseconds deadline) {
  std::unique_lock lock(mutex_);
  return WaitUntil(
      lock, changed_, [&] { return count_ >= n; }, deadline);
}

std::size_t Tally::count() const {
  std::lock_guard lock(mutex_);
  return count_;
}

void WithinDeadline(const std::string& what, const std::function<void()>& body) {
  Signal done;
  std::thread thread([&] {
    body();
    done.Set();
  });
  if (!done.Wait(3 * kDeadline)) Die(what + " does not return");
  thread.join();
}

}  // namespace xtcp::test
