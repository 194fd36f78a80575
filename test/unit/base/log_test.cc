#include "base/log.h"

#include <array>
#include <atomic>
#include <catch2/catch.hpp>
#include <chrono>
#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <new>
#include <stdexcept>
#include <string>
#include <string_view>
#include <thread>
#include <vector>

#include "base/callback_scope.h"
#include "support/deadline.h"
#include "support/random.h"

namespace xtcp::internal {
namespace {

using namespace std::chrono_literals;
using std::chrono::nanoseconds;

struct Line {
  LogLevel level;
  std::string text;
  std::string file;
  int line;
};

// Records, after calling what the test wants to happen inside.
class Recorder : public Logger {
 public:
  std::function<bool(LogLevel)> on_enabled = [](LogLevel) { return true; };
  std::function<void()> on_log = [] {};
  std::function<void()> on_destroy = [] {};

  ~Recorder() override { on_destroy(); }

  bool Enabled(LogLevel level) const override { return on_enabled(level); }

  void Log(LogLevel level, std::string_view text, const char* file, int line) override {
    on_log();
    std::lock_guard lock(mutex_);
    lines_.push_back({level, std::string(text), file, line});
  }

  std::vector<Line> lines() const {
    std::lock_guard lock(mutex_);
    return lines_;
  }
  std::string last() const { return lines().empty() ? "nothing" : lines().back().text; }

 private:
  mutable std::mutex mutex_;
  std::vector<Line> lines_;
};

// A logger for one test; the next test starts without one.
struct Installed {
  Installed() { SetLogger(recorder); }
  ~Installed() { SetLogger(nullptr); }
  std::shared_ptr<Recorder> recorder = std::make_shared<Recorder>();
};

// How many bytes a line has for `c`: itself, or "\x" and two digits.
std::size_t Width(char c) { return c >= 0x20 && c < 0x7f ? 1 : 4; }

// `text` as it must arrive.
std::string Escaped(std::string_view text) {
  std::string out;
  for (const char c : text) {
    if (Width(c) == 1) {
      out += c;
    } else {
      std::array<char, 8> hex{};
      std::snprintf(hex.data(), hex.size(), "\\x%02x", static_cast<unsigned char>(c));
      out += hex.data();
    }
  }
  return out;
}

TEST_CASE("without a logger a log site does not evaluate its arguments", "[M40]") {
  SetLogger(nullptr);
  int evaluated = 0;
  XTCP_LOG(kError, "%d", ++evaluated);
  XTCP_LOG_LIMITED_AT((++evaluated, 0ns), kError, "%d", ++evaluated);
  CHECK(evaluated == 0);
}

TEST_CASE("a level that the logger does not want is neither built nor logged", "[M40]") {
  Installed installed;
  installed.recorder->on_enabled = [](LogLevel level) { return level <= LogLevel::kWarn; };
  int evaluated = 0;
  XTCP_LOG(kInfo, "%d", ++evaluated);
  XTCP_LOG_LIMITED_AT((++evaluated, 0ns), kDebug, "%d", ++evaluated);
  CHECK(evaluated == 0);
  XTCP_LOG(kWarn, "%d", ++evaluated);
  CHECK(evaluated == 1);
  REQUIRE(installed.recorder->lines().size() == 1);
}

TEST_CASE("a log line has its level, its text and its place", "[M40]") {
  Installed installed;
  const int line = __LINE__ + 1;
  XTCP_LOG(kWarn, "accept on %s: %d of %5.1f%%", "[::1]:80", 3, 12.34);
  XTCP_LOG(kDebug, "no arguments");
  const std::vector<Line> lines = installed.recorder->lines();
  REQUIRE(lines.size() == 2);
  CHECK(lines[0].level == LogLevel::kWarn);
  CHECK(lines[0].text == "accept on [::1]:80: 3 of  12.3%");
  CHECK(lines[0].file == __FILE__);
  CHECK(lines[0].line == line);
  CHECK(lines[1].level == LogLevel::kDebug);
  CHECK(lines[1].text == "no arguments");
  CHECK(lines[1].line == line + 1);
}

TEST_CASE("a line whose arguments throw is dropped", "[F4]") {
  Installed installed;
  const auto no_memory = []() -> const char* { throw std::bad_alloc(); };
  XTCP_LOG(kError, "%s", no_memory());
  XTCP_LOG_LIMITED_AT(0ns, kError, "%s", no_memory());
  CHECK(installed.recorder->lines().empty());
  XTCP_LOG(kError, "next");
  CHECK(installed.recorder->last() == "next");
}

TEST_CASE("a log site is one statement") {
  Installed installed;
  if (installed.recorder == nullptr)
    XTCP_LOG(kInfo, "then");
  else
    XTCP_LOG(kInfo, "else");
  CHECK(installed.recorder->last() == "else");
}

TEST_CASE("every byte that is not printable ASCII is escaped", "[M40]") {
  Installed installed;
  for (int value = 0; value < 256; ++value) {
    XTCP_LOG(kInfo, "<%c>", value);
    REQUIRE(installed.recorder->last() ==
            Escaped(std::string("<") + static_cast<char>(value) + ">"));
  }
  XTCP_LOG(kInfo, "%s", "a\n2026 ERROR forged\r\x1b[2J\x7f\xc3\xa9");
  CHECK(installed.recorder->last() == "a\\x0a2026 ERROR forged\\x0d\\x1b[2J\\x7f\\xc3\\xa9");
  // Also what stands in the format itself.
  XTCP_LOG(kInfo, "tab\there");
  CHECK(installed.recorder->last() == "tab\\x09here");
}

TEST_CASE("a log line has at most 512 bytes and is cut at a whole character", "[M40]") {
  Installed installed;
  xtcp::test::Random random(1);
  for (std::size_t size = 0; size < 1200; size += 1 + size / 600) {
    std::string text = random.Bytes(size);
    for (char& c : text) {
      if (c == '\0') c = '\n';
      if (!random.OneIn(1 + size % 7)) c = static_cast<char>('a' + (c & 7));
    }
    XTCP_LOG(kInfo, "%s", text.c_str());
    const std::string got = installed.recorder->last();
    const std::string whole = Escaped(text);
    if (whole.size() <= 512) {
      REQUIRE(got == whole);
      continue;
    }
    REQUIRE(got.size() <= 512);
    REQUIRE(got.size() >= 506);  // an escape, less one byte, and the next
    REQUIRE(got.ends_with("..."));
    // What stands before the dots is a whole number of characters of the text.
    const std::string kept = got.substr(0, got.size() - 3);
    REQUIRE(whole.starts_with(kept));
    std::size_t length = 0;
    for (const char* c = text.c_str(); length < kept.size(); ++c) length += Width(*c);
    REQUIRE(length == kept.size());
  }
}

TEST_CASE("a huge text is cut", "[M40]") {
  Installed installed;
  const std::string huge(100 << 10, 'x');
  XTCP_LOG(kInfo, "%s", huge.c_str());
  CHECK(installed.recorder->last() == std::string(509, 'x') + "...");
  const std::string exact(512, 'x');
  XTCP_LOG(kInfo, "%s", exact.c_str());
  CHECK(installed.recorder->last() == exact);
  XTCP_LOG(kInfo, "%s!", exact.c_str());
  CHECK(installed.recorder->last() == std::string(509, 'x') + "...");
  // An escape at the very end: whole, or not at all.
  for (std::size_t before = 500; before <= 512; ++before) {
    INFO(before);
    const std::string text(before, 'x');
    XTCP_LOG(kInfo, "%s\n", text.c_str());
    const std::string whole = text + "\\x0a";
    CHECK(installed.recorder->last() ==
          (whole.size() <= 512 ? whole : text.substr(0, 509) + "..."));
  }
}

TEST_CASE("what a logger throws is swallowed", "[M40]") {
  Installed installed;
  installed.recorder->on_log = [] { throw std::runtime_error("full"); };
  XTCP_LOG(kError, "one");
  installed.recorder->on_log = [] { throw 42; };
  XTCP_LOG(kError, "two");
  installed.recorder->on_log = [] {};
  installed.recorder->on_enabled = [](LogLevel) -> bool { throw std::runtime_error("no"); };
  XTCP_LOG(kError, "three");
  installed.recorder->on_enabled = [](LogLevel) { return true; };
  CHECK_FALSE(InsideCallback());
  XTCP_LOG(kError, "four");
  REQUIRE(installed.recorder->lines().size() == 1);
  CHECK(installed.recorder->last() == "four");
}

TEST_CASE("the logger runs inside a callback of the library", "[M26][M40]") {
  bool in_enabled = false;
  bool in_log = false;
  bool in_destructor = false;
  {
    Installed installed;
    installed.recorder->on_enabled = [&](LogLevel) { return in_enabled = InsideCallback(); };
    installed.recorder->on_log = [&] {
      in_log = InsideCallback();
      SetLogger(nullptr);
    };
    installed.recorder->on_destroy = [&] { in_destructor = InsideCallback(); };
    installed.recorder.reset();
    XTCP_LOG(kInfo, "the line holds the last reference");
    CHECK(in_destructor);
  }
  CHECK(in_enabled);
  CHECK(in_log);
  CHECK_FALSE(InsideCallback());
}

TEST_CASE("a logger may replace itself, and lives until its last Log has returned", "[M40]") {
  bool destroyed = false;
  bool alive_after = false;
  const auto next = std::make_shared<Recorder>();
  {
    const auto first = std::make_shared<Recorder>();
    first->on_destroy = [&] { destroyed = true; };
    first->on_log = [&] {
      SetLogger(next);
      alive_after = !destroyed;
    };
    SetLogger(first);
  }
  XTCP_LOG(kInfo, "to the first");
  CHECK(alive_after);
  CHECK(destroyed);
  CHECK(next->lines().empty());
  XTCP_LOG(kInfo, "to the next");
  CHECK(next->last() == "to the next");
  SetLogger(nullptr);
}

TEST_CASE("SetLogger does not wait for a logger that is busy", "[M40]") {
  xtcp::test::Signal entered;
  xtcp::test::Signal leave;
  std::atomic<bool> destroyed{false};
  {
    const auto busy = std::make_shared<Recorder>();
    busy->on_destroy = [&] { destroyed = true; };
    busy->on_log = [&] {
      entered.Set();
      leave.Wait();
    };
    SetLogger(busy);
  }
  std::thread thread([] { XTCP_LOG(kInfo, "slow"); });
  REQUIRE(entered.Wait());
  SetLogger(nullptr);
  CHECK_FALSE(destroyed);
  leave.Set();
  thread.join();
  CHECK(destroyed);
}

TEST_CASE("a logger whose doings are logged does not recurse", "[M40]") {
  Installed installed;
  installed.recorder->on_log = [] { XTCP_LOG(kInfo, "inner"); };
  XTCP_LOG(kInfo, "outer");
  XTCP_LOG(kInfo, "again");
  const std::vector<Line> lines = installed.recorder->lines();
  REQUIRE(lines.size() == 2);
  CHECK(lines[0].text == "outer");
  CHECK(lines[1].text == "again");
}

// Says when it is used after its end.
class Canary : public Logger {
 public:
  Canary(std::atomic<int>* dead_calls, std::atomic<int>* alive)
      : dead_calls_(dead_calls), alive_(alive) {
    ++*alive_;
  }
  ~Canary() override {
    dead_ = true;
    --*alive_;
  }
  bool Enabled(LogLevel) const override { return Note(), true; }
  void Log(LogLevel, std::string_view text, const char*, int) override {
    Note();
    if (text != "line 7") ++*dead_calls_;
  }

 private:
  void Note() const {
    if (dead_) ++*dead_calls_;
  }

  std::atomic<int>* dead_calls_;
  std::atomic<int>* alive_;
  std::atomic<bool> dead_{false};
};

TEST_CASE("loggers come and go while threads log", "[M40]") {
  std::atomic<int> dead_calls{0};
  std::atomic<int> alive{0};
  std::atomic<bool> done{false};
  std::vector<std::thread> threads;
  for (int i = 0; i < 4; ++i) {
    threads.emplace_back([&] {
      while (!done) XTCP_LOG(kInfo, "line %d", 7);
    });
  }
  for (int i = 0; i < 2000; ++i) {
    SetLogger(std::make_shared<Canary>(&dead_calls, &alive));
    if (i % 3 == 0) SetLogger(nullptr);
  }
  SetLogger(nullptr);
  done = true;
  for (std::thread& thread : threads) thread.join();
  CHECK(dead_calls == 0);
  CHECK(alive == 0);
}

TEST_CASE("several threads may set the logger", "[M40]") {
  std::atomic<int> dead_calls{0};
  std::atomic<int> alive{0};
  std::vector<std::thread> threads;
  for (int i = 0; i < 4; ++i) {
    threads.emplace_back([&] {
      for (int n = 0; n < 500; ++n) {
        SetLogger(std::make_shared<Canary>(&dead_calls, &alive));
        XTCP_LOG(kInfo, "line %d", 7);
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  CHECK(alive == 1);
  SetLogger(nullptr);
  CHECK(alive == 0);
  CHECK(dead_calls == 0);
}

TEST_CASE("the limiter lets at most 10 lines through in any second", "[R10]") {
  xtcp::test::Random random(2);
  for (const std::size_t step_ms : {0, 1, 50, 90, 110, 150, 400, 2000}) {
    LogLimiter limiter;
    std::deque<nanoseconds> passed;
    std::uint64_t total_passed = 0;
    std::uint64_t told = 0;
    nanoseconds now = 5s;
    constexpr std::uint64_t kCalls = 3000;
    for (std::uint64_t i = 0; i < kCalls; ++i) {
      now += std::chrono::milliseconds(random.Between(0, 2 * step_ms));
      std::uint64_t suppressed = 0;
      if (!limiter.Pass(now, &suppressed)) {
        REQUIRE(suppressed == 0);
        continue;
      }
      ++total_passed;
      told += suppressed;
      passed.push_back(now);
      while (now - passed.front() >= 1s) passed.pop_front();
      REQUIRE(passed.size() <= 10);
    }
    // Nothing is lost: every call passed, was told of, or will be.
    std::uint64_t rest = 0;
    REQUIRE(limiter.Pass(now + 10s, &rest));
    CHECK(total_passed + told + rest == kCalls);
  }
}

TEST_CASE("the limiter lets single lines and short bursts through", "[R10]") {
  LogLimiter slow;
  std::uint64_t suppressed = 0;
  for (int i = 0; i < 100; ++i) REQUIRE(slow.Pass(i * 200ms, &suppressed));

  LogLimiter burst;
  for (int i = 0; i < 5; ++i) REQUIRE(burst.Pass(0ns, &suppressed));
  CHECK_FALSE(burst.Pass(0ns, &suppressed));
  CHECK_FALSE(burst.Pass(199ms, &suppressed));
  CHECK(suppressed == 0);
  CHECK(burst.Pass(200ms, &suppressed));
  CHECK(suppressed == 2);
  // After a second of silence it takes a whole burst again, and no more than that.
  for (int i = 0; i < 5; ++i) REQUIRE(burst.Pass(1h, &suppressed));
  CHECK_FALSE(burst.Pass(1h, &suppressed));
}

TEST_CASE("threads share a limiter's allowance", "[R10]") {
  LogLimiter limiter;
  std::atomic<std::uint64_t> passed{0};
  std::atomic<std::uint64_t> told{0};
  std::vector<std::thread> threads;
  for (int i = 0; i < 4; ++i) {
    threads.emplace_back([&] {
      for (int n = 0; n < 1000; ++n) {
        std::uint64_t suppressed = 0;
        if (limiter.Pass(1s, &suppressed)) {
          ++passed;
          told += suppressed;
        }
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  CHECK(passed == 5);
  std::uint64_t rest = 0;
  REQUIRE(limiter.Pass(10s, &rest));
  CHECK(passed + told + rest == 4000);
}

TEST_CASE("a limited site says how many lines it suppressed", "[R10][M40]") {
  Installed installed;
  const auto log = [](nanoseconds now, const char* text) {
    XTCP_LOG_LIMITED_AT(now, kWarn, "bad peer: %s", text);
  };
  for (int i = 0; i < 100; ++i) log(0ns, "first");
  CHECK(installed.recorder->lines().size() == 5);
  CHECK(installed.recorder->last() == "bad peer: first");
  log(10s, "second");
  CHECK(installed.recorder->last() == "bad peer: second (95 more suppressed)");
  log(10s, "third");
  CHECK(installed.recorder->last() == "bad peer: third");

  // Another site has its own allowance.
  XTCP_LOG_LIMITED_AT(10s, kWarn, "elsewhere");
  CHECK(installed.recorder->last() == "elsewhere");

  // The count stands at the end of a line that had to be cut.
  for (int i = 0; i < 100; ++i) log(10s, "fill up");
  const std::string huge(4000, 'x');
  log(20s, huge.c_str());
  const std::string last = installed.recorder->last();
  CHECK(last.size() == 512);
  CHECK(last.ends_with("x... (97 more suppressed)"));
}

TEST_CASE("each logger begins with a fresh account of a limited site", "[R10]") {
  const auto log = [] { XTCP_LOG_LIMITED_AT(0ns, kWarn, "text"); };
  for (int round = 0; round < 2; ++round) {
    Installed installed;
    for (int i = 0; i < 100; ++i) log();
    const std::vector<Line> lines = installed.recorder->lines();
    CHECK(lines.size() == 5);
    for (const Line& line : lines) CHECK(line.text == "text");
  }
}

TEST_CASE("an unwanted level spends nothing of a limited site's allowance", "[R10]") {
  Installed installed;
  bool wanted = false;
  installed.recorder->on_enabled = [&](LogLevel) { return wanted; };
  const auto log = [] { XTCP_LOG_LIMITED_AT(0ns, kDebug, "text"); };
  for (int i = 0; i < 100; ++i) log();
  wanted = true;
  log();
  CHECK(installed.recorder->last() == "text");
}

}  // namespace
}  // namespace xtcp::internal
