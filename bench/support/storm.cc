#include "support/storm.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstdint>
#include <stdexcept>
#include <string>
#include <system_error>
#include <vector>

#include "support/process.h"

namespace bench {
namespace {

constexpr double kRest = 0.005;
constexpr double kStagger = 0.0001;  // or all would do the same at the same time for ever
constexpr double kLastWait = 5;
constexpr std::uint32_t kInput = ~std::uint32_t{0};  // the standard input, among indices of clients

[[noreturn]] void Fail(const char* what, int error = errno) {
  throw std::system_error(error, std::generic_category(), what);
}

class Clients {
 public:
  explicit Clients(const StormPlan& plan) : plan_(plan), clients_(std::size_t(plan.clients)) {
    server_.sin_family = AF_INET;
    server_.sin_port = htons(static_cast<std::uint16_t>(plan.port));
    inet_pton(AF_INET, plan.host.c_str(), &server_.sin_addr);
    Watch(EPOLL_CTL_ADD, STDIN_FILENO, EPOLLIN, kInput);
    const double begin = Seconds();
    for (std::size_t i = 0; i < clients_.size(); ++i) {
      clients_[i].rests_until = begin + static_cast<double>(i) * kStagger;
    }
  }

  void Run() {
    double end = 0;
    while (end == 0 || (under_way_ > 0 && Seconds() < end)) {
      if (end == 0) BeginAnew();
      if (Wait()) end = Seconds() + kLastWait;
    }
    Print("answered", answered_);
    Print("refused", refused_);
    Print("reset", reset_);
    Print("unanswered", under_way_);
    Print("slowest_ms", slowest_ * 1e3);
  }

 private:
  struct Client {
    int fd = -1;  // none while it rests
    bool connected = false;
    double rests_until = 0;
    double began = 0;
    std::string got{};
  };

  void Watch(int operation, int fd, std::uint32_t events, std::uint32_t index) {
    epoll_event event{};
    event.events = events;
    event.data.u32 = index;
    if (epoll_ctl(epoll_, operation, fd, &event) != 0) Fail("epoll_ctl");
  }

  void BeginAnew() {
    const double now = Seconds();
    for (std::size_t i = 0; i < clients_.size(); ++i) {
      if (clients_[i].fd < 0 && clients_[i].rests_until <= now) Connect(i);
    }
  }

  void Connect(std::size_t index) {
    const int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0) Fail("socket");
    clients_[index] = {.fd = fd, .began = Seconds()};
    ++under_way_;
    if (connect(fd, reinterpret_cast<const sockaddr*>(&server_), sizeof server_) != 0 &&
        errno != EINPROGRESS) {
      End(clients_[index], CountOf(errno), kRest);
      return;
    }
    Watch(EPOLL_CTL_ADD, fd, EPOLLIN | EPOLLOUT, static_cast<std::uint32_t>(index));
  }

  // Whether a line has come on the input.
  bool Wait() {
    std::array<epoll_event, 256> events;
    const int count = epoll_wait(epoll_, events.data(), events.size(), 1);
    bool told = false;
    for (int i = 0; i < count; ++i) {
      const std::uint32_t index = events[std::size_t(i)].data.u32;
      if (index == kInput) {
        told = true;
        epoll_ctl(epoll_, EPOLL_CTL_DEL, STDIN_FILENO, nullptr);
      } else if (!clients_[index].connected) {
        Ask(index, events[std::size_t(i)].events);
      } else {
        Read(clients_[index]);
      }
    }
    return told;
  }

  void Ask(std::uint32_t index, std::uint32_t events) {
    Client& client = clients_[index];
    int error = 0;
    socklen_t size = sizeof error;
    getsockopt(client.fd, SOL_SOCKET, SO_ERROR, &error, &size);
    if (error == ETIMEDOUT) error = ECONNREFUSED;  // nobody was there for minutes
    if (error != 0) return End(client, CountOf(error), kRest);
    if ((events & EPOLLOUT) == 0) return;
    if (send(client.fd, plan_.ask.data(), plan_.ask.size(), MSG_NOSIGNAL) !=
        static_cast<ssize_t>(plan_.ask.size())) {
      return End(client, &reset_, kRest);
    }
    client.connected = true;
    Watch(EPOLL_CTL_MOD, client.fd, EPOLLIN, index);
  }

  void Read(Client& client) {
    std::array<char, 4096> room;
    const ssize_t n = recv(client.fd, room.data(), room.size(), 0);
    if (n < 0 && errno == EAGAIN) return;
    if (n <= 0) return End(client, &reset_, kRest);
    client.got.append(room.data(), static_cast<std::size_t>(n));
    if (client.got.size() < plan_.answer.size()) return;
    if (!client.got.starts_with(plan_.answer)) throw std::runtime_error("a wrong answer");
    slowest_ = std::max(slowest_, Seconds() - client.began);
    End(client, &answered_, 0);
    if (answered_ % plan_.report_each == 0) Print("answered", answered_);
  }

  int* CountOf(int error) {
    if (error == ECONNREFUSED) return &refused_;
    // The connect had succeeded, and we did not look before the reset came.
    if (error == ECONNRESET || error == EPIPE) return &reset_;
    Fail("connect", error);
  }

  // With a reset, so that no port stays in TIME_WAIT: there are more clients than ports.
  void End(Client& client, int* count, double rest) {
    const linger now{.l_onoff = 1, .l_linger = 0};
    setsockopt(client.fd, SOL_SOCKET, SO_LINGER, &now, sizeof now);
    close(client.fd);
    client.fd = -1;
    client.rests_until = Seconds() + rest;
    --under_way_;
    ++*count;
  }

  const StormPlan plan_;
  const int epoll_ = epoll_create1(EPOLL_CLOEXEC);
  sockaddr_in server_{};
  std::vector<Client> clients_;
  int under_way_ = 0, answered_ = 0, refused_ = 0, reset_ = 0;
  double slowest_ = 0;
};

}  // namespace

void Storm(const StormPlan& plan) { Clients(plan).Run(); }

}  // namespace bench
