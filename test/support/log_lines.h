#pragma once

#include <xtcp/logger.h>

#include <cstddef>
#include <memory>
#include <mutex>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace xtcp::test {

// While one lives it is the process's logger, and keeps the lines of kError and kWarn.
//
// Thread safety: any thread.
class LogLines {
 public:
  LogLines() : keeper_(std::make_shared<Keeper>()) { SetLogger(keeper_); }
  ~LogLines() { SetLogger(nullptr); }
  LogLines(const LogLines&) = delete;
  LogLines& operator=(const LogLines&) = delete;

  // How many lines have `text` in them.
  std::size_t With(std::string_view text) const {
    std::lock_guard lock(keeper_->mutex);
    std::size_t count = 0;
    for (const std::string& line : keeper_->lines) count += line.find(text) != std::string::npos;
    return count;
  }

 private:
  struct Keeper : Logger {
    bool Enabled(LogLevel level) const override { return level <= LogLevel::kWarn; }
    void Log(LogLevel, std::string_view text, const char*, int) override {
      std::lock_guard lock(mutex);
      lines.emplace_back(text);
    }
    std::mutex mutex;
    std::vector<std::string> lines;
  };

  const std::shared_ptr<Keeper> keeper_;
};

}  // namespace xtcp::test
