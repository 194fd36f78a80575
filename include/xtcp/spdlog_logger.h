#pragma once

// Sends the library's log lines to spdlog. It is a header only: the library itself does not link
// spdlog; a program that includes this does.

#include <spdlog/spdlog.h>
#include <xtcp/logger.h>

#include <memory>
#include <string_view>
#include <utility>

namespace xtcp {

// A logger that hands its lines on to spdlog.
//
// Thread safety: that of the spdlog logger's sinks; use the `_mt` ones.
class SpdlogLogger : public Logger {
 public:
  // `logger` must not be null.
  explicit SpdlogLogger(std::shared_ptr<spdlog::logger> logger) : logger_(std::move(logger)) {}

  bool Enabled(LogLevel level) const override { return logger_->should_log(LevelOf(level)); }

  void Log(LogLevel level, std::string_view text, const char* file, int line) override {
    // The text is an argument, never the format: it may hold braces.
    logger_->log(spdlog::source_loc{file, line, ""}, LevelOf(level), "{}", text);
  }

 private:
  static spdlog::level::level_enum LevelOf(LogLevel level) {
    switch (level) {
      case LogLevel::kPanic:
      case LogLevel::kFatal:
        return spdlog::level::critical;
      case LogLevel::kError:
        return spdlog::level::err;
      case LogLevel::kWarn:
        return spdlog::level::warn;
      case LogLevel::kInfo:
        return spdlog::level::info;
      case LogLevel::kDebug:
        return spdlog::level::debug;
    }
    return spdlog::level::info;
  }

  std::shared_ptr<spdlog::logger> logger_;
};

}  // namespace xtcp
