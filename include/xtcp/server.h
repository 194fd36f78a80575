#pragma once

#include <xtcp/address.h>
#include <xtcp/export.h>
#include <xtcp/loop.h>
#include <xtcp/options.h>
#include <xtcp/stop_mode.h>

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <string_view>
#include <system_error>
#include <vector>

namespace xtcp {

// Totals since the start. Always accepted_bytes = written_bytes + unsent_bytes.
//
// `accept_errors`: failed accept4(2) calls, EAGAIN and EINTR apart; and accepted sockets on which
// the kernel refused an option, which are served all the same. (Those of a listener that `Listen`
// opened inherit their options; what is refused there is only logged.)
struct ServerStats {
  std::uint64_t accepted = 0;       // connections admitted
  std::uint64_t refused = 0;        // over `max_connections`, or their set-up failed
  std::uint64_t closed = 0;         // of those admitted
  std::uint64_t accept_errors = 0;  // see above
  std::uint64_t exceptions = 0;     // that left user code

  std::uint64_t received_bytes = 0;  // taken from the kernel
  std::uint64_t accepted_bytes = 0;  // by `Send`
  std::uint64_t written_bytes = 0;   // taken by the kernel
  std::uint64_t unsent_bytes = 0;    // queued now, or dropped at a close
  std::uint64_t unacked_bytes = 0;   // of connections that have closed
};

// Listens, accepts, and serves connections on one or more event loops.
//
// Thread safety: any thread, except that `Listen` and `Adopt` come before `Serve`.
// Lifetime: neither copied nor moved. It serves once. Connections may outlive it; sending on them
// then gives `Errc::kClosed`.
class XTCP_API Server {
 public:
  // Throws `std::invalid_argument` as `Options` says. Opens nothing yet.
  explicit Server(Options options);

  // The same, on the loops of `group`, which other servers, connections, timers and tasks share;
  // `Options::loops` is ignored. Listeners are spread over the loops, and accepted connections are dealt
  // to all of them in turn. Limits, totals, stop and report are the server's own.
  Server(Options options, LoopGroup& group);

  // `Stop(kImmediately)`, then waits for `Serve` to end. Inside a callback it does not wait: the
  // inside lives on until `Serve` has returned.
  ~Server();

  Server(const Server&) = delete;
  Server& operator=(const Server&) = delete;

  // `Listen`, then `Serve`.
  [[nodiscard]] std::error_code ListenAndServe(std::string_view address);

  // Opens one more listening socket: "host:port", ":port" (one IPv6 socket that also takes IPv4;
  // IPv4 only where IPv6 is off), "[::]:port" (IPv6 only), "[v6]:port", "unix:/path",
  // "unix:@abstract". Port 0 lets the system choose; `Addresses` tells. A socket file on which
  // nobody answers is removed first, and the file goes when listening ends, if it is still ours. A
  // name stands for its first address; its look-up may wait. Returns `Errc::kBadAddress`,
  // `kHostNotFound`, `kAlreadyUsed` (after `Serve`), or the system's error; then nothing is left
  // behind.
  [[nodiscard]] std::error_code Listen(std::string_view address);

  // Takes over a listening stream socket made elsewhere, made non-blocking and close-on-exec here.
  // With `Errc::kNotListening`, `kAlreadyUsed` (after `Serve`, or it was taken over before) or
  // another error nothing changes hands.
  [[nodiscard]] std::error_code Adopt(int listening_fd);

  // Serves on this thread, which runs the first loop, and on `Options::loops` - 1 more, which it
  // starts and joins; in those all signals are blocked but the synchronous ones and SIGPROF. The
  // first loop accepts and deals connections to the loops in turn; a connection stays on its loop.
  // Where descriptors or memory run out, its listeners rest together for 75 ms at a time; another
  // server in the process rests for itself. Returns no error when a stop ended it or came first;
  // `Errc::kNotListening` without a listener, `kAlreadyUsed` the second time, `kWouldDeadlock`
  // inside a callback. When the last listener is dead, or a loop fails, it stops gracefully and
  // returns that error.
  [[nodiscard]] std::error_code Serve();

  // Begins to serve on a shared group, and returns at once; nothing is accepted before the group runs.
  // `Errc::kNotListening`, `kAlreadyUsed`, `kStopped` after a stop of the server or the group,
  // `kNoMemory`; `kNoLoop` on a server with loops of its own, which runs in `Serve` only. `Serve` on a
  // shared group is `Start`, and waits until the server has ended.
  [[nodiscard]] std::error_code Start();

  // Stops listening, and every connection; `StopMode` says how. Needs no memory and no descriptor.
  // Any thread, any callback, any number of times, also before `Serve`; not async-signal-safe.
  StopReport Stop(StopMode mode);

  // The same, and never waits, whatever the mode: `ended` is called once, as a task on one of the loops,
  // with the report that a waiting stop would have returned; before this call returns when nothing ever
  // ran, or when all is over. Several may be given; each is called.
  StopReport Stop(StopMode mode, std::function<void(const StopReport&)> ended);

  // Whether a stop has begun, or `Serve` has ended.
  bool IsStopped() const;

  // Where it listens, or listened, in the order of `Listen` and `Adopt`.
  XTCP_CONTAINERS std::vector<Address> Addresses() const;

  // Connections that are admitted and not closed. One that delivers `kClosed` does not count any more:
  // its descriptor is closed, and its place under `Options::max_connections` is free.
  std::size_t ConnectionCount() const;

  // The totals now; after `Serve` the final ones.
  ServerStats Stats() const;

 private:
  class XTCP_PRIVATE Impl;
  std::shared_ptr<Impl> impl_;
};

}  // namespace xtcp
