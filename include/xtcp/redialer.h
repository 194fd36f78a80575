#pragma once

#include <xtcp/conn.h>
#include <xtcp/export.h>
#include <xtcp/loop.h>
#include <xtcp/options.h>
#include <xtcp/stop_mode.h>

#include <chrono>
#include <functional>
#include <memory>
#include <string>
#include <system_error>

namespace xtcp {

// How long to wait before the next dial. The wait begins anew, with `first`, once a connection has
// received a packet, or has lived for `most`. Impossible values throw std::invalid_argument where
// the backoff is given.
struct Backoff {
  // The wait after the first failure; at least 1 ms.
  std::chrono::milliseconds first{100};

  // The longest wait; at least `first`.
  std::chrono::milliseconds most{30'000};

  // By how much the wait grows after each further failure; at least 1.
  double factor = 2;

  // The part of each wait that is left to chance, from 0 to 1: a wait is cut by up to this part of
  // itself, so that many clients of one server do not come back at the same moment.
  double jitter = 0.5;
};

// Keeps one connection to an address: it dials, and dials again after a failure or an end. Each try
// is a connection of its own, made from the same options, with the usual events; for one that fails
// `Handler::OnDialFailed` is called.
//
// Thread safety: any thread.
// Lifetime: neither copied nor moved. Its connections may outlive it.
class XTCP_API Redialer {
 public:
  // Throws std::invalid_argument as `Options` and `Backoff` say. It opens nothing yet. The
  // connections live on `loop`.
  Redialer(Options options, std::string address, Loop loop, Backoff backoff = {});

  // Calls `Stop(kImmediately)`, and waits until the last connection has ended and none of its
  // callbacks runs. It does not wait for the group, and inside a callback it waits for nothing.
  ~Redialer();

  Redialer(const Redialer&) = delete;
  Redialer& operator=(const Redialer&) = delete;

  // Begins to dial, and returns at once. Errors: `Errc::kBadAddress`; `kAlreadyUsed` the second
  // time; `kStopped` after a stop of it or of its group; `kNoLoop`; `kNoMemory`. Any thread, any
  // callback.
  [[nodiscard]] std::error_code Start();

  // Returns the connection from just before its `kConnected` to just before its `kClosed`, and null
  // at all other times. Any thread.
  ConnPtr conn() const;

  // Ends the wait, the dial or the connection, and no further dial begins. Modes, report and
  // `ended` are those of `Server::Stop`. Any thread, any callback.
  StopReport Stop(StopMode mode);
  StopReport Stop(StopMode mode, std::function<void(const StopReport&)> ended);

 private:
  class XTCP_PRIVATE Impl;
  std::shared_ptr<Impl> impl_;
};

}  // namespace xtcp
