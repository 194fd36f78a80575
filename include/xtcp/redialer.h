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

// How long to wait before the next dial. The wait begins at `first`, grows by `factor` after each
// failure up to `most`, and is cut at random by up to the part `jitter` of itself, so that many clients
// of one server do not come back at the same moment. It begins anew once a connection has received a
// packet, or has lived for `most`.
//
// `first` is at least 1 ms and not more than `most`, `factor` is at least 1, `jitter` from 0 to 1; else
// std::invalid_argument.
struct Backoff {
  std::chrono::milliseconds first{100};
  std::chrono::milliseconds most{30'000};
  double factor = 2;
  double jitter = 0.5;
};

// Keeps one connection to an address: dials, and dials again after a failure or an end. Each try is a
// connection of its own, made from the same options, with the usual events; a failed one is
// `Handler::OnDialFailed`.
//
// Thread safety: any thread.
// Lifetime: neither copied nor moved. Its connections may outlive it.
class XTCP_API Redialer {
 public:
  // Throws std::invalid_argument as `Options` and `Backoff` say. Opens nothing yet.
  Redialer(Options options, std::string address, Loop loop, Backoff backoff = {});

  // `Stop(kImmediately)`, and waits until the last connection has ended and no callback of it runs;
  // inside a callback it does not wait.
  ~Redialer();

  Redialer(const Redialer&) = delete;
  Redialer& operator=(const Redialer&) = delete;

  // Begins to dial, and returns at once. `Errc::kBadAddress`, `kAlreadyUsed` the second time, `kStopped`
  // after a stop of it or of its group, `kNoLoop`, `kNoMemory`.
  [[nodiscard]] std::error_code Start();

  // The connection, from before its `kConnected` to before its `kClosed`; else null.
  ConnPtr conn() const;

  // Ends the waiting, the dial or the connection; no further dial begins. As `Server::Stop`.
  StopReport Stop(StopMode mode);
  StopReport Stop(StopMode mode, std::function<void(const StopReport&)> ended);

 private:
  class Impl;
  std::shared_ptr<Impl> impl_;
};

}  // namespace xtcp
