#pragma once

#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <latch>
#include <span>
#include <thread>
#include <vector>

#include "support/clock.h"
#include "support/listen.h"
#include "support/message.h"

// Sends of 64 bytes from other threads than the loop's. It uses nothing of any library.
//
// A peer is a program "peers/send_NAME PRODUCERS CONNECTIONS". It listens and says where; accepts
// that many connections; so many threads send on all of them in turn; and when all is written it
// closes them and prints its figures. `load drain` reads, and checks every byte.
namespace bench {

inline constexpr double kSendSeconds = 0.4;
inline constexpr std::size_t kSendLimit = 256 << 10;  // bytes that may be queued on a connection

using MessageBytes = std::span<const std::byte, kMessageBytes>;

// What one producer sends until the time is over. `send(index, bytes)` sends on that connection,
// and waits for room. Returns the number of messages.
template <typename Send>
std::uint64_t Produce(std::uint64_t producer, std::size_t connections, const Send& send) {
  const std::uint64_t end =
      ReadNs(CLOCK_MONOTONIC) + static_cast<std::uint64_t>(kSendSeconds * 1e9);
  Message message;
  std::uint64_t turn = 0;
  for (; turn % 64 != 0 || ReadNs(CLOCK_MONOTONIC) < end; ++turn) {
    FillMessage(&message, producer, turn / connections);
    send(turn % connections, std::as_bytes(std::span(message.words)));
  }
  return turn;
}

// Prints what it takes that so many threads send, until `finish()`, which writes all that is
// queued, has returned. Returns the number of messages.
template <typename Send, typename Finish>
std::uint64_t MeasureSends(std::size_t producers, std::size_t connections, const Send& send,
                           const Finish& finish) {
  std::atomic<std::uint64_t> messages{0};
  std::latch ready(static_cast<std::ptrdiff_t>(producers) + 1);
  std::vector<std::jthread> threads;
  for (std::size_t producer = 0; producer < producers; ++producer) {
    threads.emplace_back([&, producer] {
      ready.arrive_and_wait();
      messages += Produce(producer, connections, send);
    });
  }
  const std::uint64_t cpu_before = ReadNs(CLOCK_PROCESS_CPUTIME_ID);
  const std::uint64_t begin = ReadNs(CLOCK_MONOTONIC);
  ready.arrive_and_wait();
  threads.clear();
  finish();
  const auto ns = static_cast<double>(ReadNs(CLOCK_MONOTONIC) - begin);
  const auto cpu = static_cast<double>(ReadNs(CLOCK_PROCESS_CPUTIME_ID) - cpu_before);
  const auto sent = static_cast<double>(messages);
  std::printf("messages %.0f\nmessages_per_s %.9g\ncpu_ns %.9g\n", sent, sent / ns * 1e9,
              cpu / sent);
  std::fflush(stdout);
  return messages;
}

// The next connection of `listener`; it does not block, and waits for nothing before it sends.
inline int AcceptOne(int listener) {
  const int fd = accept4(listener, nullptr, nullptr, SOCK_NONBLOCK | SOCK_CLOEXEC);
  const int one = 1;
  if (fd < 0 || setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one) != 0) {
    std::perror("accept");
    std::exit(1);
  }
  return fd;
}

}  // namespace bench
