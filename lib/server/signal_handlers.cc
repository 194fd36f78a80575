#include "server/signal_handlers.h"

#include <cerrno>
#include <utility>

#include "sys/syscalls.h"

namespace xtcp::internal {

// A handler may use atomics without a lock, and nothing else would do (signal-safety(7)).
static_assert(std::atomic<const SignalHandlers*>::is_always_lock_free &&
              std::atomic<int>::is_always_lock_free &&
              std::atomic<std::uint32_t>::is_always_lock_free);

constinit std::atomic<bool> SignalHandlers::claimed_{false};
constinit std::atomic<const SignalHandlers*> SignalHandlers::installed_{nullptr};
constinit std::atomic<int> SignalHandlers::running_{0};

// ---- In a handler: only what signal-safety(7) allows.

void SignalHandlers::Handle(int signal) {
  const int error = errno;
  running_.fetch_add(1);
  if (const SignalHandlers* const handlers = installed_.load()) handlers->Note(signal);
  running_.fetch_sub(1);
  errno = error;
}

void SignalHandlers::Note(int signal) const {
  const pid_t process = sys::GetPid();
  if (process != process_) {
    // A child that was forked meanwhile has the handler and the descriptor, too, and its signals
    // are not for its parent. It gets them again, as if we were not here, when this handler has
    // returned: until then the signal is blocked.
    for (const Handled& handled : handled_) {
      if (handled.signal == signal) sys::SigAction(signal, &handled.before, nullptr);
    }
    sys::Kill(process, signal);
    return;
  }
  count_->count.fetch_add(1);
  // It can only fail because the counter is at its end (eventfd(2)), where it is readable anyway.
  const std::uint64_t one = 1;
  sys::WriteInHandler(count_->fd, &one, sizeof one);
}

// ---- Outside.

bool SignalHandlers::Claim() {
  mine_ = !claimed_.exchange(true);
  return mine_;
}

std::error_code SignalHandlers::Install(const std::vector<int>& signals, SignalCount& count) {
  count_ = &count;
  process_ = sys::GetPid();
  std::error_code error = Find(signals);
  if (!error) error = Replace();
  if (error) PutBack();
  return error;
}

// All that is here has to be known before the first handler runs, and before any is replaced: a
// signal may be named twice.
std::error_code SignalHandlers::Find(const std::vector<int>& signals) {
  handled_.reserve(signals.size());
  for (const int signal : signals) {
    Handled handled{signal, {}};
    if (sys::SigAction(signal, nullptr, &handled.before) != 0) {
      return {errno, std::system_category()};
    }
    const bool ignored =
        (handled.before.sa_flags & SA_SIGINFO) == 0 && handled.before.sa_handler == SIG_IGN;
    if (!ignored) handled_.push_back(handled);
  }
  return {};
}

std::error_code SignalHandlers::Replace() {
  installed_.store(this);
  sigset_t all;
  sigemptyset(&all);
  for (const Handled& handled : handled_) {
    struct sigaction action {};
    action.sa_handler = &SignalHandlers::Handle;
    sigemptyset(&action.sa_mask);
    // On the thread's alternate stack, if it has one: the stack of a coroutine may be small.
    action.sa_flags = SA_RESTART | SA_ONSTACK;
    if (sys::SigAction(handled.signal, &action, nullptr) != 0) {
      return {errno, std::system_category()};
    }
    ++replaced_;
    sigaddset(&all, handled.signal);
  }
  // What was pending comes now.
  if (const int error = sys::SigMask(SIG_UNBLOCK, &all, &mask_)) {
    return {error, std::system_category()};
  }
  unblocked_ = true;
  return {};
}

void SignalHandlers::PutBack() {
  // The mask first: between the two a signal must not find neither our handler nor the mask that
  // kept it away.
  if (std::exchange(unblocked_, false)) sys::SigMask(SIG_SETMASK, &mask_, nullptr);
  for (; replaced_ > 0; --replaced_) {
    const Handled& handled = handled_[replaced_ - 1];
    sys::SigAction(handled.signal, &handled.before, nullptr);
  }
  installed_.store(nullptr);
  // One that has begun on another thread may still look at us.
  while (running_.load() != 0) sys::Yield();
}

void SignalHandlers::Remove() {
  if (!std::exchange(mine_, false)) return;
  PutBack();
  claimed_.store(false);
}

}  // namespace xtcp::internal
