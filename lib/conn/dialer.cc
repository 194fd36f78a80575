#include "conn/dialer.h"

#include <sys/epoll.h>
#include <xtcp/error.h>

#include <cerrno>
#include <new>
#include <utility>

#include "base/check.h"
#include "socket/socket.h"
#include "sys/syscalls.h"

namespace xtcp::internal {

void Dialer::StartClock(Time since) {
  due_ = since + options_.connect_timeout;
  if (options_.connect_timeout.count() > 0) loop_.Arm(this, due_);
}

void Dialer::Begin(std::vector<SocketAddress> addresses) {
  XTCP_DCHECK(!addresses.empty(), "a dial begins without an address");
  XTCP_DCHECK(addresses_.empty(), "a dial begins twice");
  addresses_ = std::move(addresses);
  TryNext();
}

void Dialer::HandleEvents(std::uint32_t) {
  const ConnectResult result = FinishConnect(fd_.get());
  if (result.outcome == ConnectOutcome::kInProgress) return;
  if (result.outcome == ConnectOutcome::kEstablished) {
    Succeed(addresses_[next_address_ - 1], result.error);
    return;
  }
  last_error_ = {result.error, std::system_category()};
  Drop();
  TryNext();
}

// The share of this address is over, or, if no address is known yet, all of the time.
void Dialer::HandleTimer() {
  last_error_ = {ETIMEDOUT, std::system_category()};
  Drop();
  TryNext();
}

void Dialer::TryNext() {
  while (next_address_ < addresses_.size()) {
    if (owner_.DialIsStopped()) {
      last_error_ = Errc::kStopped;
      break;
    }
    if (Try(addresses_[next_address_++])) return;
    Drop();
  }
  loop_.Disarm(this);
  owner_.DialFailed(last_error_);
}

bool Dialer::Try(const SocketAddress& address) {
  const TcpOptions tcp{options_.no_delay, options_.keep_alive, options_.keep_alive_period,
                       options_.user_timeout};
  bool in_progress = false;
  last_error_ = StartConnect(address, tcp, &fd_, &in_progress);
  if (last_error_) return false;
  if (!in_progress) {
    Succeed(address, 0);
    return true;
  }
  // Edge-triggered, so that a socket which is writable and yet not connected is not reported for
  // ever.
  last_error_ = loop_.Watch(this, EPOLLOUT | EPOLLET);
  if (last_error_) return false;
  ArmForShare();
  return true;
}

void Dialer::ArmForShare() {
  if (options_.connect_timeout.count() == 0) return;
  const Time now = sys::Now();
  const auto sharing = static_cast<Time::rep>(addresses_.size() - next_address_ + 1);
  const Time left = due_ > now ? due_ - now : Time{0};
  loop_.Arm(this, now + left / sharing);
}

void Dialer::Succeed(const SocketAddress& address, int reset) {
  loop_.Unwatch(this);
  loop_.Disarm(this);
  std::error_code error;
  try {
    SocketAddress own;
    error = LocalAddressOf(fd_.get(), &own);
    if (!error) {
      owner_.DialSucceeded({std::move(fd_), ConnectionEnds(own, address)}, reset);
      return;
    }
  } catch (const std::bad_alloc&) {
    error = Errc::kNoMemory;
  }
  Drop();
  owner_.DialFailed(error);
}

void Dialer::Drop() {
  if (!fd_.valid()) return;
  loop_.Unwatch(this);
  loop_.Disarm(this);
  fd_.Reset();
}

void Dialer::Retire() {
  if (std::exchange(retired_, true)) return;
  Drop();
  loop_.Disarm(this);
  loop_.Retire(this);
}

}  // namespace xtcp::internal
