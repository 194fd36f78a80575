#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstdint>
#include <memory>
#include <thread>
#include <vector>

#include "load/client.h"
#include "load/frames.h"
#include "load/histogram.h"
#include "load/modes.h"

namespace load {

namespace {

// The connections of one thread.
class Echo {
 public:
  Echo(const Frames& frames, int port, size_t first, size_t count, size_t depth)
      : frames_(frames), depth_(depth), connections_(count) {
    for (size_t i = 0; i < count; ++i) {
      Connection& connection = connections_[i];
      connection.fd = Connect(port, 0);
      connection.number = first + i;
      connection.sent_at.resize(depth);
      epoll_.Add(connection.fd, EPOLLIN, &connection);
    }
  }
  ~Echo() {
    for (const Connection& connection : connections_) close(connection.fd);
  }
  Echo(const Echo&) = delete;
  Echo& operator=(const Echo&) = delete;

  // Counts what comes from `begin` to `end`, then waits for the answers that are still to come.
  void Run(uint64_t begin, uint64_t end) {
    begin_ = begin;
    end_ = end;
    for (Connection& connection : connections_) Send(connection);
    std::array<epoll_event, 512> events;
    while (open_frames_ > 0) {
      const int count = epoll_.Wait(events.data(), events.size());
      for (int i = 0; i < count; ++i) {
        const epoll_event& event = events[static_cast<size_t>(i)];
        auto& connection = *static_cast<Connection*>(event.data.ptr);
        if ((event.events & ~std::uint32_t{EPOLLOUT}) != 0) Receive(connection);
        Send(connection);
      }
    }
  }

  uint64_t messages() const { return messages_; }
  uint64_t all_messages() const { return all_messages_; }
  const Histogram& round_trips() const { return round_trips_; }

 private:
  struct Connection {
    int fd = -1;
    bool blocked = false;  // waits for EPOLLOUT
    uint64_t number = 0;
    uint64_t begun = 0;  // frames whose first byte may be sent
    uint64_t sent = 0;   // bytes
    uint64_t received = 0;
    std::vector<uint64_t> sent_at;  // of frame i at i % depth
  };

  // Begins new frames, unless the time is over, and sends what the kernel takes.
  void Send(Connection& connection) {
    const uint64_t now = Now();
    if (now < end_) {
      const uint64_t may_begin = connection.received / frames_.size() + depth_;
      open_frames_ += may_begin - connection.begun;
      for (; connection.begun < may_begin; ++connection.begun) {
        connection.sent_at[connection.begun % depth_] = now;
      }
    }
    bool blocked = false;
    while (!blocked) {
      const uint64_t left = connection.begun * frames_.size() - connection.sent;
      const size_t n = std::min<uint64_t>(left, buffer_.size());
      if (n == 0) break;
      frames_.Write(connection.number, connection.sent, buffer_.data(), n);
      const ssize_t sent = send(connection.fd, buffer_.data(), n, MSG_NOSIGNAL | MSG_DONTWAIT);
      if (sent < 0 && errno != EAGAIN) Die("send");
      if (sent > 0) connection.sent += static_cast<uint64_t>(sent);
      blocked = sent < static_cast<ssize_t>(n);
    }
    if (blocked != connection.blocked) {
      connection.blocked = blocked;
      epoll_.Modify(connection.fd, blocked ? EPOLLIN | EPOLLOUT : EPOLLIN, &connection);
    }
  }

  void Receive(Connection& connection) {
    const ssize_t got = recv(connection.fd, buffer_.data(), buffer_.size(), MSG_DONTWAIT);
    if (got == 0) errno = ECONNRESET;
    if (got <= 0) Die("recv");
    const auto n = static_cast<uint64_t>(got);
    if (connection.received + n > connection.sent ||
        !frames_.Check(connection.number, connection.received, buffer_.data(), n)) {
      DieOfAnswer();
    }
    const uint64_t now = Now();
    uint64_t frame = connection.received / frames_.size();
    connection.received += n;
    for (; frame < connection.received / frames_.size(); ++frame) {
      --open_frames_;
      ++all_messages_;
      if (now < begin_ || now >= end_) continue;
      ++messages_;
      round_trips_.Add(now - connection.sent_at[frame % depth_]);
    }
  }

  const Frames& frames_;
  const size_t depth_;
  Epoll epoll_;
  std::vector<Connection> connections_;
  std::vector<char> buffer_ = std::vector<char>(256 << 10);
  uint64_t begin_ = 0;
  uint64_t end_ = 0;
  uint64_t open_frames_ = 0;
  uint64_t messages_ = 0;
  uint64_t all_messages_ = 0;
  Histogram round_trips_;
};

}  // namespace

void RunEcho(int port, size_t connections, size_t payload, size_t depth, double seconds,
             size_t threads, pid_t server) {
  const Frames frames(payload);
  std::vector<std::unique_ptr<Echo>> parts;
  for (size_t i = 0; i < threads; ++i) {
    const size_t first = connections * i / threads;
    const size_t next = connections * (i + 1) / threads;
    parts.push_back(std::make_unique<Echo>(frames, port, first, next - first, depth));
  }
  const auto length = static_cast<uint64_t>(seconds * 1e9);
  const uint64_t begin = Now() + length / 4;
  const uint64_t end = begin + length * 3 / 4;
  uint64_t cpu = 0;
  {
    std::vector<std::jthread> runners;
    for (const auto& part : parts) runners.emplace_back([&] { part->Run(begin, end); });
    const auto sleep_until = [](uint64_t ns) {
      const timespec time{static_cast<time_t>(ns / 1'000'000'000),
                          static_cast<long>(ns % 1'000'000'000)};
      clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &time, nullptr);
    };
    sleep_until(begin);
    const uint64_t before = CpuOf(server);
    sleep_until(end);
    cpu = CpuOf(server) - before;
  }
  uint64_t messages = 0;
  uint64_t all_messages = 0;
  Histogram round_trips;
  for (const auto& part : parts) {
    messages += part->messages();
    all_messages += part->all_messages();
    round_trips.Add(part->round_trips());
  }
  if (messages == 0) Die("no answer in time");
  Figure("messages_per_s", Ratio(messages, end - begin) * 1e9);
  Figure("cpu_ns", Ratio(cpu, messages));
  Figure("cpu_share", Ratio(cpu, end - begin));
  Figure("p50_us", round_trips.Percentile(0.5));
  Figure("p90_us", round_trips.Percentile(0.9));
  Figure("p99_us", round_trips.Percentile(0.99));
  Figure("p999_us", round_trips.Percentile(0.999));
  Figure("max_us", round_trips.Percentile(1));
  Figure("all_messages", static_cast<double>(all_messages));
}

}  // namespace load
