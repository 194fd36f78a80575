#include <xtcp/daemon.h>
#include <xtcp/error.h>

#include <memory>
#include <new>
#include <utility>

#include "base/callback_scope.h"
#include "base/scope.h"
#include "base/thread_end.h"
#include "loop/group.h"
#include "loop/loop_access.h"
#include "server/server_impl.h"
#include "server/signal_channel.h"
#include "server/signal_handlers.h"

namespace xtcp {
namespace internal {

struct ServerAccess {
  using Impl = Server::Impl;
  static const std::shared_ptr<Impl>& ImplOf(const Server& server) { return server.impl_; }
};

namespace {

// ---- What can be run until a signal comes. Each keeps the inside alive, so that the handle may be
// destroyed in a callback.

class ServerDaemon final : public Daemon {
 public:
  explicit ServerDaemon(const Server& server) : server_(ServerAccess::ImplOf(server)) {}
  Group& group() override { return server_->group(); }
  std::error_code Run() override { return server_->Serve(); }
  StopReport Stop(StopMode mode) override { return server_->Stop(mode); }
  void BeginDrain() override { server_->Drain(DrainMode::kOwnListeners); }

  // It ends by itself when it has drained. That nothing is connected does not mean that nobody has
  // begun to connect.
  bool IsDrained() override { return false; }

 private:
  const std::shared_ptr<ServerAccess::Impl> server_;
};

class GroupDaemon final : public Daemon {
 public:
  explicit GroupDaemon(const LoopGroup& group) : group_(LoopAccess::GroupOf(group)) {}
  Group& group() override { return *group_; }
  std::error_code Run() override { return group_->Run(); }
  StopReport Stop(StopMode mode) override { return group_->Stop(mode); }
  void BeginDrain() override { group_->Drain(DrainMode::kOwnListeners); }

  // It goes on when the last of its members has ended.
  bool IsDrained() override { return !group_->HasMembers(); }

 private:
  const std::shared_ptr<Group> group_;
};

// ---- Running it.

std::error_code RunUntilSignal(const std::shared_ptr<Daemon>& daemon, const SignalPlan& plan,
                               StopReport* report) {
  SignalHandlers handlers;
  if (!handlers.Claim()) return Errc::kAlreadyUsed;
  const auto channel = std::make_shared<SignalChannel>(plan.drain);
  std::error_code error = channel->Open();
  if (!error) error = channel->Begin(channel, daemon);
  if (error) return error;
  const AtScopeEnd end([&] {  // even when this thread ends in a callback
    const CancellationOff off;
    handlers.Remove();
    channel->Leave();
  });
  error = handlers.Install(plan.signals, channel->count());
  if (error) return error;
  error = daemon->Run();
  // One that runs elsewhere, or was never to run, is not to be stopped.
  if (error == Errc::kAlreadyUsed || error == Errc::kNotListening) return error;
  if (report != nullptr) *report = daemon->Stop(StopMode::kGracefullyAndWait);
  return error ? error : channel->error();
}

template <typename Kind, typename Handle>
std::error_code RunUntilSignal(const Handle& handle, const SignalPlan& plan, StopReport* report) {
  if (report != nullptr) *report = {};
  if (InsideCallback()) return Errc::kWouldDeadlock;
  try {
    return RunUntilSignal(std::make_shared<Kind>(handle), plan, report);
  } catch (const std::bad_alloc&) {
    return Errc::kNoMemory;
  }
}

}  // namespace
}  // namespace internal

std::error_code ServeUntilSignal(Server& server, const SignalPlan& plan, StopReport* report) {
  return internal::RunUntilSignal<internal::ServerDaemon>(server, plan, report);
}

std::error_code RunUntilSignal(LoopGroup& group, const SignalPlan& plan, StopReport* report) {
  return internal::RunUntilSignal<internal::GroupDaemon>(group, plan, report);
}

}  // namespace xtcp
