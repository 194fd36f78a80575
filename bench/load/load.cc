// The load generator. It shares no code with the library, and checks every byte that it gets: what
// a connection sends is a function of the connection's number and the position in its stream, so
// that an answer which is late, doubled or another connection's does not pass.
//
//   load echo PORT CONNECTIONS PAYLOAD DEPTH SECONDS THREADS PID
//     Keeps DEPTH frames on their way on each connection. Figures: messages a second, CPU time of
//     the server PID for a message, percentiles of the round trip. The first quarter of the time
//     is not measured.
//   load churn PORT SECONDS PID
//     Connects, echoes one frame of 64 bytes, closes; 64 connections at a time.
//   load hold PORT CONNECTIONS PAYLOAD [half]
//     Echoes one frame on each connection, with "half" also sends the first half of another, says
//     so, and holds the connections until the server closes them.
//   load drain PORT CONNECTIONS [wait]
//     Reads the messages of 64 bytes that bench::FillMessage (support/message.h) describes, and
//     says how many came in the end. With "wait" it starts to read when it gets a line.
//
// A frame is a 4-byte big-endian length of the payload, then the payload.

#include <arpa/inet.h>
#include <netinet/tcp.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <bit>
#include <cerrno>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <ctime>
#include <memory>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include "support/message.h"

namespace {

using std::size_t;
using std::uint64_t;

[[noreturn]] void Die(const char* what) {
  std::fprintf(stderr, "load: %s: %s\n", what, std::strerror(errno));
  std::_Exit(1);
}

uint64_t ReadClock(clockid_t clock) {
  timespec now{};
  if (clock_gettime(clock, &now) != 0) Die("clock_gettime");
  return static_cast<uint64_t>(now.tv_sec) * 1'000'000'000 + static_cast<uint64_t>(now.tv_nsec);
}
uint64_t Now() { return ReadClock(CLOCK_MONOTONIC); }

// CPU time that a process has used, all its threads together.
uint64_t CpuOf(pid_t pid) {
  clockid_t clock;
  if (clock_getcpuclockid(pid, &clock) != 0) Die("no such process");
  return ReadClock(clock);
}

void Figure(const char* name, double value) { std::printf("%s %.9g\n", name, value); }

double Ratio(uint64_t a, uint64_t b) { return static_cast<double>(a) / static_cast<double>(b); }

// --- Connecting ----------------------------------------------------------------------------------

sockaddr_in Loopback(int port) {
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_port = htons(static_cast<std::uint16_t>(port));
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  return address;
}

// With `flags` SOCK_NONBLOCK the connection may not stand yet.
int Connect(int port, int flags) {
  const int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | flags, 0);
  if (fd < 0) Die("socket");
  const int one = 1;
  setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
  const sockaddr_in address = Loopback(port);
  if (connect(fd, reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0 &&
      errno != EINPROGRESS) {
    Die("connect");
  }
  return fd;
}

class Epoll {
 public:
  void Add(int fd, std::uint32_t events, void* mark) { Control(EPOLL_CTL_ADD, fd, events, mark); }
  void Modify(int fd, std::uint32_t events, void* mark) {
    Control(EPOLL_CTL_MOD, fd, events, mark);
  }
  // A server that is silent for ten seconds has failed.
  int Wait(epoll_event* events, int max) {
    const int count = epoll_wait(fd_, events, max, 10'000);
    if (count == 0) errno = ETIMEDOUT;
    if (count <= 0) Die("epoll_wait");
    return count;
  }

 private:
  void Control(int operation, int fd, std::uint32_t events, void* mark) {
    epoll_event event{};
    event.events = events;
    event.data.ptr = mark;
    if (epoll_ctl(fd_, operation, fd, &event) != 0) Die("epoll_ctl");
  }
  const int fd_ = epoll_create1(EPOLL_CLOEXEC);
};

// --- What is sent --------------------------------------------------------------------------------

// The streams of all connections: frames whose payloads are pieces of one random text.
class Frames {
 public:
  explicit Frames(size_t payload) : payload_(payload), text_(kStarts + payload) {
    std::minstd_rand random(1);
    for (char& c : text_) c = static_cast<char>(random());
    const std::uint32_t length = htonl(static_cast<std::uint32_t>(payload));
    std::memcpy(header_.data(), &length, sizeof length);
  }

  size_t size() const { return header_.size() + payload_; }

  void Write(uint64_t connection, uint64_t position, char* out, size_t n) const {
    Walk(connection, position, n, [&](const char* part, size_t size) {
      std::memcpy(out, part, size);
      out += size;
      return true;
    });
  }

  bool Check(uint64_t connection, uint64_t position, const char* in, size_t n) const {
    return Walk(connection, position, n, [&](const char* part, size_t size) {
      const bool same = std::memcmp(in, part, size) == 0;
      in += size;
      return same;
    });
  }

 private:
  static constexpr size_t kStarts = 65'521;  // a prime, so that neighbours start elsewhere

  // Calls `visit` with each piece of the stream from `position` on, `n` bytes in all, until it says
  // false.
  template <class Visit>
  bool Walk(uint64_t connection, uint64_t position, size_t n, const Visit& visit) const {
    uint64_t frame = position / size();
    size_t at = position % size();
    while (n > 0) {
      const size_t head = at < header_.size() ? std::min(n, header_.size() - at) : 0;
      if (head > 0 && !visit(header_.data() + at, head)) return false;
      n -= head;
      at += head;
      const size_t body = std::min(n, size() - at);
      const size_t start = (connection * 7919 + frame * 104'729) % kStarts;
      if (body > 0 && !visit(text_.data() + start + at - header_.size(), body)) return false;
      n -= body;
      at = 0;
      ++frame;
    }
    return true;
  }

  const size_t payload_;
  std::array<char, 4> header_{};
  std::vector<char> text_;
};

// --- echo ----------------------------------------------------------------------------------------

// Counts of times in nanoseconds, in steps of 1/64 of their size.
class Histogram {
 public:
  void Add(uint64_t ns) { ++counts_[IndexOf(ns)]; }

  void Add(const Histogram& other) {
    for (size_t i = 0; i < counts_.size(); ++i) counts_[i] += other.counts_[i];
  }

  // Microseconds that this share of all does not exceed.
  double Percentile(double share) const {
    uint64_t all = 0;
    for (const uint64_t count : counts_) all += count;
    auto left = static_cast<uint64_t>(static_cast<double>(all) * share);
    for (size_t i = 0; i < counts_.size(); ++i) {
      if (counts_[i] > left) return static_cast<double>(ValueOf(i)) / 1e3;
      left -= counts_[i];
    }
    size_t last = counts_.size() - 1;
    while (last > 0 && counts_[last] == 0) --last;
    return static_cast<double>(ValueOf(last)) / 1e3;
  }

 private:
  static constexpr int kStepBits = 6;
  static constexpr uint64_t kSteps = 1 << kStepBits;

  // The position of the first one bit, and the bits behind it.
  static size_t IndexOf(uint64_t ns) {
    if (ns < kSteps) return ns;
    const auto shift = static_cast<uint64_t>(std::bit_width(ns)) - kStepBits - 1;
    return (shift + 1) * kSteps + ((ns >> shift) - kSteps);
  }
  static uint64_t ValueOf(size_t index) {
    if (index < kSteps) return index;
    return (kSteps + index % kSteps) << (index / kSteps - 1);
  }

  std::vector<uint64_t> counts_ = std::vector<uint64_t>((64 - kStepBits + 1) * kSteps);
};

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
      errno = EBADMSG;
      Die("a wrong answer");
    }
    const uint64_t now = Now();
    uint64_t frame = connection.received / frames_.size();
    connection.received += n;
    for (; frame < connection.received / frames_.size(); ++frame) {
      --open_frames_;
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
  Histogram round_trips_;
};

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
  Histogram round_trips;
  for (const auto& part : parts) {
    messages += part->messages();
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
}

// --- churn ---------------------------------------------------------------------------------------

void RunChurn(int port, double seconds, pid_t server) {
  constexpr size_t kAtOnce = 64;
  struct Connection {
    int fd = -1;
    size_t received = 0;
    uint64_t number = 0;
  };
  const Frames frames(64);
  Epoll epoll;
  std::vector<char> buffer(frames.size());
  std::array<Connection, kAtOnce> connections;
  uint64_t begun = 0;
  const auto begin_one = [&](Connection& connection) {
    connection = {Connect(port, SOCK_NONBLOCK), 0, begun++};
    // A close that resets leaves nothing behind; else the ports would soon be used up by
    // connections in TIME-WAIT.
    const linger reset{1, 0};
    setsockopt(connection.fd, SOL_SOCKET, SO_LINGER, &reset, sizeof reset);
    epoll.Add(connection.fd, EPOLLOUT, &connection);
  };

  const uint64_t begin = Now();
  const uint64_t end = begin + static_cast<uint64_t>(seconds * 1e9);
  const uint64_t cpu_before = CpuOf(server);
  for (Connection& connection : connections) begin_one(connection);
  uint64_t done = 0;
  size_t open = kAtOnce;
  std::array<epoll_event, kAtOnce> events;
  while (open > 0) {
    const int count = epoll.Wait(events.data(), events.size());
    for (int i = 0; i < count; ++i) {
      const epoll_event& event = events[static_cast<size_t>(i)];
      auto& connection = *static_cast<Connection*>(event.data.ptr);
      if ((event.events & EPOLLOUT) != 0) {
        frames.Write(connection.number, 0, buffer.data(), buffer.size());
        if (send(connection.fd, buffer.data(), buffer.size(), MSG_NOSIGNAL) !=
            static_cast<ssize_t>(buffer.size())) {
          Die("send");
        }
        epoll.Modify(connection.fd, EPOLLIN, &connection);
        continue;
      }
      const ssize_t got = recv(connection.fd, buffer.data(), buffer.size(), 0);
      if (got <= 0) Die("recv");
      const auto n = static_cast<size_t>(got);
      if (connection.received + n > frames.size() ||
          !frames.Check(connection.number, connection.received, buffer.data(), n)) {
        errno = EBADMSG;
        Die("a wrong answer");
      }
      connection.received += n;
      if (connection.received < frames.size()) continue;
      ++done;
      close(connection.fd);
      if (Now() < end) {
        begin_one(connection);
      } else {
        --open;
      }
    }
  }
  Figure("connections_per_s", Ratio(done, Now() - begin) * 1e9);
  Figure("cpu_ns", Ratio(CpuOf(server) - cpu_before, done));
}

// --- hold ----------------------------------------------------------------------------------------

void SendAll(int fd, const char* bytes, size_t n) {
  while (n > 0) {
    const ssize_t sent = send(fd, bytes, n, MSG_NOSIGNAL);
    if (sent <= 0) Die("send");
    bytes += sent;
    n -= static_cast<size_t>(sent);
  }
}

void RunHold(int port, size_t connections, size_t payload, bool half) {
  const Frames frames(payload);
  std::vector<char> buffer(frames.size());
  std::vector<int> fds;
  for (size_t i = 0; i < connections; ++i) {
    const int fd = fds.emplace_back(Connect(port, 0));
    frames.Write(i, 0, buffer.data(), buffer.size());
    SendAll(fd, buffer.data(), buffer.size());
    if (recv(fd, buffer.data(), buffer.size(), MSG_WAITALL) !=
        static_cast<ssize_t>(buffer.size())) {
      Die("recv");
    }
    if (!frames.Check(i, 0, buffer.data(), buffer.size())) {
      errno = EBADMSG;
      Die("a wrong answer");
    }
    if (!half) continue;
    frames.Write(i, frames.size(), buffer.data(), buffer.size() / 2);
    SendAll(fd, buffer.data(), buffer.size() / 2);
  }
  std::printf("ready\n");
  std::fflush(stdout);
  // Whatever the order, each is closed as soon as the server has ended it.
  Epoll epoll;
  for (int& fd : fds) epoll.Add(fd, EPOLLIN | EPOLLRDHUP, &fd);
  std::array<epoll_event, 512> events;
  for (size_t open = fds.size(); open > 0;) {
    const int count = epoll.Wait(events.data(), events.size());
    for (int i = 0; i < count; ++i) {
      close(*static_cast<int*>(events[static_cast<size_t>(i)].data.ptr));
    }
    open -= static_cast<size_t>(count);
  }
}

// --- drain ---------------------------------------------------------------------------------------

void RunDrain(int port, size_t connections, bool wait) {
  struct Connection {
    int fd = -1;
    size_t have = 0;  // bytes of an unfinished message
    std::array<char, bench::kMessageBytes> unfinished{};
    std::array<uint64_t, bench::kProducersMax> next{};  // number of each producer's next message
  };
  std::vector<Connection> all(connections);
  Epoll epoll;
  for (Connection& connection : all) {
    connection.fd = Connect(port, 0);
    epoll.Add(connection.fd, EPOLLIN, &connection);
  }
  std::printf("ready\n");
  std::fflush(stdout);
  if (wait && std::getchar() == EOF) return;

  const auto check = [](Connection& connection, const char* message) {
    const std::uint32_t producer = bench::ProducerOf(message);
    if (producer >= bench::kProducersMax ||
        !bench::CheckMessage(message, producer, connection.next[producer]++)) {
      errno = EBADMSG;
      Die("a wrong message");
    }
  };
  std::vector<char> buffer(256 << 10);
  std::array<epoll_event, 512> events;
  uint64_t messages = 0;
  for (size_t open = all.size(); open > 0;) {
    const int count = epoll.Wait(events.data(), events.size());
    for (int i = 0; i < count; ++i) {
      auto& connection = *static_cast<Connection*>(events[static_cast<size_t>(i)].data.ptr);
      std::copy_n(connection.unfinished.data(), connection.have, buffer.data());
      const ssize_t got = recv(connection.fd, buffer.data() + connection.have,
                               buffer.size() - connection.have, MSG_DONTWAIT);
      if (got < 0) Die("recv");
      if (got == 0) {
        if (connection.have != 0) Die("a message has no end");
        close(connection.fd);
        --open;
        continue;
      }
      const size_t all_bytes = connection.have + static_cast<size_t>(got);
      connection.have = all_bytes % bench::kMessageBytes;
      const size_t whole = all_bytes - connection.have;
      for (size_t at = 0; at < whole; at += bench::kMessageBytes) {
        check(connection, buffer.data() + at);
      }
      messages += whole / bench::kMessageBytes;
      std::copy_n(buffer.data() + whole, connection.have, connection.unfinished.data());
    }
  }
  Figure("messages", static_cast<double>(messages));
}

}  // namespace

int main(int argc, char** argv) {
  const std::vector<std::string> words(argv, argv + argc);
  const auto number = [&](size_t i) { return std::strtoul(words.at(i).c_str(), nullptr, 10); };
  const auto real = [&](size_t i) { return std::strtod(words.at(i).c_str(), nullptr); };
  const std::string mode = argc > 2 ? words[1] : "";
  const int port = argc > 2 ? static_cast<int>(number(2)) : 0;
  if (mode == "echo" && argc == 9) {
    RunEcho(port, number(3), number(4), number(5), real(6), number(7),
            static_cast<pid_t>(number(8)));
  } else if (mode == "churn" && argc == 5) {
    RunChurn(port, real(3), static_cast<pid_t>(number(4)));
  } else if (mode == "hold" && (argc == 5 || (argc == 6 && words[5] == "half"))) {
    RunHold(port, number(3), number(4), argc == 6);
  } else if (mode == "drain" && (argc == 4 || (argc == 5 && words[4] == "wait"))) {
    RunDrain(port, number(3), argc == 5);
  } else {
    std::fprintf(stderr, "usage: load echo|churn|hold|drain PORT ...; see load.cc\n");
    return 2;
  }
  return 0;
}
