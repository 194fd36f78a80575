#include "loop/names.h"

#include <xtcp/error.h>

#include <new>
#include <utility>

#include "sys/syscalls.h"

namespace xtcp::internal {

std::error_code Names::Begin(std::shared_ptr<LookUp> look_up) {
  MutexLock lock(mu_);
  if (closed_) return Errc::kStopped;
  if (waiting_ >= kMostWaiting) return Errc::kFull;
  if (idle_ <= waiting_ && threads_.size() < kThreads) {
    // If no further thread can be had, those that there are do the work.
    const std::error_code error = StartThread();
    if (error && threads_.empty()) return error;
  }
  LookUp* const added = look_up.get();
  (last_ == nullptr ? first_ : last_->next_) = std::move(look_up);
  last_ = added;
  ++waiting_;
  changed_.NotifyAll();
  return {};
}

std::error_code Names::StartThread() {
  try {
    threads_.reserve(kThreads);
  } catch (const std::bad_alloc&) {
    return Errc::kNoMemory;
  }
  std::thread thread;
  const std::error_code error = sys::StartThread(
      "xtcp-names", [this] { Work(); }, &thread);
  if (!error) threads_.push_back(std::move(thread));
  return error;
}

std::shared_ptr<LookUp> Names::TakeFirst() {
  std::shared_ptr<LookUp> first = std::move(first_);
  first_ = std::move(first->next_);
  if (first_ == nullptr) last_ = nullptr;
  --waiting_;
  return first;
}

void Names::Work() {
  for (;;) {
    std::shared_ptr<LookUp> look_up;
    {
      MutexLock lock(mu_);
      ++idle_;
      while (first_ == nullptr && !closed_) changed_.Wait(mu_);
      --idle_;
      if (closed_) return;
      look_up = TakeFirst();
    }
    look_up->Done(ResolveForDial(look_up->address_));
  }
}

void Names::Close() {
  std::shared_ptr<LookUp> dropped;
  {
    MutexLock lock(mu_);
    closed_ = true;
    dropped = std::move(first_);
    last_ = nullptr;
    waiting_ = 0;
    changed_.NotifyAll();
  }
  // One by one: a long list would otherwise end in as deep a recursion.
  while (dropped != nullptr) dropped = std::shared_ptr<LookUp>(std::move(dropped->next_));
}

void Names::End() {
  Close();
  std::vector<std::thread> threads;
  {
    MutexLock lock(mu_);
    threads.swap(threads_);
  }
  for (std::thread& thread : threads) thread.join();
}

}  // namespace xtcp::internal
