// Ships the lines of standard input to a server that acknowledges each by a line of its own, as
// demo/echo_server.cc does, and loses none when the server goes and comes again: a line is kept
// until it is acknowledged, and what was not is sent again on the next connection. So a line may
// come twice, and never out of order. Exits 0 when all of them are acknowledged.
//
//   pool_client 127.0.0.1:7000 <some_file

#include <xtcp/xtcp.h>

#include <chrono>
#include <cstdlib>
#include <deque>
#include <iostream>
#include <memory>
#include <semaphore>
#include <string>
#include <system_error>
#include <thread>
#include <utility>

using namespace std::chrono_literals;

namespace {

// The lines that are not acknowledged. All but `WaitForRoom` is called on the loop, so it needs no
// lock.
class Outbox : public xtcp::Handler {
 public:
  explicit Outbox(xtcp::LoopGroup& group) : group_(group) {}

  // For the thread that reads: it waits while so many lines are on their way.
  void WaitForRoom() { room_.acquire(); }

  void Add(std::string line) {
    lines_.push_back(std::move(line));
    if (conn_ != nullptr) SendMore();
  }

  void NoMoreComes() {
    complete_ = true;
    StopIfDone();
  }

  bool done() const { return complete_ && lines_.empty(); }

  void OnEvent(xtcp::EventType event, const xtcp::ConnPtr& conn, xtcp::PacketPtr) override {
    if (event == xtcp::EventType::kRecv) Acknowledge();
    if (event == xtcp::EventType::kClosed) conn_ = nullptr;
    if (event != xtcp::EventType::kConnected) return;
    conn_ = conn;
    sent_ = 0;  // on this connection
    SendMore();
  }
  void OnSendReady(const xtcp::ConnPtr&) override { SendMore(); }
  void OnDialFailed(const xtcp::ConnPtr&, std::error_code error) override {
    std::cerr << error.message() << "; tries again\n";
  }

 private:
  static constexpr std::ptrdiff_t kLinesMax = 1000;

  // A refusal is kFull, which OnSendReady follows, or the end of this connection.
  void SendMore() {
    while (sent_ < lines_.size() && !conn_->Send(lines_[sent_])) ++sent_;
  }

  void Acknowledge() {
    if (sent_ == 0) {  // of nothing: there is no telling what this server does
      conn_->Stop(xtcp::StopMode::kImmediately);
      return;
    }
    lines_.pop_front();
    --sent_;
    room_.release();
    StopIfDone();
  }

  void StopIfDone() {
    if (done()) group_.Stop(xtcp::StopMode::kGracefullyButNotWait);
  }

  xtcp::LoopGroup& group_;
  std::counting_semaphore<kLinesMax> room_{kLinesMax};
  xtcp::ConnPtr conn_;
  std::deque<std::string> lines_;
  std::size_t sent_ = 0;   // of `lines_`, the first so many, on `conn_`
  bool complete_ = false;  // standard input has ended
};

}  // namespace

int main(int argc, char** argv) {
  if (argc != 2) {
    std::cerr << "usage: pool_client HOST:PORT\n";
    return 2;
  }
  xtcp::LoopGroup group;
  const auto outbox = std::make_shared<Outbox>(group);
  xtcp::Redialer redialer({.handler = outbox,
                           .protocol = std::make_shared<xtcp::LineProtocol>(),
                           .connect_timeout = 2s},
                          argv[1], group[0], {.first = 20ms, .most = 5s});
  std::error_code error = redialer.Start();
  if (error) {
    std::cerr << argv[1] << ": " << error.message() << '\n';
    return 2;
  }
  // Reading makes it wait, so it is done on a thread of its own, which hands the lines over. A loop
  // that takes no tasks has ended, and then `done` tells.
  std::thread reader([outbox, loop = group[0]] {
    std::error_code refused;
    for (std::string line; !refused && std::getline(std::cin, line);) {
      outbox->WaitForRoom();
      refused = loop.Post([outbox, line = line + '\n']() mutable { outbox->Add(std::move(line)); });
    }
    if (!refused) refused = loop.Post([outbox] { outbox->NoMoreComes(); });
  });
  error = group.Run();
  if (!outbox->done()) {
    std::cerr << error.message() << '\n';
    std::_Exit(1);  // no return: the reader may wait for standard input, which nothing interrupts
  }
  reader.join();
  return 0;
}
