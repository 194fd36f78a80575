#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <array>
#include <cstdint>
#include <vector>

#include "load/client.h"
#include "load/frames.h"
#include "load/modes.h"

namespace load {

void RunChurn(int port, double seconds, pid_t server) {
  constexpr size_t kAtOnce = 64;
  struct Connection {
    int fd = -1;
    size_t received = 0;
    uint64_t number = 0;
  };
  const Frames frames(64);
  Epoll epoll;
  std::vector<char> buffer(frames.size() + 1);  // room to see an answer that is too long
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
        frames.Write(connection.number, 0, buffer.data(), frames.size());
        if (send(connection.fd, buffer.data(), frames.size(), MSG_NOSIGNAL) !=
            static_cast<ssize_t>(frames.size())) {
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
        DieOfAnswer();
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

}  // namespace load
