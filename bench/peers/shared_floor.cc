// The floor of answers that share their body, written by hand on epoll: 64 KiB that all answers have
// in common, after a head of 4 bytes, leave by writev(2) out of where they lie. Each 4 bytes that
// come are a request. As in floor.cc there are no limits, no deadlines and no stop.

#include <netinet/tcp.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <csignal>
#include <cstdint>
#include <cstdlib>
#include <string>

#include "support/listen.h"

namespace {

using std::size_t;

constexpr size_t kHead = 4;
constexpr size_t kBody = 64 << 10;
constexpr size_t kAnswersAtOnce = 8;

std::string head("\0\1\0\0", kHead);  // kBody, in big-endian
std::string body(kBody, 'x');
int epoll_fd = -1;

struct Connection {
  int fd = -1;
  bool blocked = false;
  size_t asked = 0;    // bytes
  size_t written = 0;  // bytes
};

void Watch(int operation, Connection* connection, std::uint32_t events) {
  epoll_event event{};
  event.events = events;
  event.data.ptr = connection;
  epoll_ctl(epoll_fd, operation, connection->fd, &event);
}

void Accept(int listener) {
  int fd;
  while ((fd = accept4(listener, nullptr, nullptr, SOCK_NONBLOCK | SOCK_CLOEXEC)) >= 0) {
    const int one = 1;
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    auto* connection = new Connection;
    connection->fd = fd;
    Watch(EPOLL_CTL_ADD, connection, EPOLLIN);
  }
}

// Writes once, from where the last write ended. Returns whether the kernel took all.
bool WriteOnce(Connection* connection, size_t answers) {
  std::array<iovec, 2 * kAnswersAtOnce> parts;
  const size_t count = 2 * std::min(answers, kAnswersAtOnce);
  for (size_t i = 0; i < count; i += 2) {
    parts[i] = {head.data(), kHead};
    parts[i + 1] = {body.data(), kBody};
  }
  size_t left = count / 2 * (kHead + kBody);
  size_t done = connection->written % (kHead + kBody);
  left -= done;
  size_t first = 0;
  if (done >= kHead) {
    done -= kHead;
    first = 1;
  }
  parts[first] = {static_cast<char*>(parts[first].iov_base) + done, parts[first].iov_len - done};
  const ssize_t n = writev(connection->fd, &parts[first], static_cast<int>(count - first));
  if (n > 0) connection->written += static_cast<size_t>(n);
  return n == static_cast<ssize_t>(left);
}

void Write(Connection* connection) {
  bool blocked = false;
  while (!blocked) {
    const size_t answers = connection->asked / kHead - connection->written / (kHead + kBody);
    if (answers == 0) break;
    blocked = !WriteOnce(connection, answers);
  }
  if (blocked == connection->blocked) return;
  connection->blocked = blocked;
  Watch(EPOLL_CTL_MOD, connection, blocked ? EPOLLIN | EPOLLOUT : EPOLLIN);
}

void Read(Connection* connection) {
  static std::array<char, 64 << 10> input;
  const ssize_t got = recv(connection->fd, input.data(), input.size(), 0);
  if (got < 0 && errno == EAGAIN) return;
  if (got <= 0) {
    close(connection->fd);
    delete connection;
    return;
  }
  connection->asked += static_cast<size_t>(got);
  if (!connection->blocked) Write(connection);
}

}  // namespace

int main() {
  std::signal(SIGPIPE, SIG_IGN);
  Connection listener;
  listener.fd = bench::ListenAndSayWhere(0, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC);
  epoll_fd = epoll_create1(EPOLL_CLOEXEC);
  Watch(EPOLL_CTL_ADD, &listener, EPOLLIN);
  static std::array<epoll_event, 512> events;
  for (;;) {
    const int count = epoll_wait(epoll_fd, events.data(), static_cast<int>(events.size()), -1);
    for (int i = 0; i < count; ++i) {
      const epoll_event& event = events[static_cast<size_t>(i)];
      auto* connection = static_cast<Connection*>(event.data.ptr);
      if (connection == &listener) {
        Accept(listener.fd);
        continue;
      }
      if ((event.events & EPOLLOUT) != 0) Write(connection);
      if ((event.events & ~std::uint32_t{EPOLLOUT}) != 0) Read(connection);
    }
  }
}
