#pragma once

#include <xtcp/stop_mode.h>

#include <atomic>
#include <chrono>
#include <cstdint>
#include <memory>
#include <system_error>

#include "loop/group.h"
#include "reactor/channel.h"
#include "reactor/loop_thread.h"
#include "server/signal_handlers.h"

namespace xtcp::internal {

// What signals end: a server, or a group. It may be called on any thread.
class Daemon {
 public:
  virtual ~Daemon() = default;
  virtual Group& group() = 0;

  // Serves until the end.
  virtual std::error_code Run() = 0;
  virtual StopReport Stop(StopMode mode) = 0;

  // Goes on serving what is there, and takes nothing new; and whether nothing is there any more.
  virtual void BeginDrain() = 0;
  virtual bool IsDrained() = 0;
};

// Acts on signals, on the first loop of a group. The group keeps it until it has left its loop, or
// the loops have ended.
//
//   a handler ──► SignalCount ──► the loop ──► Daemon::BeginDrain, Stop
//
// Thread safety: `Begin` and `Leave` are for the thread that waits for the daemon's end; everything
// else is the loop's.
class SignalChannel final : public Channel {
 public:
  explicit SignalChannel(std::chrono::milliseconds drain) : drain_(drain) {}

  // Opens the descriptor for the handlers, and begins to live on the loop.
  std::error_code Open();
  std::error_code Begin(const std::shared_ptr<SignalChannel>& self,
                        const std::shared_ptr<Daemon>& daemon);

  // Leaves the loop, now or soon. Nothing writes to the descriptor any more.
  void Leave();

  SignalCount& count() { return count_; }

  // When the daemon has ended: why signals could not be seen, if so.
  std::error_code error() const { return error_; }

 private:
  using Time = std::chrono::nanoseconds;  // of sys::Now

  void HandlePosted() XTCP_ON_LOOP override;
  void HandleEvents(std::uint32_t events) XTCP_ON_LOOP override;
  void HandleTimer() XTCP_ON_LOOP override;
  void HandleRetired() XTCP_ON_LOOP override;
  std::error_code Watch() XTCP_ON_LOOP;
  void Post();

  const std::chrono::milliseconds drain_;
  SignalCount count_;
  Group* group_ = nullptr;        // alive while the loop runs, and while somebody waits
  std::weak_ptr<Daemon> daemon_;  // gone when nobody waits for its end any more
  bool kept_ = false;             // by the group; the waiting thread's
  std::atomic<bool> leaves_{false};

  bool begun_ = false;
  bool has_timer_ = false;
  bool retired_ = false;
  std::uint32_t seen_ = 0;  // signals
  Time drained_at_{0};
  std::error_code error_;
};

}  // namespace xtcp::internal
