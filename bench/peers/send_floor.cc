// The floor of sends from other threads, written by hand on epoll: a connection has a mutex and two
// buffers, one that senders fill and one that the loop writes; an eventfd is written when the loop
// sleeps. See support/sends.h.

#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include <array>
#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <memory>
#include <mutex>
#include <thread>
#include <utility>
#include <vector>

#include "support/sends.h"

namespace {

class Connection {
 public:
  explicit Connection(int fd) : fd_(fd) {}
  ~Connection() { close(fd_); }
  Connection(const Connection&) = delete;
  Connection& operator=(const Connection&) = delete;

  int fd() const { return fd_; }

  // Any thread. Waits for room. Returns whether the loop has to be told.
  bool Send(bench::MessageBytes bytes) {
    std::unique_lock lock(mutex_);
    room_.wait(lock, [&] { return queued_ + bytes.size() <= bench::kSendLimit; });
    waiting_.insert(waiting_.end(), bytes.begin(), bytes.end());
    queued_ += bytes.size();
    return !std::exchange(told_, true);
  }

  // The loop's thread. Writes until nothing waits, or the kernel takes no more.
  void Flush() {
    for (;;) {
      if (written_ == writing_.size()) {
        writing_.clear();
        written_ = 0;
        const std::lock_guard lock(mutex_);
        told_ = false;
        if (waiting_.empty()) return;
        writing_.swap(waiting_);
      }
      const ssize_t n =
          send(fd_, writing_.data() + written_, writing_.size() - written_, MSG_NOSIGNAL);
      if (n < 0) return;
      written_ += static_cast<std::size_t>(n);
      {
        const std::lock_guard lock(mutex_);
        queued_ -= static_cast<std::size_t>(n);
      }
      room_.notify_all();
    }
  }

  bool empty() {
    const std::lock_guard lock(mutex_);
    return queued_ == 0;
  }

 private:
  const int fd_;
  std::mutex mutex_;
  std::condition_variable room_;
  std::vector<std::byte> waiting_;
  std::size_t queued_ = 0;
  bool told_ = false;
  std::vector<std::byte> writing_;  // the loop's
  std::size_t written_ = 0;         // of those
};

class Loop {
 public:
  Loop() { Watch(wake_, EPOLLIN | EPOLLET, nullptr); }
  void Add(Connection* connection) {
    all_.push_back(connection);
    Watch(connection->fd(), EPOLLOUT | EPOLLET, connection);
  }

  // Any thread.
  void Tell(Connection* connection) {
    bool wake;
    {
      const std::lock_guard lock(mutex_);
      told_.push_back(connection);
      wake = std::exchange(asleep_, false);
    }
    if (wake) Wake();
  }
  void Finish() {
    {
      const std::lock_guard lock(mutex_);
      finishes_ = true;
    }
    Wake();
  }

  // Until all is written after `Finish`.
  void Run() {
    std::vector<Connection*> ready;
    std::array<epoll_event, 64> events;
    for (;;) {
      bool finishes;
      {
        const std::lock_guard lock(mutex_);
        ready.swap(told_);
        asleep_ = ready.empty();
        finishes = finishes_;
      }
      const bool idle = ready.empty();
      if (idle && finishes && AllEmpty()) return;
      for (Connection* connection : ready) connection->Flush();
      ready.clear();
      const int count = epoll_wait(epoll_, events.data(), events.size(), idle ? -1 : 0);
      for (int i = 0; i < count; ++i) {
        auto* connection = static_cast<Connection*>(events[static_cast<std::size_t>(i)].data.ptr);
        if (connection != nullptr) connection->Flush();
      }
    }
  }

 private:
  void Watch(int fd, std::uint32_t events, void* data) {
    epoll_event event{};
    event.events = events;
    event.data.ptr = data;
    epoll_ctl(epoll_, EPOLL_CTL_ADD, fd, &event);
  }
  void Wake() {
    const std::uint64_t one = 1;
    if (write(wake_, &one, sizeof one) < 0) std::abort();
  }
  bool AllEmpty() {
    for (Connection* connection : all_) {
      if (!connection->empty()) return false;
    }
    return true;
  }

  const int epoll_ = epoll_create1(EPOLL_CLOEXEC);
  const int wake_ = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
  std::vector<Connection*> all_;
  std::mutex mutex_;
  std::vector<Connection*> told_;
  bool asleep_ = false;
  bool finishes_ = false;
};

}  // namespace

int main(int, char** argv) {
  const std::size_t producers = std::strtoul(argv[1], nullptr, 10);
  const std::size_t count = std::strtoul(argv[2], nullptr, 10);
  const int listener = bench::ListenAndSayWhere();
  Loop loop;
  std::vector<std::unique_ptr<Connection>> connections;
  for (std::size_t i = 0; i < count; ++i) {
    connections.push_back(std::make_unique<Connection>(bench::AcceptOne(listener)));
    loop.Add(connections.back().get());
  }
  std::thread running([&] { loop.Run(); });
  bench::MeasureSends(
      producers, count,
      [&](std::size_t index, bench::MessageBytes bytes) {
        Connection* const connection = connections[index].get();
        if (connection->Send(bytes)) loop.Tell(connection);
      },
      [&] {
        loop.Finish();
        running.join();
      });
}
