#include <xtcp/error.h>
#include <xtcp/server.h>

#include <utility>

#include "base/callback_scope.h"
#include "base/thread_end.h"
#include "loop/group.h"
#include "loop/loop_access.h"
#include "server/server_impl.h"
#include "types/validate_options.h"

// The handle: what it hands on to.

namespace xtcp {

using internal::CancellationOff;
using internal::InsideCallback;

Server::Server(Options options) {
  internal::ValidateOptions(options);
  const std::size_t loops = options.loops;
  impl_ = std::make_shared<Impl>(std::move(options), internal::Group::Make(loops), true);
}

Server::Server(Options options, LoopGroup& group) {
  internal::ValidateOptions(options);
  impl_ = std::make_shared<Impl>(std::move(options), internal::LoopAccess::GroupOf(group), false);
}

Server::~Server() {
  const CancellationOff off;
  impl_->Stop(StopMode::kImmediately);
  if (!InsideCallback()) impl_->WaitForEnd();
}

// Calls during which the `Server` may be destroyed keep the internals alive themselves. Calls that
// make system calls outside the loops cannot be cancelled in the middle.
std::error_code Server::ListenAndServe(std::string_view address) {
  const std::shared_ptr<Impl> impl = impl_;
  const std::error_code error = InsideCallback() ? Errc::kWouldDeadlock : Listen(address);
  return error ? error : impl->Serve();
}

std::error_code Server::Serve() {
  const std::shared_ptr<Impl> impl = impl_;
  return impl->Serve();
}

std::error_code Server::Start() {
  const std::shared_ptr<Impl> impl = impl_;
  return impl->Start();
}

StopReport Server::Stop(StopMode mode, std::function<void(const StopReport&)> ended) {
  const CancellationOff off;
  const std::shared_ptr<Impl> impl = impl_;
  return impl->Stop(mode, std::move(ended));
}

StopReport Server::Stop(StopMode mode) {
  const CancellationOff off;
  const std::shared_ptr<Impl> impl = impl_;
  return impl->Stop(mode);
}

std::error_code Server::Listen(std::string_view address) {
  const CancellationOff off;
  return impl_->Listen(address);
}

std::error_code Server::Adopt(int listening_fd) {
  const CancellationOff off;
  return impl_->Adopt(listening_fd);
}

void Server::Drain(DrainMode mode) {
  const std::shared_ptr<Impl> impl = impl_;
  impl->Drain(mode);
}

bool Server::IsDraining() const { return impl_->IsDraining(); }

std::error_code Server::ForEach(std::function<void(const ConnPtr&)> visit) {
  const CancellationOff off;
  const std::shared_ptr<Impl> impl = impl_;
  return impl->ForEach(std::move(visit));
}

bool Server::IsStopped() const { return impl_->IsStopped(); }

std::vector<Address> Server::Addresses() const { return impl_->Addresses(); }

std::size_t Server::ConnectionCount() const { return impl_->ConnectionCount(); }

ServerStats Server::Stats() const { return impl_->Stats(); }

}  // namespace xtcp
