#pragma once

#include <cstddef>
#include <memory>
#include <string>
#include <system_error>
#include <thread>
#include <vector>

#include "base/mutex.h"
#include "base/thread_annotations.h"
#include "socket/resolve.h"

namespace xtcp::internal {

// One look-up of a name.
class LookUp {
 public:
  explicit LookUp(std::string address) : address_(std::move(address)) {}
  virtual ~LookUp() = default;

  // Takes the result, on a thread of `Names`.
  virtual void Done(Resolution resolution) noexcept = 0;

 private:
  friend class Names;
  const std::string address_;
  std::shared_ptr<LookUp> next_;  // of those that wait
};

// Threads that look names up, so that no loop waits for one (getaddrinfo(3) cannot be interrupted):
//
//   Begin, any thread ──► a queue (a lock) ──► a thread: getaddrinfo ──► LookUp::Done
//
// There are at most four, each started when there is more to do than the others can take on.
//
// Thread safety: any thread.
// Lifetime: its destructor waits for the look-ups that are under way, and drops those that wait.
class Names {
 public:
  static constexpr std::size_t kThreads = 4;
  static constexpr std::size_t kMostWaiting = 1024;

  Names() = default;
  ~Names() { End(); }
  Names(const Names&) = delete;
  Names& operator=(const Names&) = delete;

  // Begins. `Errc::kFull` when too many wait, `kNoMemory`, `kStopped` after `Close`, or why no
  // thread could be started.
  std::error_code Begin(std::shared_ptr<LookUp> look_up) XTCP_EXCLUDES(mu_);

  // Refuses look-ups from now on, and drops those that wait; those that are under way go on.
  void Close() XTCP_EXCLUDES(mu_);

  // The same, and waits for the threads.
  void End() XTCP_EXCLUDES(mu_);

 private:
  // The body of each thread.
  void Work() XTCP_EXCLUDES(mu_);

  // Starts one more thread.
  std::error_code StartThread() XTCP_REQUIRES(mu_);

  // Takes the look-up out that has waited longest. There must be one.
  std::shared_ptr<LookUp> TakeFirst() XTCP_REQUIRES(mu_);

  Mutex mu_;
  CondVar changed_;
  std::shared_ptr<LookUp> first_ XTCP_GUARDED_BY(mu_);  // of those that wait
  LookUp* last_ XTCP_GUARDED_BY(mu_) = nullptr;
  std::size_t waiting_ XTCP_GUARDED_BY(mu_) = 0;
  std::vector<std::thread> threads_ XTCP_GUARDED_BY(mu_);
  std::size_t idle_ XTCP_GUARDED_BY(mu_) = 0;
  bool closed_ XTCP_GUARDED_BY(mu_) = false;
};

}  // namespace xtcp::internal
