#include "support/delayed_path.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <linux/if_tun.h>
#include <net/if.h>
#include <netinet/in.h>
#include <netinet/ip.h>
#include <poll.h>
#include <sched.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <deque>
#include <system_error>
#include <utility>
#include <vector>

namespace bench {
namespace {

constexpr int kQueueLength = 10'000;  // packets; 500 would be lost in a storm

void Check(int result, const char* what) {
  if (result < 0) throw std::system_error(errno, std::generic_category(), what);
}

// Opens a device, gives it the local address, and starts it.
int OpenDevice() {
  const int device = open("/dev/net/tun", O_RDWR | O_NONBLOCK | O_CLOEXEC);
  Check(device, "/dev/net/tun");
  ifreq request{};
  request.ifr_flags = IFF_TUN | IFF_NO_PI;
  Check(ioctl(device, TUNSETIFF, &request), "/dev/net/tun");

  const int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);  // for netdevice(7)
  Check(fd, "socket");
  const auto set = [&](unsigned long what, const char* address) {
    sockaddr_in in{};
    in.sin_family = AF_INET;
    inet_pton(AF_INET, address, &in.sin_addr);
    std::memcpy(&request.ifr_addr, &in, sizeof in);
    Check(ioctl(fd, what, &request), "an address of the TUN device");
  };
  set(SIOCSIFADDR, DelayedPath::kLocal);
  set(SIOCSIFNETMASK, "255.255.255.0");
  request.ifr_qlen = kQueueLength;
  Check(ioctl(fd, SIOCSIFTXQLEN, &request), "the queue of the TUN device");
  request.ifr_flags = IFF_UP | IFF_RUNNING;
  Check(ioctl(fd, SIOCSIFFLAGS, &request), "the TUN device");
  close(fd);
  return device;
}

struct Held {
  double due;
  std::vector<char> packet;
};

// The checksums stay right, since they are sums.
void ExchangeAddresses(std::vector<char>& packet) {
  constexpr std::size_t kSource = offsetof(iphdr, saddr), kDestination = offsetof(iphdr, daddr);
  std::swap_ranges(packet.begin() + kSource, packet.begin() + kDestination,
                   packet.begin() + kDestination);
}

// Until it is killed.
void Forward(int device, double delay) {
  std::deque<Held> held;
  std::vector<char> room(64 << 10);
  for (;;) {
    const double wait = held.empty() ? 1 : std::max(0.0, held.front().due - Seconds());
    const timespec time{.tv_sec = 0, .tv_nsec = std::min(999'999'999L, long(wait * 1e9))};
    pollfd readable{device, POLLIN, 0};
    ppoll(&readable, 1, &time, nullptr);
    ssize_t n;
    while ((n = read(device, room.data(), room.size())) > 0) {
      if (n < ssize_t{sizeof(iphdr)} || (room[0] >> 4) != 4) continue;  // IPv6's own talk
      held.push_back({Seconds() + delay, {room.begin(), room.begin() + n}});
      ExchangeAddresses(held.back().packet);
    }
    for (const double now = Seconds(); !held.empty() && held.front().due <= now; held.pop_front()) {
      const std::vector<char>& packet = held.front().packet;
      Check(static_cast<int>(write(device, packet.data(), packet.size())), "the TUN device");
    }
  }
}

}  // namespace

DelayedPath::DelayedPath(double delay) {
  Check(unshare(CLONE_NEWNET), "a network namespace");
  const int device = OpenDevice();
  forwarder_ = std::make_unique<Child>([&] { Forward(device, delay); }, LoadCpu());
  close(device);
}

}  // namespace bench
