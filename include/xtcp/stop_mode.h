#pragma once

#include <cstddef>
#include <cstdint>
#include <system_error>

namespace xtcp {

// How a stop ends connections. Once any of them has begun, `Send` is refused with
// `Errc::kStopping`. A later stop can only be more immediate; a softer one changes nothing.
enum class StopMode {
  // Close now. What was accepted but not yet written is dropped, and counted as unsent.
  kImmediately,

  // Write all that was accepted, shut down the write side, read and discard until the peer's end of
  // stream, then close. It ends early on an error, and in any case `Options::linger_timeout` after
  // it began. A peer that takes everything in that time gets every byte and a FIN. The call returns
  // at once.
  kGracefullyButNotWait,

  // Do the same, and return when all of it is done: every `kClosed` has been delivered, every
  // descriptor is closed, and no callback runs or will run. It never softens a stop under way:
  // after `kImmediately` it just waits. Inside a callback of this library it does not wait; it
  // starts the graceful stop and reports `Errc::kWouldDeadlock`.
  kGracefullyAndWait,
};

// Which listeners a drain treats as its own. One from `Server::Adopt` may be shared with other
// processes, which go on accepting from it.
enum class DrainMode {
  kOwnListeners,  // those of `Listen`; from an adopted one nothing more is accepted
  kAdoptedToo,    // all of them: for the last process that accepts from an adopted one
};

// The report of a stop.
//
// `kImmediately` and `kGracefullyButNotWait` return at once and fill in `connections` only. Every
// `kGracefullyAndWait`, even one made after the end, returns the same final account of the whole
// stop.
struct StopReport {
  // `Errc::kWouldDeadlock` for a waiting stop inside a callback, and otherwise none.
  std::error_code error{};

  // The number of connections that were open when the stop began, or were admitted while it ran.
  std::size_t connections = 0;

  // The number of those that `linger_timeout` or a later `kImmediately` ended.
  std::size_t cut = 0;

  // Bytes that `Send` had accepted and the kernel never took, summed over `connections`.
  std::uint64_t unsent_bytes = 0;

  // Bytes that the kernel took and the peer's kernel had not acknowledged just before `close`: an
  // upper bound on what can still be lost. 0 does not prove that the peer's application read them.
  std::uint64_t unacked_bytes = 0;
};

}  // namespace xtcp
