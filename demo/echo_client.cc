// Sends lines to an echo server and prints the answers: its arguments, or else what comes on
// standard input. When every line is answered it stops gracefully. Exits 0 if that happened,
// else 1.
//
//   echo_client 127.0.0.1:7000 hello world
//   echo_client 127.0.0.1:7000 <some_file

#include <xtcp/xtcp.h>

#include <algorithm>
#include <condition_variable>
#include <cstdint>
#include <cstdlib>
#include <iostream>
#include <memory>
#include <mutex>
#include <string>
#include <string_view>
#include <system_error>
#include <thread>
#include <utility>
#include <vector>

namespace {

// Asks on a thread of its own, because reading standard input and a full queue make it wait, and
// waiting in a callback would keep the answers waiting, too.
class EchoClient : public xtcp::Handler {
 public:
  // No lines: those of standard input.
  explicit EchoClient(std::vector<std::string> lines) : lines_(std::move(lines)) {}

  void OnEvent(xtcp::EventType event, const xtcp::ConnPtr& conn, xtcp::PacketPtr packet) override {
    switch (event) {
      case xtcp::EventType::kAccept:
        return;  // for the end that listens
      case xtcp::EventType::kConnected:
        asker_ = std::thread([this, conn] { AskAll(conn); });
        return;
      case xtcp::EventType::kRecv:
        std::cout << static_cast<const xtcp::BytesPacket&>(*packet).text() << std::endl;
        OnAnswer(conn);
        return;
      case xtcp::EventType::kClosed:
        Wake();
        return;
    }
  }

  void OnSendReady(const xtcp::ConnPtr&) override { Wake(); }

  bool Done() {
    std::lock_guard lock(mutex_);
    return AllAnswered();
  }

  // Waits for the thread that asks; only when all is done.
  void Join() { asker_.join(); }

 private:
  void AskAll(const xtcp::ConnPtr& conn) {
    bool open = true;
    if (lines_.empty()) {
      for (std::string line; open && std::getline(std::cin, line);) open = Ask(conn, line + '\n');
    } else {
      for (const std::string& line : lines_) open = open && Ask(conn, line + '\n');
    }

    std::lock_guard lock(mutex_);
    all_asked_ = open;
    StopIfDone(conn);
  }

  // Waits while the queue is full. False when the connection takes nothing any more.
  bool Ask(const xtcp::ConnPtr& conn, std::string_view line) {
    std::unique_lock lock(mutex_);
    // The lock is held from the refusal to the wait, so the wake-up after it cannot be missed.
    std::error_code error;
    while ((error = conn->Send(line)) == xtcp::Errc::kFull) may_send_.wait(lock);
    if (error) return false;
    asked_ += static_cast<std::uint64_t>(std::ranges::count(line, '\n'));
    return true;
  }

  void OnAnswer(const xtcp::ConnPtr& conn) {
    std::lock_guard lock(mutex_);
    ++answered_;
    StopIfDone(conn);
  }

  void Wake() {
    std::lock_guard lock(mutex_);
    may_send_.notify_one();
  }

  // With `mutex_` held, also the next.
  bool AllAnswered() const { return all_asked_ && answered_ >= asked_; }

  // A graceful stop discards what still comes in, so not before the last answer.
  void StopIfDone(const xtcp::ConnPtr& conn) {
    if (AllAnswered()) conn->Stop(xtcp::StopMode::kGracefullyButNotWait);
  }

  const std::vector<std::string> lines_;
  std::thread asker_;

  std::mutex mutex_;  // guards what follows
  std::condition_variable may_send_;
  std::uint64_t asked_ = 0;
  std::uint64_t answered_ = 0;
  bool all_asked_ = false;
};

}  // namespace

int main(int argc, char** argv) {
  if (argc < 2) {
    std::cerr << "usage: echo_client HOST:PORT [LINE]...\n"
                 "Without a LINE it sends those of standard input.\n";
    return 2;
  }
  const std::string_view address = argv[1];
  const std::vector<std::string> lines(argv + 2, argv + argc);
  if (lines.empty()) {
    std::cerr << "sends what you type; Ctrl-D ends it, once all is answered\n";
  } else {
    std::cerr << "sends its arguments; ends when they are answered, or by Ctrl-C\n";
  }

  const auto client = std::make_shared<EchoClient>(lines);
  const xtcp::ConnPtr conn =
      xtcp::NewConn({.handler = client, .protocol = std::make_shared<xtcp::LineProtocol>()});
  if (const std::error_code error = conn->DialAndServe(address)) {
    std::cerr << address << ": " << error.message() << '\n';
    return 1;
  }
  if (!client->Done()) {
    std::cerr << address << ": the connection ended before the last answer ("
              << xtcp::ToString(conn->Stats().reason) << ")\n";
    // No return: the thread that asks may be waiting for standard input, which nothing interrupts.
    std::_Exit(1);
  }
  client->Join();
  return 0;
}
