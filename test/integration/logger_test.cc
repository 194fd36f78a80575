#include <fcntl.h>
#include <unistd.h>

#include <atomic>
#include <catch2/catch.hpp>
#include <cctype>
#include <chrono>
#include <cstdio>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <stdexcept>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "support/deadline.h"
#include "support/event_recorder.h"
#include "support/raw_peer.h"
#include "support/test_client.h"
#include "support/test_protocol.h"
#include "support/test_server.h"

namespace xtcp::test {
namespace {

std::shared_ptr<EventRecorder> NewRecorder() { return std::make_shared<EventRecorder>(); }

struct Line {
  LogLevel level;
  std::string text;
  std::string file;
  int line;
};

// Keeps every line, and lets a test act inside `Log`.
class RecordingLogger : public Logger {
 public:
  explicit RecordingLogger(LogLevel level = LogLevel::kDebug) : level_(level) {}

  std::function<void()> on_log;

  bool Enabled(LogLevel level) const override { return level <= level_; }

  void Log(LogLevel level, std::string_view text, const char* file, int line) override {
    {
      std::lock_guard lock(mutex_);
      lines_.push_back({level, std::string(text), file == nullptr ? "" : file, line});
    }
    if (on_log) on_log();
  }

  std::vector<Line> lines() const {
    std::lock_guard lock(mutex_);
    return lines_;
  }

 private:
  const LogLevel level_;
  mutable std::mutex mutex_;
  std::vector<Line> lines_;
};

// The logger is the process's: no test may leave one behind.
class ScopedLogger {
 public:
  explicit ScopedLogger(std::shared_ptr<Logger> logger) { SetLogger(std::move(logger)); }
  ~ScopedLogger() { SetLogger(nullptr); }
};

// A connection for everything that the library may want to say something about.
void MakeNoise(TestServer& server, const std::string& name) {
  for (const std::string& bytes :
       {MarkedFrame(Marker::kBad, name), MarkedFrame(Marker::kNoResync, name),
        MarkedFrame(Marker::kPacketOfNothing, name), MarkedFrame(Marker::kThrow, name),
        Frame("throw")}) {
    RawPeer peer(server.port());
    peer.SendAll(bytes);
    peer.HalfClose();
    peer.ReadAll();
  }
  RawPeer peer(server.port());
  peer.SendAll(Header(100));
  peer.Reset();
}
constexpr std::size_t kNoisyConnections = 6;

std::shared_ptr<EventRecorder> NoisyRecorder(std::string text = "the handler throws") {
  auto events = NewRecorder();
  events->on_recv = [text = std::move(text)](const ConnPtr&, std::string_view payload) {
    if (payload == "throw") throw std::runtime_error(text);
  };
  return events;
}

// Sends a standard stream into a pipe while it lives.
class Capture {
 public:
  explicit Capture(int stream) : stream_(stream) {
    std::fflush(nullptr);
    int ends[2];
    if (::pipe2(ends, O_CLOEXEC | O_NONBLOCK) != 0) throw std::runtime_error("pipe2");
    read_end_ = ends[0];
    saved_ = ::fcntl(stream_, F_DUPFD_CLOEXEC, 3);
    ::dup2(ends[1], stream_);
    ::close(ends[1]);
  }
  ~Capture() { static_cast<void>(Restore()); }

  // Puts the stream back and gives what was written to it.
  std::string Restore() {
    if (saved_ < 0) return {};
    std::fflush(nullptr);
    ::dup2(saved_, stream_);
    ::close(std::exchange(saved_, -1));
    std::string text(64 << 10, '\0');
    const ssize_t size = ::read(read_end_, text.data(), text.size());
    ::close(read_end_);
    text.resize(size > 0 ? static_cast<std::size_t>(size) : 0);
    return text;
  }

 private:
  int stream_;
  int saved_ = -1;
  int read_end_ = -1;
};

TEST_CASE("without a logger the library writes nothing anywhere", "[M30][M40]") {
  auto events = NoisyRecorder();
  Capture out(STDOUT_FILENO), err(STDERR_FILENO);
  std::string problems;
  {
    TestServer server(events);
    MakeNoise(server, "bad");
    events->WaitForClosed(kNoisyConnections);
    problems = server.Finish();
  }
  const std::string on_err = err.Restore(), on_out = out.Restore();
  REQUIRE(on_out == "");
  REQUIRE(on_err == "");
  REQUIRE(problems == "");
}

TEST_CASE("a logger that is enabled hears of what went wrong, and where", "[M38][M40]") {
  const auto logger = std::make_shared<RecordingLogger>();
  const ScopedLogger scoped(logger);
  auto events = NoisyRecorder();
  {
    TestServer server(events);
    MakeNoise(server, "bad");
    REQUIRE(events->WaitForClosed(kNoisyConnections));
    REQUIRE(server.Finish() == "");
  }
  const std::vector<Line> lines = logger->lines();
  bool exception_found = false;
  for (const Line& line : lines) {
    REQUIRE(line.level >= LogLevel::kError);
    REQUIRE(line.level <= LogLevel::kDebug);
    REQUIRE_FALSE(line.file.empty());
    REQUIRE(line.line > 0);
    REQUIRE_FALSE(line.text.empty());
    if (line.text.find("the handler throws") != std::string::npos) exception_found = true;
  }
  REQUIRE(exception_found);
}

TEST_CASE("a level that is not enabled is not logged", "[M40]") {
  const auto logger = std::make_shared<RecordingLogger>(LogLevel::kFatal);
  const ScopedLogger scoped(logger);
  auto events = NoisyRecorder();
  {
    TestServer server(events);
    MakeNoise(server, "bad");
    REQUIRE(events->WaitForClosed(kNoisyConnections));
    REQUIRE(server.Finish() == "");
  }
  // The library itself uses kError to kDebug.
  REQUIRE(logger->lines().empty());
}

TEST_CASE("lines are bounded and printable, whatever peers and user code put into them",
          "[M40][R10]") {
  const auto logger = std::make_shared<RecordingLogger>();
  const ScopedLogger scoped(logger);
  std::string nasty = "nasty\n\r\t\x1b[31m\x7f\xff{}%s";
  nasty += std::string(100'000, '\x01');
  auto events = NoisyRecorder(nasty);
  {
    TestServer server(events);
    MakeNoise(server, nasty);
    REQUIRE(events->WaitForClosed(kNoisyConnections));
    REQUIRE(server.Finish() == "");
  }
  REQUIRE_FALSE(logger->lines().empty());
  for (const Line& line : logger->lines()) {
    REQUIRE(line.text.size() <= 512);
    for (const char c : line.text) {
      const bool printable = std::isprint(static_cast<unsigned char>(c)) != 0;
      REQUIRE(printable);
    }
  }
}

TEST_CASE("a logger may send, stop and replace itself", "[M27][M40]") {
  auto logger = std::make_shared<RecordingLogger>();
  auto events = NoisyRecorder();
  std::mutex mutex;
  ConnPtr conn;
  std::atomic<Server*> server_pointer{nullptr};
  std::atomic<int> calls{0};
  Signal called;
  logger->on_log = [&] {
    if (++calls > 20) return;
    ConnPtr target;
    {
      std::lock_guard lock(mutex);
      target = conn;
    }
    if (target == nullptr) return;
    static_cast<void>(target->Send(Frame("from the logger")));
    static_cast<void>(target->Stats());
    static_cast<void>(target->ToString());
    SetLogger(nullptr);
    SetLogger(logger);
    target->Stop(StopMode::kGracefullyButNotWait);
    if (Server* server = server_pointer) server->Stop(StopMode::kGracefullyButNotWait);
    called.Set();
  };
  const ScopedLogger scoped(logger);
  TestServer server(events);
  RawPeer peer(server.port());
  REQUIRE(events->WaitForAccepted(1));
  {
    std::lock_guard lock(mutex);
    conn = events->conn();
  }
  server_pointer = server.operator->();
  RawPeer bad(server.port());
  bad.SendAll(Frame("throw"));
  REQUIRE(called.Wait());
  std::string received;
  REQUIRE(peer.ReadAll(&received) == End::kEof);
  REQUIRE(PayloadsIn(received).at(0) == "from the logger");
  peer.Close();
  bad.Close();
  {
    std::lock_guard lock(mutex);
    conn.reset();
  }
  REQUIRE(server.WaitForEnd());
  REQUIRE(server.Finish() == "");
}

TEST_CASE("the logger may be replaced at any time while loops log", "[M40]") {
  Options options;
  options.loops = 3;
  auto events = NoisyRecorder();
  events->keep_payloads = false;
  std::weak_ptr<Logger> old;
  {
    TestServer server(events, options);
    std::atomic<bool> done{false};
    std::thread changer([&] {
      const auto a = std::make_shared<RecordingLogger>(), b = std::make_shared<RecordingLogger>();
      old = a;
      while (!done) {
        SetLogger(a);
        SetLogger(nullptr);
        SetLogger(b);
        std::this_thread::yield();
      }
      SetLogger(nullptr);
    });
    for (int round = 0; round < 40; ++round) MakeNoise(server, "bad");
    done = true;
    changer.join();
    REQUIRE(events->WaitForClosed(40 * kNoisyConnections));
    REQUIRE(server.Finish() == "");
  }
  // The library lets go of a logger that was replaced.
  REQUIRE(WaitUntil([&] { return old.expired(); }));
}

TEST_CASE("peers cause at most ten lines a second of each kind", "[R10]") {
  const auto logger = std::make_shared<RecordingLogger>();
  const ScopedLogger scoped(logger);
  auto events = NoisyRecorder();
  const auto start = std::chrono::steady_clock::now();
  {
    TestServer server(events);
    for (int round = 0; round < 60; ++round) MakeNoise(server, "bad");
    REQUIRE(events->WaitForClosed(60 * kNoisyConnections));
    REQUIRE(server.Finish() == "");
  }
  const auto elapsed = std::chrono::steady_clock::now() - start;
  const auto seconds = std::chrono::ceil<std::chrono::seconds>(elapsed).count();
  std::map<std::pair<std::string, int>, long> kinds;
  for (const Line& line : logger->lines()) ++kinds[{line.file, line.line}];
  for (const auto& [place, count] : kinds) {
    CAPTURE(place.first, place.second);
    REQUIRE(count <= 10 * (seconds + 1));
  }
}

}  // namespace
}  // namespace xtcp::test
