#include "support/client.h"

#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>
#include <cstdint>
#include <system_error>

namespace bench {

int ConnectTo(int port, int receive_buffer) {
  const int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  address.sin_port = htons(static_cast<std::uint16_t>(port));
  const int one = 1;
  if (receive_buffer > 0) {
    setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &receive_buffer, sizeof receive_buffer);
  }
  if (fd < 0 || setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one) != 0 ||
      connect(fd, reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0) {
    const std::system_error error(errno, std::generic_category(), "connect");
    if (fd >= 0) close(fd);
    throw error;
  }
  return fd;
}

std::string FrameOf(std::size_t size) {
  std::string frame(size, 'x');
  const std::uint32_t payload = htonl(static_cast<std::uint32_t>(size - 4));
  return frame.replace(0, 4, reinterpret_cast<const char*>(&payload), 4);
}

}  // namespace bench
