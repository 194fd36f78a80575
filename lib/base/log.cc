#include "base/log.h"

#include <algorithm>
#include <array>
#include <cinttypes>
#include <cstdarg>
#include <cstddef>
#include <cstdio>
#include <exception>
#include <new>
#include <string_view>
#include <utility>

#include "base/callback_scope.h"
#include "base/mutex.h"
#include "base/thread_end.h"

namespace xtcp {
namespace internal {

constinit std::atomic<bool> logger_is_set{false};

// How often the logger was replaced. Each logger begins with a fresh account of its lines. Relaxed,
// as above.
static constinit std::atomic<std::uint32_t> logger_generation{0};

namespace {

struct Current {
  Mutex mu;
  std::shared_ptr<Logger> logger XTCP_GUARDED_BY(mu);
};

// It is made on first use and never destroyed: the library has neither global constructors nor
// destructors, and threads that outlive main may still log.
Current& GetCurrent() noexcept {
  alignas(Current) static std::array<std::byte, sizeof(Current)> storage;
  static Current* const current = new (storage.data()) Current;
  return *current;
}

constinit thread_local bool inside_logger = false;

// Calls the application's logger.
template <typename Function>
void CallLogger(const Function& function) noexcept {
  const CallbackScope scope;
  const CancellationOff off;  // a logger writes, and nothing here may be unwound
  inside_logger = true;
  try {
    function();
  } catch (...) {
    // There is nobody left to tell.
  }
  inside_logger = false;
}

constexpr std::string_view kCut = "...";

// Copies `text` into `out` with everything but printable ASCII escaped, and returns how much of
// `out` it fills. What does not fit is cut off at a whole character and marked with `kCut`. `cut`
// says that something is missing already.
std::size_t Escape(std::string_view text, bool cut, char* out, std::size_t capacity) noexcept {
  constexpr char kDigits[] = "0123456789abcdef";
  std::size_t size = 0;
  std::size_t fallback = 0;  // the most that leaves room for `kCut`
  for (const char c : text) {
    if (size + kCut.size() <= capacity) fallback = size;
    const auto byte = static_cast<unsigned char>(c);
    const bool plain = byte >= 0x20 && byte < 0x7f;
    const std::size_t width = plain ? 1 : 4;
    if (size + width > capacity) {
      cut = true;
      break;
    }
    if (plain) {
      out[size] = c;
    } else {
      out[size] = '\\';
      out[size + 1] = 'x';
      out[size + 2] = kDigits[byte >> 4];
      out[size + 3] = kDigits[byte & 0xf];
    }
    size += width;
  }
  if (!cut) return size;
  if (size + kCut.size() > capacity) size = fallback;
  kCut.copy(out + size, kCut.size());
  return size + kCut.size();
}

}  // namespace

bool LogLimiter::Pass(std::chrono::nanoseconds now, std::uint64_t* suppressed) noexcept {
  // The generic cell rate algorithm (ITU-T I.371): each line moves `due_` on by one interval, and
  // `due_` may be ahead of the clock by all but one of a burst. 5 at once and one more each 200 ms
  // are at most 10 in any second, wherever it begins; a counter per second would let 20 pass around
  // the change of seconds.
  constexpr std::int64_t kInterval = 200'000'000;
  constexpr std::int64_t kBurst = 5;
  const std::int64_t clock = now.count();
  const std::uint32_t generation = logger_generation.load(std::memory_order_relaxed);
  if (generation_.exchange(generation, std::memory_order_relaxed) != generation) {
    due_.store(0, std::memory_order_relaxed);
    suppressed_.store(0, std::memory_order_relaxed);
  }
  std::int64_t due = due_.load(std::memory_order_relaxed);
  do {
    if (due - clock > (kBurst - 1) * kInterval) {
      suppressed_.fetch_add(1, std::memory_order_relaxed);
      return false;
    }
  } while (!due_.compare_exchange_weak(due, std::max(due, clock) + kInterval,
                                       std::memory_order_relaxed));
  *suppressed = suppressed_.exchange(0, std::memory_order_relaxed);
  return true;
}

LogEntry::LogEntry(LogLevel level) noexcept : level_(level) {
  if (inside_logger) return;
  {
    Current& current = GetCurrent();
    MutexLock lock(current.mu);
    logger_ = current.logger;
  }
  if (logger_ == nullptr) return;
  bool enabled = false;
  CallLogger([&] { enabled = logger_->Enabled(level_); });
  if (!enabled) CallLogger([&] { logger_.reset(); });
}

LogEntry::~LogEntry() {
  // This may be the last reference to a logger that was replaced, and its destructor is the
  // application's.
  if (logger_ != nullptr) CallLogger([&] { logger_.reset(); });
}

void LogEntry::Write(const char* file, int line, const char* format, ...) noexcept {
  std::array<char, kMaxSize + 1> raw;
  std::va_list arguments;
  va_start(arguments, format);
  const int wanted_size = std::vsnprintf(raw.data(), raw.size(), format, arguments);
  va_end(arguments);

  std::array<char, 64> suffix{};
  int suffix_size = 0;
  if (suppressed_ != 0) {
    suffix_size =
        std::snprintf(suffix.data(), suffix.size(), " (%" PRIu64 " more suppressed)", suppressed_);
  }

  // For a text that it cannot format vsnprintf(3) returns a negative number; then nothing is left.
  const auto full_size = static_cast<std::size_t>(std::max(wanted_size, 0));
  const std::string_view text(raw.data(), std::min(full_size, kMaxSize));
  const bool cut = wanted_size < 0 || full_size > kMaxSize;
  const std::string_view tail(suffix.data(), static_cast<std::size_t>(suffix_size));

  std::array<char, kMaxSize> out;
  std::size_t size = Escape(text, cut, out.data(), out.size() - tail.size());
  size += tail.copy(out.data() + size, tail.size());
  CallLogger([&] { logger_->Log(level_, {out.data(), size}, file, line); });
}

void LogUserException(const char* whose) noexcept {
  try {
    throw;
  } catch (const std::exception& exception) {
    XTCP_LOG_LIMITED(kError, "%s: an exception left user code: %s", whose, exception.what());
  } catch (...) {
    XTCP_LOG_LIMITED(kError, "%s: an exception left user code", whose);
  }
}

}  // namespace internal

Logger::~Logger() = default;

void SetLogger(std::shared_ptr<Logger> logger) {
  internal::Current& current = internal::GetCurrent();
  internal::MutexLock lock(current.mu);
  internal::logger_generation.fetch_add(1, std::memory_order_relaxed);
  internal::logger_is_set.store(logger != nullptr, std::memory_order_relaxed);
  current.logger.swap(logger);
  // The old logger is destroyed with the parameter, after the lock was released.
}

}  // namespace xtcp
