#pragma once

#include <xtcp/conn.h>
#include <xtcp/stop_mode.h>

#include <array>
#include <chrono>
#include <cstddef>
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

// The kernel takes less for a peer that does not read.
inline constexpr std::size_t kTooMuch = 12 << 20;

// What is stopped.
enum class Target { kServer, kAccepted, kDialled };

std::string_view NameOf(Target target);

std::string_view Name(StopMode mode);

// A report as one line, to compare whole reports and to see both when they differ.
std::string Text(const StopReport& report);

// What a call that does not wait may report (M20).
std::string OnlyConnections(std::size_t connections);

// B1 for one connection that has ended: what is wrong, a line each. `got` is the peer's own count.
// A peer that closed or reset without reading threw away what its kernel had acknowledged: then
// only the upper bound holds.
std::string BookProblems(const ConnStats& stats, std::uint64_t got, bool peer_read_all = true);

// Whether descriptors and threads are back to what they were: what the leak guard asks once a test
// case, for tests that go through many cells.
bool BackTo(const Holdings& before);

// Bytes that wait in the kernel at `fd` for their reader.
std::size_t Unread(int fd);

// Reads to the end of a stream whose listener may be closing. The kernel resets those whom nobody has
// accepted yet, but now and then forgets one whose handshake ends at that very moment (Linux 6.18,
// also with plain sockets: one in some thousand such closes). That one is told when it sends.
End ReadToEnd(RawPeer& peer);

// Threads that are joined at the end of the scope, also when a failed REQUIRE leaves it. What they
// wait for must have a deadline, or be set by `before_join`.
class Threads {
 public:
  Threads();
  explicit Threads(std::function<void()> before_join);
  ~Threads();
  Threads(const Threads&) = delete;
  Threads& operator=(const Threads&) = delete;

  template <typename Body>
  void Add(Body body) {
    threads_.emplace_back(std::move(body));
  }

  void Join();

 private:
  std::function<void()> before_join_;
  std::vector<std::thread> threads_;
};

}  // namespace xtcp::test
