#pragma once

#include <xtcp/export.h>

#include <memory>
#include <string_view>

namespace xtcp {

// How severe a line is, the most severe first. The library itself uses `kError` to `kDebug`; the
// first two are there so that an application can share its logger.
enum class LogLevel {
  kPanic,  // an application's own
  kFatal,  // an application's own
  kError,  // something has ended or is lost: a listener, a timer, an exception that user code threw
  kWarn,   // something is refused or waits, and the library goes on without it
  kInfo,   // what `ServeUntilSignal` does at a signal
  kDebug,  // the end of each connection, and why
};

// Receives the library's log lines.
//
// Thread safety: both methods are called from many threads at the same time.
// Lifetime: `SetLogger` shares it. The one that was replaced may still be inside `Log` when
// `SetLogger` returns, and is destroyed when the last such call has returned.
class XTCP_API Logger {
 public:
  virtual ~Logger();

  // Returns whether `Log` should be called for this level. It is called before the text is built,
  // so it must be cheap.
  virtual bool Enabled(LogLevel level) const = 0;

  // Takes one line without a line end: at most 512 bytes of printable text, in which bytes that
  // came from a peer or from user code are escaped. `file` and `line` name the place in the
  // library. No lock of the library is held: `Send`, the stops and `SetLogger` may be called. What
  // it throws is swallowed.
  virtual void Log(LogLevel level, std::string_view text, const char* file, int line) = 0;
};

// Replaces the process's logger. Null, the default, means no output at all: a log site then costs
// one relaxed load, and its text is not built. Any thread, even inside `Logger::Log`.
XTCP_API void SetLogger(std::shared_ptr<Logger> logger);

}  // namespace xtcp
