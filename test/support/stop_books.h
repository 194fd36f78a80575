#pragma once

#include <sys/ioctl.h>
#include <xtcp/conn.h>
#include <xtcp/stop_mode.h>

#include <array>
#include <chrono>
#include <cstdint>
#include <functional>
#include <string>
#include <string_view>
#include <thread>
#include <utility>
#include <vector>

#include "support/deadline.h"
#include "support/leak_guard.h"
#include "support/raw_peer.h"

// What the tests of stops share: the modes by name, reports and books that can be compared, threads
// that are joined whatever happens.
namespace xtcp::test {

inline constexpr std::array kModes = {StopMode::kImmediately, StopMode::kGracefullyButNotWait,
                                      StopMode::kGracefullyAndWait};
inline constexpr std::array kGracefulModes = {StopMode::kGracefullyButNotWait,
                                              StopMode::kGracefullyAndWait};

// What is stopped.
enum class Target { kServer, kAccepted, kDialled };

inline std::string_view NameOf(Target target) {
  switch (target) {
    case Target::kServer:
      return "server";
    case Target::kAccepted:
      return "accepted connection";
    case Target::kDialled:
      return "dialled connection";
  }
  return "?";
}

inline std::string_view Name(StopMode mode) {
  switch (mode) {
    case StopMode::kImmediately:
      return "immediately";
    case StopMode::kGracefullyButNotWait:
      return "gracefully, not waiting";
    case StopMode::kGracefullyAndWait:
      return "gracefully and wait";
  }
  return "?";
}

// A report as one line, to compare whole reports and to see both when they differ.
inline std::string Text(const StopReport& report) {
  return std::to_string(report.connections) + " connections, " + std::to_string(report.cut) +
         " cut, " + std::to_string(report.unsent_bytes) + " unsent, " +
         std::to_string(report.unacked_bytes) + " unacked" +
         (report.error ? ", " + report.error.message() : "");
}

// What a call that does not wait may report (M20).
inline std::string OnlyConnections(std::size_t connections) {
  return Text({.connections = connections});
}

// B1 for one connection that has ended: what is wrong, a line each. `got` is the peer's own count.
// A peer that closed or reset without reading threw away what its kernel had acknowledged: then
// only the upper bound holds.
inline std::string BookProblems(const ConnStats& stats, std::uint64_t got,
                                bool peer_read_all = true) {
  std::string problems;
  const auto check = [&](bool holds, std::string_view text) {
    if (!holds) problems.append(text).append("\n");
  };
  check(stats.accepted_bytes == stats.written_bytes + stats.unsent_bytes(),
        "B1: accepted is not written + unsent");
  check(stats.written_bytes <= stats.accepted_bytes, "B1: more written than accepted");
  check(stats.unacked_bytes <= stats.written_bytes, "B1: more unacknowledged than written");
  check(got <= stats.written_bytes, "B1: the peer got more than was written");
  if (peer_read_all) {
    check(got + stats.unacked_bytes >= stats.written_bytes,
          "B1: bytes are neither at the peer nor unacknowledged");
  }
  if (problems.empty()) return problems;
  return problems + "  accepted " + std::to_string(stats.accepted_bytes) + ", written " +
         std::to_string(stats.written_bytes) + ", unacknowledged " +
         std::to_string(stats.unacked_bytes) + ", the peer got " + std::to_string(got) + "\n";
}

// Whether descriptors and threads are back to what they were: what the leak guard asks once a test
// case, for tests that go through many cells.
inline bool BackTo(const Holdings& before) {
  return WaitUntil([&] {
    const Holdings now = Holdings::Now();
    return now.descriptors <= before.descriptors && now.threads <= before.threads;
  });
}

// Bytes that wait in the kernel at `fd` for their reader.
inline std::size_t Unread(int fd) {
  int bytes = 0;
  return ::ioctl(fd, FIONREAD, &bytes) == 0 ? static_cast<std::size_t>(bytes) : 0;
}

// Reads to the end of a stream whose listener may be closing. The kernel resets those whom nobody has
// accepted yet, but now and then forgets one whose handshake ends at that very moment (Linux 6.18,
// also with plain sockets: one in some thousand such closes). That one is told when it sends.
inline End ReadToEnd(RawPeer& peer) {
  const End end = peer.ReadAll(nullptr, std::chrono::seconds(1));
  if (end != End::kTimeout) return end;
  static_cast<void>(peer.SendAll("?"));
  return peer.ReadAll();
}

// Threads that are joined at the end of the scope, also when a failed REQUIRE leaves it. What they
// wait for must have a deadline, or be set by `before_join`.
class Threads {
 public:
  Threads() = default;
  explicit Threads(std::function<void()> before_join) : before_join_(std::move(before_join)) {}
  ~Threads() { Join(); }
  Threads(const Threads&) = delete;
  Threads& operator=(const Threads&) = delete;

  template <typename Body>
  void Add(Body body) {
    threads_.emplace_back(std::move(body));
  }

  void Join() {
    if (before_join_) before_join_();
    for (std::thread& thread : threads_) thread.join();
    threads_.clear();
  }

 private:
  std::function<void()> before_join_;
  std::vector<std::thread> threads_;
};

}  // namespace xtcp::test
