#include "conn/dialer.h"

#include <sys/epoll.h>
#include <xtcp/error.h>

#include <cerrno>
#include <new>
#include <utility>

namespace xtcp::internal {

Dialer::Dialer(DialedConn& conn, Worker& worker, const Options& options,
               const std::vector<SocketAddress>& addresses)
    : conn_(conn), worker_(worker), options_(options), addresses_(addresses) {}

void Dialer::Begin() {
  if (ClaimPost()) worker_.context().mailbox.Push(this);
}

void Dialer::Cancel() { GiveUp(Errc::kStopped); }

void Dialer::HandlePosted() {
  if (conn_.dialer_ == nullptr) return;  // cancelled in the same turn
  due_ = sys::Now() + options_.connect_timeout;
  TryNext();
}

void Dialer::HandleEvents(std::uint32_t) {
  const ConnectResult result = FinishConnect(fd_.get());
  if (result.outcome == ConnectOutcome::kInProgress) return;
  if (result.outcome == ConnectOutcome::kEstablished) {
    Establish(addresses_[next_address_ - 1], result.error);
    return;
  }
  last_error_ = {result.error, std::system_category()};
  Drop();
  TryNext();
}

void Dialer::HandleTimer() {
  last_error_ = {ETIMEDOUT, std::system_category()};
  Drop();
  TryNext();
}

void Dialer::TryNext() {
  while (next_address_ < addresses_.size()) {
    if (conn_.StopWasAsked()) {
      Cancel();
      return;
    }
    if (Try(addresses_[next_address_++])) return;
    Drop();
  }
  GiveUp(last_error_);
}

// Whether the address is under way, or a connection to it is established.
bool Dialer::Try(const SocketAddress& address) {
  const TcpOptions tcp{options_.no_delay, options_.keep_alive, options_.keep_alive_period,
                       options_.user_timeout};
  bool in_progress = false;
  last_error_ = StartConnect(address, tcp, &fd_, &in_progress);
  if (last_error_) return false;
  if (!in_progress) {
    Establish(address, 0);
    return true;
  }
  // Edge-triggered: a socket that is writable and yet not connected is not reported for ever.
  last_error_ = worker_.loop().Watch(this, EPOLLOUT | EPOLLET);
  if (last_error_) return false;
  ArmForShare();
  return true;
}

void Dialer::ArmForShare() {
  if (options_.connect_timeout.count() == 0) return;
  const Time now = sys::Now();
  const auto sharing = static_cast<Time::rep>(addresses_.size() - next_address_ + 1);
  const Time left = due_ > now ? due_ - now : Time{0};
  worker_.loop().Arm(this, now + left / sharing);
}

void Dialer::Establish(const SocketAddress& address, int reset) {
  worker_.loop().Unwatch(this);
  worker_.loop().Disarm(this);
  std::error_code error;
  try {
    SocketAddress own;
    error = LocalAddressOf(fd_.get(), &own);
    if (!error) {
      AcceptedSocket socket{std::move(fd_), ConnectionEnds(own, address)};
      conn_.dialer_ = nullptr;
      if (reset != 0) conn_.NoteReset(reset);
      error = worker_.Serve(conn_.shared_from_this(), std::move(socket), EventType::kConnected);
      conn_.established_ = !error;
    }
  } catch (const std::bad_alloc&) {
    error = Errc::kNoMemory;
  }
  if (error) GiveUp(error);
}

void Dialer::GiveUp(std::error_code error) {
  Drop();
  conn_.dialer_ = nullptr;
  result_ = error;
  worker_.loop().Quit();
}

void Dialer::Drop() {
  if (!fd_.valid()) return;
  worker_.loop().Unwatch(this);
  worker_.loop().Disarm(this);
  fd_.Reset();
}

}  // namespace xtcp::internal
