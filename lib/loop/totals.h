#pragma once

#include <cstdint>

#include "sys/sync.h"

namespace xtcp::internal {

// The totals of one service on one loop. Single writer: the loop. They are read on any thread, so
// they are atomics, and relaxed ones because they order nothing.
struct LoopTotals {
  sys::Atomic<std::uint64_t> received_bytes{0};
  sys::Atomic<std::uint64_t> accepted_bytes{0};
  sys::Atomic<std::uint64_t> written_bytes{0};
  sys::Atomic<std::uint64_t> unacked_bytes{0};
  sys::Atomic<std::uint64_t> exceptions{0};
};

// What the loop has counted of the sends of one connection: those accepted, except for those that
// are still pending in its `Intake`, and the bytes written. Single writer: the loop.
struct SendAccount {
  sys::Atomic<std::uint64_t> accepted_bytes{0};
  sys::Atomic<std::uint64_t> accepted_sends{0};
  sys::Atomic<std::uint64_t> written_bytes{0};  // published after what was accepted
};

// Adds `n` to `counter`, for its only writer. Release: a thread that reads one count sees those
// that were counted before it.
[[gnu::always_inline]] inline void Add(sys::Atomic<std::uint64_t>& counter, std::uint64_t n) {
  counter.store(counter.load(std::memory_order_relaxed) + n, std::memory_order_release);
}

}  // namespace xtcp::internal
