#include "server/acceptor.h"

#include <netinet/in.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <xtcp/error.h>

#include <cstring>
#include <new>
#include <utility>

#include "base/check.h"
#include "base/log.h"
#include "sys/syscalls.h"

namespace xtcp::internal {

namespace {

bool IsWildcard(const SocketAddress& address) {
  if (address.base.sa_family == AF_INET) return address.ipv4.sin_addr.s_addr == INADDR_ANY;
  if (address.base.sa_family != AF_INET6) return false;
  const in6_addr& host = address.ipv6.sin6_addr;
  // These are "::" and "::ffff:0.0.0.0", to which an adopted listener may be bound.
  return IN6_IS_ADDR_UNSPECIFIED(&host) ||
         (IN6_IS_ADDR_V4MAPPED(&host) && host.s6_addr32[3] == INADDR_ANY);
}

}  // namespace

Acceptor::Acceptor(UniqueFd fd, const SocketAddress& address, SocketFile file,
                   const TcpOptions* apply, bool adopted)
    : address_(address),
      file_(std::move(file)),
      apply_(apply),
      adopted_(adopted),
      every_address_(IsWildcard(address)) {
  fd_ = std::move(fd);
}

std::error_code Acceptor::Start(EventLoop& loop, AcceptSink& sink, AcceptPause& pause) {
  XTCP_DCHECK(loop_ == nullptr, "a listener is started twice");
  loop_ = &loop;
  sink_ = &sink;
  pause_ = &pause;
  try {
    loop.AddTimer();
  } catch (const std::bad_alloc&) {
    loop_ = nullptr;
    return Errc::kNoMemory;
  }
  return loop.Watch(this, EPOLLIN);
}

void Acceptor::Close() {
  if (!fd_.valid()) return;
  if (loop_ != nullptr) {
    loop_->AssertOnThread();
    loop_->Unwatch(this);
    loop_->Disarm(this);
    loop_->RemoveTimer();
  }
  fd_.Reset();
  file_.Remove();
}

void Acceptor::HandleEvents(std::uint32_t) {
  const std::chrono::nanoseconds until(pause_->until.load(std::memory_order_relaxed));
  if (until.count() != 0 && sys::Now() < until) {  // another listener has just failed
    Sleep(until);
    return;
  }
  for (int i = 0; i < kAcceptsPerTurn && fd_.valid(); ++i) {
    // A connection that waits is not accepted only to be reset: another process may share the
    // listener, and serve it.
    if (!sink_->MayAccept(adopted_)) return;
    AcceptResult accepted = Accept(fd_.get());
    const AcceptOutcome outcome = ClassifyAccept(accepted.error);
    if (outcome == AcceptOutcome::kConnection) {
      Take(std::move(accepted));
      continue;
    }
    if (outcome == AcceptOutcome::kDone) {
      if (DrainIsOver()) EndDrain();
      return;
    }
    // A Unix listener that is shut down for reading has EINVAL after the last one.
    const bool exhausted = outcome == AcceptOutcome::kExhausted;
    if (drain_until_.count() != 0 && outcome != AcceptOutcome::kNext &&
        (!exhausted || DrainIsOver())) {
      EndDrain();
      return;
    }
    if (accepted.error != EINTR) sink_->AcceptFailed();
    if (outcome == AcceptOutcome::kNext) continue;
    if (exhausted) {
      Rest(accepted.error);
    } else {
      const std::error_code error{accepted.error, std::system_category()};
      XTCP_LOG(kError, "a listener died: %s", error.message().c_str());
      Close();
      sink_->ListenerDied(error);
    }
    return;
  }
}

void Acceptor::HandleTimer() {
  // It does not try at once: the poller knows which listeners have something to accept.
  if (loop_->Rewatch(this, EPOLLIN)) loop_->Arm(this, sys::Now() + kExhaustedPause);
  if (drain_until_.count() == 0) return;
  if (DrainIsOver()) {
    HandleEvents(0);  // the last ones, and the end
  } else {
    loop_->ArmNoLaterThan(this, drain_until_);
  }
}

// ---- Draining.

void Acceptor::Hide(DrainMode mode) {
  if (!fd_.valid() || std::exchange(hidden_, true)) return;
  if (adopted_ && mode == DrainMode::kOwnListeners) {
    Close();
  } else if (address_.base.sa_family == AF_UNIX) {
    file_.Remove();
    sys::Shutdown(fd_.get(), SHUT_RD);
  } else if (const int error = HideListener(fd_.get())) {
    XTCP_LOG(kWarn, "a listener that drains is not hidden from new clients: %s",
             std::error_code(error, std::system_category()).message().c_str());
  }
}

void Acceptor::Drain(DrainMode mode, std::chrono::nanoseconds grace) {
  if (drain_until_.count() != 0) return;
  const bool closed_before = closed();
  Hide(mode);
  if (closed()) {
    if (!closed_before) sink_->ListenerDrained();
    return;
  }
  // All who come to a Unix listener are complete: there is no handshake.
  const bool waits = address_.base.sa_family != AF_UNIX;
  drain_until_ = sys::Now() + (waits ? grace : grace.zero());
  loop_->ArmNoLaterThan(this, drain_until_);
}

bool Acceptor::DrainIsOver() const {
  return drain_until_.count() != 0 && sys::Now() >= drain_until_;
}

void Acceptor::EndDrain() {
  Close();
  sink_->ListenerDrained();
}

void Acceptor::Take(AcceptResult accepted) {
  if (!sink_->MayAdmit()) return;  // closed at once
  ConnectedSocket socket;
  SocketAddress own = address_;
  std::error_code error;
  if (every_address_) error = LocalAddressOf(accepted.fd.get(), &own);
  if (apply_ != nullptr && ApplyTcpOptions(accepted.fd.get(), *apply_) > 0) sink_->AcceptFailed();
  if (!error) {
    try {
      socket.ends = ConnectionEnds(own, accepted.peer);
      socket.fd = std::move(accepted.fd);
    } catch (const std::bad_alloc&) {
      error = Errc::kNoMemory;
    }
  }
  if (error) {
    sink_->SetUpFailed(error);
  } else {
    sink_->Accepted(std::move(socket), *loop_);
  }
}

void Acceptor::Rest(int error) {
  const std::chrono::nanoseconds now = sys::Now();
  const std::chrono::nanoseconds logged_at(pause_->logged_at.load(std::memory_order_relaxed));
  if (logged_at.count() == 0 || now - logged_at >= std::chrono::seconds(1)) {
    pause_->logged_at.store(now.count(), std::memory_order_relaxed);
    XTCP_LOG(kWarn, "accepting rests for lack of descriptors or memory: %s",
             std::error_code(error, std::system_category()).message().c_str());
  }
  const std::chrono::nanoseconds until = now + kExhaustedPause;
  pause_->until.store(until.count(), std::memory_order_relaxed);
  // It sleeps a little longer than the others, so that the next descriptor is theirs.
  Sleep(until + std::chrono::nanoseconds(1));
}

void Acceptor::Sleep(std::chrono::nanoseconds until) {
  // A listener that cannot be put to rest in the poller leaves it; it would be reported for ever.
  if (loop_->Rewatch(this, 0)) loop_->Unwatch(this);
  loop_->Arm(this, until);
}

}  // namespace xtcp::internal
