#pragma once

#include <xtcp/address.h>
#include <xtcp/export.h>
#include <xtcp/handler.h>
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

namespace internal {
struct ServerAccess;
}

// Totals since the start. It is always true that accepted_bytes = written_bytes + unsent_bytes.
//
// `accept_errors` counts failed accept4(2) calls, except EAGAIN and EINTR, and accepted sockets on
// which the kernel refused an option, which are served all the same. (Sockets of a listener that
// `Listen` opened inherit their options; what is refused there is only logged.)
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
// Thread safety: any thread, except that `Listen` and `Adopt` come before `Serve` or `Start`.
// Lifetime: neither copied nor moved. It serves once. Connections may outlive it; sending on them
// then returns `Errc::kClosed`.
class XTCP_API Server {
 public:
  // Makes a server with loops of its own, `Options::loops` of them, which run in `Serve`. Throws
  // `std::invalid_argument` as `Options` says. It opens nothing yet.
  explicit Server(Options options);

  // Makes a server on the loops of `group`, which other servers, connections, timers and tasks
  // share; `Options::loops` is ignored. Listeners are spread over the loops, and accepted
  // connections are dealt to all of them in turn. Limits, totals, stop and report are the server's
  // own.
  Server(Options options, LoopGroup& group);

  // Calls `Stop(kImmediately)`, and waits until the last connection has ended and no callback runs.
  // Inside a callback it does not wait: its internals stay alive until the server has ended. It
  // cannot wait for a `Serve` that another thread is only about to call: join that thread first.
  ~Server();

  Server(const Server&) = delete;
  Server& operator=(const Server&) = delete;

  // Calls `Listen`, and then `Serve`.
  [[nodiscard]] std::error_code ListenAndServe(std::string_view address);

  // Opens one more listening socket: "host:port", ":port" (one IPv6 socket that takes IPv4 as well;
  // IPv4 only when IPv6 is off), "[::]:port" (IPv6 only), "[v6]:port", "unix:/path",
  // "unix:@abstract". Port 0 lets the system choose; `Addresses` tells. A name means its first
  // address; its look-up may wait.
  //
  // A socket file on which nobody answers is removed first, and the file is removed when listening
  // ends, if it is still ours. Returns `Errc::kBadAddress`, `kHostNotFound`, `kAlreadyUsed` (after
  // `Serve` or `Start`), or the system's error; then nothing is left over.
  [[nodiscard]] std::error_code Listen(std::string_view address);

  // Takes over a listening stream socket that was made elsewhere, and makes it non-blocking and
  // close-on-exec. With `Errc::kNotListening`, `kAlreadyUsed` (after `Serve` or `Start`, or it was
  // taken over before) or another error it stays the caller's.
  [[nodiscard]] std::error_code Adopt(int listening_fd);

  // Serves on this thread, which runs the first loop, and on `Options::loops` - 1 more, which it
  // starts and joins; in those all signals are blocked but the synchronous ones and SIGPROF. The
  // first loop accepts, and deals connections to the loops in turn; a connection stays on its loop.
  // When descriptors or memory run out, its listeners rest together for 75 ms at a time; another
  // server in the process rests for itself. On a shared group it is `Start`, and then waits until
  // the server has ended, while the group goes on.
  //
  // Returns no error if a stop ended it or came first; `Errc::kNotListening` without a listener,
  // `kAlreadyUsed` the second time, `kWouldDeadlock` inside a callback. When the last listener is
  // dead, or a loop fails, it stops gracefully and returns that error.
  [[nodiscard]] std::error_code Serve();

  // Begins to serve on a shared group, and returns at once; nothing is accepted before the group
  // runs. Returns `Errc::kNotListening`, `kAlreadyUsed`, `kNoMemory`, `kStopped` after a stop of
  // the server or the group, or `kNoLoop` for a server with loops of its own, which runs in `Serve`
  // only.
  [[nodiscard]] std::error_code Start();

  // Stops listening, and stops every connection; `StopMode` says how. It needs no memory and no
  // descriptor. Any thread, any callback, any number of times, even before `Serve`; it is not
  // async-signal-safe.
  StopReport Stop(StopMode mode);

  // Does the same and never waits, whatever the mode: `ended` is called once, as a task on one of
  // the loops, with the report that a waiting stop would have returned. It is called before this
  // call returns if nothing ever ran, or if all is over. Several may be given, and each is called.
  StopReport Stop(StopMode mode, std::function<void(const StopReport&)> ended);

  // Stops listening, and goes on serving: for a restart in which no client is reset. New clients
  // are refused; those whose handshake had begun are accepted for `Options::drain_grace` more, and
  // then the listener is closed. A Unix socket's file is removed at once. A listener from `Adopt`
  // is released at once, without accepting what waits there, which is for the others that share it;
  // unless `mode` says otherwise. Each connection gets `Handler::OnDrain` once.
  //
  // `Serve` returns, without an error, when the grace is over and the last connection has ended; a
  // stop may come at any time. Before `Serve` it has `Serve` take the clients that wait, and then
  // end in this way. A second drain does nothing. It needs no memory. Any thread, any callback.
  //
  // What it cannot do: a client whose handshake takes longer than the grace is reset, and so is one
  // for which there is no descriptor or place, and one that another socket with SO_REUSEPORT on the
  // same port would have got. docs/draining.md says how it works.
  void Drain(DrainMode mode = DrainMode::kOwnListeners);
  bool IsDraining() const;

  // Calls `visit` once with every connection whose first event was delivered before this call, and
  // that has not closed when its loop comes to it: as a callback of that connection, even while it
  // is paused. One whose first event was not delivered is either visited, or sees in its first
  // event everything that happened before this call. With several loops, visits run at the same
  // time.
  //
  // It returns before the visits; `visit` is destroyed after the last one. An exception ends the
  // connection. Returns `Errc::kStopped` when the server has ended, or `kNoMemory`. Any thread, any
  // callback.
  [[nodiscard]] std::error_code ForEach(std::function<void(const ConnPtr&)> visit);

  // Returns whether a stop has begun, or the server has ended.
  bool IsStopped() const;

  // Returns the addresses at which it listens, or listened, in the order of `Listen` and `Adopt`.
  XTCP_CONTAINERS std::vector<Address> Addresses() const;

  // Returns the number of connections that are admitted and not closed. One that delivers `kClosed`
  // does not count any more: its descriptor is closed, and its place under
  // `Options::max_connections` is free.
  std::size_t ConnectionCount() const;

  // Returns the totals now, which are final once the server has ended.
  ServerStats Stats() const;

 private:
  friend struct internal::ServerAccess;
  class XTCP_PRIVATE Impl;
  std::shared_ptr<Impl> impl_;
};

}  // namespace xtcp
