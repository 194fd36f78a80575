#pragma once

#include <arpa/inet.h>
#include <netinet/tcp.h>
#include <sys/epoll.h>
#include <sys/socket.h>

#include <cerrno>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <ctime>

// What every mode of the load needs of the system. Whatever fails ends the program.
namespace load {

using std::size_t;
using std::uint64_t;

[[noreturn]] inline void Die(const char* what) {
  std::fprintf(stderr, "load: %s: %s\n", what, std::strerror(errno));
  std::_Exit(1);
}

[[noreturn]] inline void DieOfAnswer() {
  errno = EBADMSG;
  Die("a wrong answer");
}

inline uint64_t ReadClock(clockid_t clock) {
  timespec now{};
  if (clock_gettime(clock, &now) != 0) Die("clock_gettime");
  return static_cast<uint64_t>(now.tv_sec) * 1'000'000'000 + static_cast<uint64_t>(now.tv_nsec);
}
inline uint64_t Now() { return ReadClock(CLOCK_MONOTONIC); }

// CPU time that a process has used, all its threads together.
inline uint64_t CpuOf(pid_t pid) {
  clockid_t clock;
  if (clock_getcpuclockid(pid, &clock) != 0) Die("no such process");
  return ReadClock(clock);
}

inline void Figure(const char* name, double value) { std::printf("%s %.9g\n", name, value); }

inline double Ratio(uint64_t a, uint64_t b) {
  return static_cast<double>(a) / static_cast<double>(b);
}

inline sockaddr_in Loopback(int port) {
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_port = htons(static_cast<std::uint16_t>(port));
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  return address;
}

// With `flags` SOCK_NONBLOCK the connection may not stand yet.
inline int Connect(int port, int flags) {
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

}  // namespace load
