#pragma once

#include <chrono>
#include <cstddef>
#include <system_error>
#include <vector>

#include "conn/service_loop.h"
#include "reactor/channel.h"
#include "socket/socket_address.h"

namespace xtcp::internal {

// Tries the addresses of one dial in turn, each with an equal share of the time that is left:
//
//   Begin ─► an address: connect ──► established ───────────────────────► DialSucceeded
//                  ▲         └─────► failed, or its share is over ─┬────► DialFailed
//                  └──────────────── the next address ◄────────────┘ (no address is left)
//
// Loop thread only.
class Dialer final : public Channel {
 public:
  using Time = std::chrono::nanoseconds;  // of sys::Now

  // The connection that dials.
  class Owner {
   public:
    // Returns whether a stop ends the dial before the next address is tried.
    virtual bool DialIsStopped() const XTCP_ON_LOOP = 0;

    // The dial has ended. `reset` is an errno if the peer has reset the connection already, and
    // else 0.
    virtual void DialSucceeded(ConnectedSocket socket, int reset) XTCP_ON_LOOP = 0;
    virtual void DialFailed(std::error_code error) XTCP_ON_LOOP = 0;

    // `Retire` was called, and nothing refers to the dialer any more.
    virtual void DialerGone() XTCP_ON_LOOP = 0;

   protected:
    ~Owner() = default;
  };

  // All must outlive the dialer.
  Dialer(Owner& owner, EventLoop& loop, const Options& options)
      : owner_(owner), loop_(loop), options_(options) {}

  // Has the dial take `connect_timeout` in all, counted from `since`, including the time for which
  // it waits for its addresses.
  void StartClock(Time since) XTCP_ON_LOOP;

  // Begins to try these addresses.
  void Begin(std::vector<SocketAddress> addresses) XTCP_ON_LOOP;

  // Gives the current address up; the owner hears nothing.
  void Drop() XTCP_ON_LOOP;

  // Ends the dialer: the owner hears `DialerGone` at the end of the iteration.
  void Retire() XTCP_ON_LOOP;

 private:
  void HandleEvents(std::uint32_t events) XTCP_ON_LOOP override;
  void HandleTimer() XTCP_ON_LOOP override;
  void HandleRetired() XTCP_ON_LOOP override { owner_.DialerGone(); }

  // Tries the next address with which a connection can begin, or reports the end.
  void TryNext() XTCP_ON_LOOP;

  // Returns whether the address is under way, or a connection to it is established.
  bool Try(const SocketAddress& address) XTCP_ON_LOOP;

  // Arms the timer for the share of the address that is under way.
  void ArmForShare() XTCP_ON_LOOP;
  void Succeed(const SocketAddress& address, int reset) XTCP_ON_LOOP;

  Owner& owner_;
  EventLoop& loop_;
  const Options& options_;
  std::vector<SocketAddress> addresses_;
  std::size_t next_address_ = 0;
  Time due_{0};                 // when the whole dial is over
  std::error_code last_error_;  // of the last address tried
  bool retired_ = false;
};

}  // namespace xtcp::internal
