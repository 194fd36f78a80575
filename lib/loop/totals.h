#pragma once

#include <atomic>
#include <cstdint>

namespace xtcp::internal {

// Totals of one service on one loop. Single writer: the loop; read from any thread, hence relaxed
// atomics.
struct LoopTotals {
  std::atomic<std::uint64_t> received_bytes{0};
  std::atomic<std::uint64_t> accepted_bytes{0};
  std::atomic<std::uint64_t> written_bytes{0};
  std::atomic<std::uint64_t> unacked_bytes{0};
  std::atomic<std::uint64_t> exceptions{0};
};

// What the loop has counted of the sends of one connection: accepted, but for those that are pending,
// and written. Single writer: the loop.
struct SendAccount {
  std::atomic<std::uint64_t> accepted_bytes{0};
  std::atomic<std::uint64_t> accepted_sends{0};
  std::atomic<std::uint64_t> written_bytes{0};  // published after what was accepted
};

// `counter += n` for its only writer. Release: a reader of a count sees those that were counted
// before it.
[[gnu::always_inline]] inline void Add(std::atomic<std::uint64_t>& counter, std::uint64_t n) {
  counter.store(counter.load(std::memory_order_relaxed) + n, std::memory_order_release);
}

}  // namespace xtcp::internal
