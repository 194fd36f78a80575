// Sends from other threads on standalone asio, as its users write them: each message is posted to
// the loop's thread, which keeps it in a queue and writes all that is there. See support/sends.h.

#include <asio.hpp>
#include <condition_variable>
#include <cstddef>
#include <cstdlib>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "support/sends.h"

namespace {

class Connection {
 public:
  Connection(asio::io_context& context, int fd) : context_(context), socket_(context) {
    socket_.assign(asio::ip::tcp::v4(), fd);
  }

  // Any thread. Waits for room.
  void Send(bench::MessageBytes bytes) {
    {
      std::unique_lock lock(mutex_);
      room_.wait(lock, [&] { return queued_ + bytes.size() <= bench::kSendLimit; });
      queued_ += bytes.size();
    }
    asio::post(context_, [this, message = std::string(reinterpret_cast<const char*>(bytes.data()),
                                                      bytes.size())] {
      waiting_ += message;
      Write();
    });
  }

 private:
  void Write() {
    if (!writing_.empty() || waiting_.empty()) return;
    writing_.swap(waiting_);
    asio::async_write(socket_, asio::buffer(writing_),
                      [this](std::error_code, std::size_t written) {
                        writing_.clear();
                        {
                          const std::lock_guard lock(mutex_);
                          queued_ -= written;
                        }
                        room_.notify_all();
                        Write();
                      });
  }

  asio::io_context& context_;
  asio::ip::tcp::socket socket_;
  std::string waiting_;  // these two are the loop's
  std::string writing_;
  std::mutex mutex_;
  std::condition_variable room_;
  std::size_t queued_ = 0;
};

}  // namespace

int main(int, char** argv) {
  const std::size_t producers = std::strtoul(argv[1], nullptr, 10);
  const std::size_t count = std::strtoul(argv[2], nullptr, 10);
  asio::io_context context;
  std::optional work = asio::make_work_guard(context);
  const int listener = bench::ListenAndSayWhere();
  std::vector<std::unique_ptr<Connection>> connections;
  for (std::size_t i = 0; i < count; ++i) {
    connections.push_back(std::make_unique<Connection>(context, bench::AcceptOne(listener)));
  }
  std::thread running([&] { context.run(); });
  bench::MeasureSends(
      producers, count,
      [&](std::size_t index, bench::MessageBytes bytes) { connections[index]->Send(bytes); },
      [&] {
        work.reset();  // the loop ends when all is written
        running.join();
      });
}
