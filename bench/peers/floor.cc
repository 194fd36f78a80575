// The floor: the framed echo written by hand on epoll, with nothing between it and the kernel. One
// thread, one connection type, no limits, no deadlines, no stop. What a library costs is what it
// takes beyond this.
//
// As in a server whose answers are composed, each frame is copied to the output, and what one read
// gave leaves in one write.

#include <netinet/tcp.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <vector>

#include "support/listen.h"

namespace {

using std::size_t;

struct Connection {
  int fd = -1;
  std::vector<char> tail;     // of the input: an unfinished frame
  std::vector<char> waiting;  // of the output: what the kernel did not take; both keep their memory
  size_t written = 0;         // of `waiting`
};

constexpr size_t kReadBytes = 256 << 10;
char output[2 * kReadBytes];
int epoll_fd = -1;

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

void Close(Connection* connection) {
  close(connection->fd);
  delete connection;
}

size_t SendNow(int fd, const char* bytes, size_t n) {
  const ssize_t sent = send(fd, bytes, n, MSG_NOSIGNAL);
  return sent > 0 ? static_cast<size_t>(sent) : 0;
}

void WriteWaiting(Connection* connection) {
  connection->written += SendNow(connection->fd, connection->waiting.data() + connection->written,
                                 connection->waiting.size() - connection->written);
  if (connection->written < connection->waiting.size()) return;
  connection->waiting.clear();
  connection->written = 0;
  Watch(EPOLL_CTL_MOD, connection, EPOLLIN);
}

void Write(Connection* connection, size_t n) {
  size_t sent = 0;
  if (connection->waiting.empty()) {
    sent = SendNow(connection->fd, output, n);
    if (sent < n) Watch(EPOLL_CTL_MOD, connection, EPOLLIN | EPOLLOUT);
  }
  connection->waiting.insert(connection->waiting.end(), output + sent, output + n);
}

// Bytes of the whole frames at the front of `bytes`, copied to `output`.
size_t CopyFrames(const char* bytes, size_t n) {
  size_t done = 0;
  std::uint32_t length;
  while (n - done >= sizeof length) {
    std::memcpy(&length, bytes + done, sizeof length);
    const size_t frame = sizeof length + size_t{ntohl(length)};
    if (n - done < frame) break;
    std::memcpy(output + done, bytes + done, frame);
    done += frame;
  }
  return done;
}

void Read(Connection* connection) {
  static char input[2 * kReadBytes];  // the tail of a frame in front
  const size_t tail = connection->tail.size();
  if (tail > 0) std::memcpy(input, connection->tail.data(), tail);
  const ssize_t got = recv(connection->fd, input + tail, kReadBytes, 0);
  if (got < 0 && errno == EAGAIN) return;
  const size_t n = tail + static_cast<size_t>(got > 0 ? got : 0);
  const size_t done = CopyFrames(input, n);
  if (got <= 0 || n - done > kReadBytes) {  // also a frame that is larger than what we read
    Close(connection);
    return;
  }
  connection->tail.assign(input + done, input + n);
  if (done > 0) Write(connection, done);
}

}  // namespace

int main(int argc, char** argv) {
  Connection listener;
  listener.fd = bench::ListenAndSayWhere(argc > 1 ? std::atoi(argv[1]) : 0,
                                         SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC);
  epoll_fd = epoll_create1(EPOLL_CLOEXEC);
  Watch(EPOLL_CTL_ADD, &listener, EPOLLIN);
  static epoll_event events[512];
  for (;;) {
    const int count = epoll_wait(epoll_fd, events, 512, -1);
    for (int i = 0; i < count; ++i) {
      auto* connection = static_cast<Connection*>(events[i].data.ptr);
      if (connection == &listener) {
        Accept(listener.fd);
        continue;
      }
      if ((events[i].events & EPOLLOUT) != 0) WriteWaiting(connection);
      if ((events[i].events & ~std::uint32_t{EPOLLOUT}) != 0) Read(connection);
    }
  }
}
