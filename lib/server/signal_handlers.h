#pragma once

#include <signal.h>
#include <sys/types.h>

#include <atomic>
#include <cstdint>
#include <system_error>
#include <vector>

namespace xtcp::internal {

// Signals that came, and a descriptor that is readable then. It is written by handlers.
struct SignalCount {
  std::atomic<std::uint32_t> count{0};
  int fd = -1;  // an eventfd
};

// The handlers of the signals that end a daemon: for as long as they are installed, each of these
// signals is counted. There is one set of them in a process, since handlers are the process's.
//
// Thread safety: none, but for what the handlers themselves do, on whatever thread.
class SignalHandlers {
 public:
  SignalHandlers() = default;
  ~SignalHandlers() { Remove(); }
  SignalHandlers(const SignalHandlers&) = delete;
  SignalHandlers& operator=(const SignalHandlers&) = delete;

  // Returns false while another set is claimed.
  bool Claim();

  // Installs handlers for those of `signals` that are not ignored, and unblocks them in this
  // thread. With an error nothing has changed. Throws std::bad_alloc.
  std::error_code Install(const std::vector<int>& signals, SignalCount& count);

  // Puts back what `Install` changed, on the thread that called it, and gives the claim up. No
  // handler uses the count any more then.
  void Remove();

 private:
  struct Handled {
    int signal;
    struct sigaction before;
  };

  static void Handle(int signal);
  void Note(int signal) const;
  std::error_code Find(const std::vector<int>& signals);
  std::error_code Replace();
  void PutBack();

  static std::atomic<bool> claimed_;
  static std::atomic<const SignalHandlers*> installed_;
  static std::atomic<int> running_;  // handlers, just now

  bool mine_ = false;  // claimed
  SignalCount* count_ = nullptr;
  pid_t process_ = 0;
  std::vector<Handled> handled_;
  std::size_t replaced_ = 0;  // of these, from the first one on
  bool unblocked_ = false;
  sigset_t mask_{};  // of this thread, before
};

}  // namespace xtcp::internal
