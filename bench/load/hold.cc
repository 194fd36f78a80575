#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <array>
#include <cstdio>
#include <vector>

#include "load/client.h"
#include "load/frames.h"
#include "load/modes.h"

namespace load {

namespace {

void SendAll(int fd, const char* bytes, size_t n) {
  while (n > 0) {
    const ssize_t sent = send(fd, bytes, n, MSG_NOSIGNAL);
    if (sent <= 0) Die("send");
    bytes += sent;
    n -= static_cast<size_t>(sent);
  }
}

}  // namespace

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
    if (!frames.Check(i, 0, buffer.data(), buffer.size())) DieOfAnswer();
    if (!half) continue;
    frames.Write(i, frames.size(), buffer.data(), buffer.size() / 2);
    SendAll(fd, buffer.data(), buffer.size() / 2);
  }
  std::printf("ready\n");
  std::fflush(stdout);
  // Each is closed as soon as the server has ended it, whatever the order. Nothing else may come.
  Epoll epoll;
  for (int& fd : fds) epoll.Add(fd, EPOLLIN | EPOLLRDHUP, &fd);
  std::array<epoll_event, 512> events;
  for (size_t open = fds.size(); open > 0;) {
    const int count = epoll.Wait(events.data(), events.size());
    for (int i = 0; i < count; ++i) {
      const int fd = *static_cast<int*>(events[static_cast<size_t>(i)].data.ptr);
      if (recv(fd, buffer.data(), buffer.size(), MSG_DONTWAIT) > 0) DieOfAnswer();
      close(fd);
    }
    open -= static_cast<size_t>(count);
  }
}

}  // namespace load
