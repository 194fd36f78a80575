#pragma once

#include <chrono>
#include <cstddef>
#include <system_error>
#include <vector>

#include "conn/service_loop.h"
#include "reactor/channel.h"
#include "socket/socket_address.h"

namespace xtcp::internal {

// Tries the addresses of one dial in turn, each with an equal share of the time that is left. What it
// leaves behind is a connected socket, or an error.
//
// Loop thread only.
class Dialer final : public Channel {
 public:
  using Time = std::chrono::nanoseconds;  // of sys::Now

  // Who dials.
  class Owner {
   public:
    // Whether a stop ends the dial before the next address is tried.
    virtual bool DialIsStopped() const = 0;

    // The end of the dial. `reset`: an errno, when the peer has reset the connection already.
    virtual void DialSucceeded(ConnectedSocket socket, int reset) = 0;
    virtual void DialFailed(std::error_code error) = 0;

    // `Retire` was called, and nothing refers to the dialer any more.
    virtual void DialerGone() = 0;

   protected:
    ~Owner() = default;
  };

  // All must outlive the dialer.
  Dialer(Owner& owner, EventLoop& loop, const Options& options)
      : owner_(owner), loop_(loop), options_(options) {}

  // From `since` on the dial may take `connect_timeout` in all. While it waits for its addresses, too.
  void StartClock(Time since);

  void Begin(std::vector<SocketAddress> addresses);

  // Gives the current address up, without a word to the owner.
  void Drop();

  // It is done: the owner hears `DialerGone` at the end of the iteration.
  void Retire();

 private:
  void HandleEvents(std::uint32_t events) override;
  void HandleTimer() override;
  void HandleRetired() override { owner_.DialerGone(); }

  void TryNext();
  bool Try(const SocketAddress& address);
  void ArmForShare();
  void Succeed(const SocketAddress& address, int reset);

  Owner& owner_;
  EventLoop& loop_;
  const Options& options_;
  std::vector<SocketAddress> addresses_;
  std::size_t next_address_ = 0;
  Time due_{0};                 // of the whole dial
  std::error_code last_error_;  // of the last address tried
  bool retired_ = false;
};

}  // namespace xtcp::internal
