#pragma once

#include <xtcp/logger.h>

#include <atomic>
#include <chrono>
#include <cstdint>
#include <memory>

#include "sys/syscalls.h"

namespace xtcp::internal {

// Tells whether there is a logger. It is only a hint that spares silent sites the lock, so relaxed
// is enough: a site that sees it late writes one line less, or finds no logger.
extern std::atomic<bool> logger_is_set;

// Lets at most 10 lines through in any second (R10), and counts the others. Any thread; it takes no
// lock.
class LogLimiter {
 public:
  constexpr LogLimiter() = default;

  // Returns whether a line may be written at `now`. If so, `*suppressed` is how many lines were
  // suppressed since the last one.
  bool Pass(std::chrono::nanoseconds now, std::uint64_t* suppressed) noexcept;

 private:
  // All of them are relaxed: they order nothing else.
  std::atomic<std::uint32_t> generation_{0};  // of the logger whose lines are counted
  std::atomic<std::int64_t> due_{0};          // when the allowance is whole again
  std::atomic<std::uint64_t> suppressed_{0};
};

// One line on its way to the logger, which it keeps alive. The application's code is called with no
// lock held and within a CallbackScope; what it throws is swallowed. A line that the library logs
// because of what a logger does inside `Log` is dropped: it would recurse without end.
class LogEntry {
 public:
  static constexpr std::size_t kMaxSize = 512;

  explicit LogEntry(LogLevel level) noexcept;
  ~LogEntry();
  LogEntry(const LogEntry&) = delete;
  LogEntry& operator=(const LogEntry&) = delete;

  // Returns whether there is a logger that wants this level.
  bool wanted() const noexcept { return logger_ != nullptr; }

  // Returns whether the limit of its site lets the line pass.
  bool Pass(LogLimiter& limiter, std::chrono::nanoseconds now) noexcept {
    return limiter.Pass(now, &suppressed_);
  }

  // Formats and escapes the text, and hands it to the logger. Call it only when `wanted`.
  void Write(const char* file, int line, const char* format, ...) noexcept
      __attribute__((format(printf, 4, 5)));

 private:
  const LogLevel level_;
  std::uint64_t suppressed_ = 0;
  std::shared_ptr<Logger> logger_;
};

// Inside a catch block: logs what has left user code, at most 10 lines in any second.
void LogUserException(const char* whose) noexcept;

}  // namespace xtcp::internal

// The arguments may allocate; a line for which there is no memory is dropped.
#define XTCP_WRITE_LOG(entry, ...)                  \
  try {                                             \
    (entry).Write(__FILE__, __LINE__, __VA_ARGS__); \
  } catch (...) {                                   \
  }

// XTCP_LOG(kWarn, "printf-style %s", …) writes one line of at most 512 bytes. Every byte that is
// not printable ASCII becomes \xNN, so that nobody can forge a second line. Without a logger it
// costs one relaxed load. The arguments are evaluated only if there is a logger that wants the
// level. Call it with no lock held.
#define XTCP_LOG(level, ...)                                                    \
  do {                                                                          \
    if (::xtcp::internal::logger_is_set.load(std::memory_order_relaxed)) {      \
      ::xtcp::internal::LogEntry xtcp_log_entry(::xtcp::LogLevel::level);       \
      if (xtcp_log_entry.wanted()) XTCP_WRITE_LOG(xtcp_log_entry, __VA_ARGS__); \
    }                                                                           \
  } while (false)

// The same for what a peer can cause: this site writes at most 10 lines in any second, and the next
// line says how many were suppressed. `now` is a time of the monotonic clock.
#define XTCP_LOG_LIMITED_AT(now, level, ...)                                       \
  do {                                                                             \
    if (::xtcp::internal::logger_is_set.load(std::memory_order_relaxed)) {         \
      static constinit ::xtcp::internal::LogLimiter xtcp_log_limiter;              \
      ::xtcp::internal::LogEntry xtcp_log_entry(::xtcp::LogLevel::level);          \
      if (xtcp_log_entry.wanted() && xtcp_log_entry.Pass(xtcp_log_limiter, (now))) \
        XTCP_WRITE_LOG(xtcp_log_entry, __VA_ARGS__);                               \
    }                                                                              \
  } while (false)
#define XTCP_LOG_LIMITED(...) XTCP_LOG_LIMITED_AT(::xtcp::sys::Now(), __VA_ARGS__)
