#include "conn/dialed_conn.h"

#include <xtcp/error.h>

#include <cerrno>
#include <utility>

#include "base/callback_scope.h"
#include "base/thread_end.h"
#include "conn/dialer.h"
#include "socket/resolve.h"
#include "types/validate_options.h"

namespace xtcp::internal {

DialedConn::DialedConn(Options options)
    : ConnImpl(std::make_shared<ConnContext>(options.protocol, options.send_buffer_limit),
               SendState::kNew),
      options_(std::move(options)) {}

std::error_code DialedConn::DialAndServe(std::string_view address) {
  if (InsideCallback()) return Errc::kWouldDeadlock;
  const std::shared_ptr<DialedConn> keep = shared_from_this();
  if (!EnterState(SendState::kNew, SendState::kResolving)) return Errc::kAlreadyUsed;
  try {
    const std::error_code error = Dial(address);
    End(error);
    return error;
  } catch (const ForcedUnwind&) {
    End(established_ ? std::error_code{} : std::error_code{ECANCELED, std::system_category()});
    throw;
  }
}

void DialedConn::End(std::error_code error) {
  const CancellationOff off;
  worker_ = nullptr;
  dialer_ = nullptr;
  if (error) CloseUnopened(error);
  {
    // What the application gave goes on this thread, and must not wait for it.
    CallbackScope scope;
    UserData().reset();
    options_.handler.reset();
  }
  ReleaseWaiters();
}

std::error_code DialedConn::Dial(std::string_view address) {
  if (StopWasAsked()) return Errc::kStopped;
  const Resolution resolution = [&] {
    const CancellationOff off;
    return ResolveForDial(address);
  }();
  EnterState(SendState::kResolving, SendState::kDialing);
  if (StopWasAsked()) return Errc::kStopped;
  if (resolution.error) return resolution.error;

  Worker worker(*this, options_, shared_context(), 1);
  if (const std::error_code error = worker.Open()) return error;
  Dialer dialer(*this, worker, options_, resolution.addresses);
  worker_ = &worker;
  dialer_ = &dialer;
  dialer.Begin();
  const std::error_code broken = worker.Run();
  // A loop that broke before the connection was established.
  return dialer_ != nullptr ? broken : dialer.result();
}

void DialedConn::HandlePosted() {
  if (established_) {
    ConnImpl::HandlePosted();
  } else if (dialer_ != nullptr && StopWasAsked()) {
    dialer_->Cancel();
  }
}

}  // namespace xtcp::internal

namespace xtcp {

ConnPtr NewConn(Options options) {
  internal::ValidateOptions(options);
  return std::make_shared<internal::DialedConn>(std::move(options));
}

}  // namespace xtcp
