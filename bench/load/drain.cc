#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstdint>
#include <cstdio>
#include <vector>

#include "load/client.h"
#include "load/modes.h"
#include "support/message.h"

namespace load {

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

}  // namespace load
