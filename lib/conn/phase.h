#pragma once

#include <cstdint>

namespace xtcp::internal {

// How far a connection is on the way to its end, as its loop sees it. Input and output end
// separately:
//
//   kServing ── peer's FIN ──► kFlushing ── all written ──────────────────────────► kClosed
//      │                          │                                                   ▲
//      └────── graceful stop ─────┴──► kStopping ── all written, FIN ──► kLingering ──┘
//                                                     peer's FIN, error, or linger_timeout
//
// Errors, deadlines and an immediate stop lead from each of them to kClosed.
enum class Phase : std::uint8_t {
  kServing,    // reads, unpacks, writes
  kFlushing,   // the peer's end of stream was read; what is queued is written
  kStopping,   // a graceful stop: what was accepted is written, what comes is discarded
  kLingering,  // our FIN is out; what comes is discarded until the peer's end of stream
  kClosed,
};

// Returns whether a connection may move from one phase to the other.
constexpr bool MayFollow(Phase from, Phase to) {
  switch (to) {
    case Phase::kServing:
      return false;
    case Phase::kFlushing:
      return from == Phase::kServing;
    case Phase::kStopping:
      return from == Phase::kServing || from == Phase::kFlushing;
    case Phase::kLingering:
      return from == Phase::kStopping;
    case Phase::kClosed:
      return from != Phase::kClosed;
  }
  return false;
}

// What senders on any thread need to know of a connection's life. It changes under the connection's
// lock, so that a send is wholly before a change or wholly after it.
enum class SendState : std::uint8_t {
  kNew,        // made by NewConn, not dialled: Send queues
  kResolving,  // looking up the name, which nothing can interrupt: no stop waits for it
  kDialing,    // Send queues
  kOpen,       // Send queues, and the loop writes
  kRefusing,  // Send is refused: a stop has begun, the peer has ended its stream, or writing failed
  kClosed,
};

// Returns whether a connection may move from one state to the other.
constexpr bool MayFollow(SendState from, SendState to) {
  switch (to) {
    case SendState::kNew:
      return false;
    case SendState::kResolving:
      return from == SendState::kNew;
    case SendState::kDialing:
      return from == SendState::kNew || from == SendState::kResolving;
    case SendState::kOpen:
      return from == SendState::kNew || from == SendState::kDialing;
    case SendState::kRefusing:
      // From the first two when a stop, or a reset, was ahead of the first event.
      return from == SendState::kNew || from == SendState::kDialing || from == SendState::kOpen;
    case SendState::kClosed:
      return from != SendState::kClosed;
  }
  return false;
}

}  // namespace xtcp::internal
