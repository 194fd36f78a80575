#include <xtcp/error.h>
#include <xtcp/redialer.h>

#include <stdexcept>
#include <utility>

#include "base/callback_scope.h"
#include "base/thread_end.h"
#include "loop/loop_access.h"
#include "server/redialer_impl.h"
#include "types/validate_options.h"

// The handle: what it hands on to.

namespace xtcp {

using internal::CancellationOff;

Redialer::Redialer(Options options, std::string address, Loop loop, Backoff backoff) {
  internal::ValidateOptions(options);
  internal::ValidateBackoff(backoff);
  impl_ = std::make_shared<Impl>(std::move(options), std::move(address),
                                 internal::LoopAccess::ContextOf(loop), backoff);
}

Redialer::~Redialer() {
  const CancellationOff off;
  impl_->Stop(StopMode::kImmediately);
  if (!internal::InsideCallback()) impl_->WaitForEnd();
}

// Those that may outlast the handle keep the inside themselves.
std::error_code Redialer::Start() {
  const CancellationOff off;
  const std::shared_ptr<Impl> impl = impl_;
  return impl->Start();
}

ConnPtr Redialer::conn() const { return impl_->conn(); }

StopReport Redialer::Stop(StopMode mode) {
  const CancellationOff off;
  const std::shared_ptr<Impl> impl = impl_;
  return impl->Stop(mode);
}

StopReport Redialer::Stop(StopMode mode, std::function<void(const StopReport&)> ended) {
  const CancellationOff off;
  const std::shared_ptr<Impl> impl = impl_;
  return impl->Stop(mode, std::move(ended));
}

}  // namespace xtcp
