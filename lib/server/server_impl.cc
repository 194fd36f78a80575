#include "server/server_impl.h"

#include <xtcp/error.h>

#include <algorithm>
#include <cerrno>
#include <new>
#include <utility>

#include "base/callback_scope.h"
#include "base/log.h"
#include "base/scope.h"
#include "base/thread_end.h"
#include "socket/resolve.h"
#include "sys/syscalls.h"

namespace xtcp {

using internal::Acceptor;
using internal::ConnContext;
using internal::ConnectedSocket;
using internal::Group;
using internal::InsideCallback;
using internal::MutexLock;
using internal::Ref;
using internal::ServerLoop;
using internal::SocketAddress;
using internal::SocketFile;
using internal::Stops;
using internal::UniqueFd;

Server::Impl::Impl(Options options, std::shared_ptr<Group> group, bool owns_group)
    : options_(std::move(options)),
      tcp_{options_.no_delay, options_.keep_alive, options_.keep_alive_period,
           options_.user_timeout},
      group_(std::move(group)),
      owns_group_(owns_group) {}

// ---- Listening.

std::error_code Server::Impl::Listen(std::string_view address) {
  {
    MutexLock lock(mu_);
    if (life_ != Life::kIdle) return Errc::kAlreadyUsed;
  }
  const internal::Resolution resolution = internal::ResolveForListen(address);
  if (resolution.error) return resolution.error;
  UniqueFd fd;
  SocketFile file;
  std::error_code error = internal::OpenListener(
      resolution.addresses.front(), resolution.any_family,
      {.backlog = options_.backlog, .reuse_port = options_.reuse_port, .tcp = tcp_}, &fd, &file);
  if (error) return error;
  error = AddListener(fd, file, nullptr, false);
  if (error) {
    fd.Reset();
    file.Remove();
  }
  return error;
}

std::error_code Server::Impl::Adopt(int fd) {
  {
    MutexLock lock(mu_);
    if (life_ != Life::kIdle) return Errc::kAlreadyUsed;
  }
  if (const std::error_code error = internal::PrepareAdopted(fd)) return error;
  UniqueFd owned(fd);
  SocketFile none;
  const std::error_code error = AddListener(owned, none, &tcp_, true);
  if (error) (void)owned.Release();  // it stays the caller's
  return error;
}

std::error_code Server::Impl::AddListener(UniqueFd& fd, SocketFile& file,
                                          const internal::TcpOptions* apply, bool adopted) {
  SocketAddress bound;
  if (const std::error_code error = internal::LocalAddressOf(fd.get(), &bound)) return error;
  if (!internal::IsTcp(bound.get())) apply = nullptr;
  try {
    MutexLock lock(mu_);
    if (life_ != Life::kIdle) return Errc::kAlreadyUsed;
    for (const std::unique_ptr<Acceptor>& acceptor : acceptors_) {
      if (acceptor->Owns(fd.get())) return Errc::kAlreadyUsed;  // adopted twice
    }
    addresses_.reserve(addresses_.size() + 1);
    acceptors_.reserve(acceptors_.size() + 1);
    Address address = internal::ToAddress(bound);
    acceptors_.push_back(
        std::make_unique<Acceptor>(std::move(fd), bound, std::move(file), apply, adopted));
    addresses_.push_back(std::move(address));
  } catch (const std::bad_alloc&) {
    return Errc::kNoMemory;
  }
  return {};
}

std::vector<Address> Server::Impl::Addresses() const {
  MutexLock lock(mu_);
  return addresses_;
}

// ---- Beginning.

std::error_code Server::Impl::Start() { return owns_group_ ? Errc::kNoLoop : Begin(); }

std::error_code Server::Impl::Serve() {
  if (InsideCallback()) return Errc::kWouldDeadlock;
  const std::error_code error = Begin();
  if (error == Errc::kStopped) return {};  // a stop came first
  if (error) return error;
  if (owns_group_) return ServeOnOwnGroup();
  WaitForEnd();
  MutexLock lock(mu_);
  return error_;
}

std::error_code Server::Impl::ServeOnOwnGroup() {
  const internal::AtScopeEnd end([this] { End(); });  // even when this thread ends in a callback
  const std::error_code failure = group_->Run();
  MutexLock lock(mu_);
  return error_ ? error_ : failure;
}

std::error_code Server::Impl::Begin() {
  const internal::CancellationOff off;
  {
    MutexLock lock(mu_);
    FollowGroup();
    if (life_ != Life::kIdle) return Errc::kAlreadyUsed;
    if (stops_ != Stops::kNone) {
      life_ = Life::kEnded;
      CloseListeners();  // what was opened after the stop
      return Errc::kStopped;
    }
    if (acceptors_.empty()) return Errc::kNotListening;
    life_ = Life::kStarting;
  }
  std::error_code error = MakeLoops();
  if (!error) error = FindLimit();
  Group::Attached attached = Group::Attached::kRefused;
  if (!error) {
    self_ = shared_from_this();
    loops_left_.store(loops_.size());
    listening_.store(acceptors_.size());
    {
      // A stop that came meanwhile is left for the loops to see.
      MutexLock lock(mu_);
      life_ = Life::kServing;
      NoteStops(stops_);
    }
    attached = group_->Attach(*this);
    if (attached == Group::Attached::kRefused) error = Errc::kStopped;
  }
  if (error) {
    const std::shared_ptr<Impl> self = std::move(self_);
    End();
    return error;
  }
  if (attached == Group::Attached::kRunning) GroupRuns();
  EndsWithoutLoops();
  return {};
}

std::error_code Server::Impl::MakeLoops() {
  try {
    loops_.reserve(group_->size());
    for (std::size_t i = 0; i < group_->size(); ++i) {
      internal::LoopCore& core = group_->core(i);
      loops_.push_back(std::make_unique<ServerLoop>(
          *this, core, options_,
          Ref<ConnContext>::Make(core.shared_context(), options_.protocol,
                                 options_.send_buffer_limit)));
    }
  } catch (const std::bad_alloc&) {
    return Errc::kNoMemory;
  }
  return {};
}

std::error_code Server::Impl::FindLimit() {
  max_connections_ = options_.max_connections;
  if (max_connections_ != 0) return {};
  rlimit limit{};
  if (sys::GetRlimit(RLIMIT_NOFILE, &limit) != 0) return {errno, std::system_category()};
  max_connections_ = limit.rlim_cur - std::min<rlim_t>(64, limit.rlim_cur / 2);
  return {};
}

void Server::Impl::GroupRuns() {
  ran_.store(true);
  for (const std::unique_ptr<ServerLoop>& loop : loops_) loop->Begin();
}

void Server::Impl::LoopBegins(ServerLoop& loop) {
  for (std::size_t i = 0; i < acceptors_.size(); ++i) {
    if (loops_[LoopOfListener(i)].get() != &loop) continue;
    if (acceptors_[i]->closed()) {  // by a drain that came first
      ListenerDrained();
      continue;
    }
    const std::error_code error = acceptors_[i]->Start(loop.loop(), *this, accept_pause_);
    if (error) Fail(error);
  }
  bool end_loops = false;
  {
    // A stop that came while `Begin` ran found no loops to end.
    MutexLock lock(mu_);
    end_loops = stops_ != Stops::kNone && open_ == 0;
  }
  if (end_loops) EndLoops();
}

// ---- Accepting.

bool Server::Impl::MayAccept(bool adopted) const {
  const bool let_go = adopted && drains_.load() && drain_mode_.load() == DrainMode::kOwnListeners;
  return !let_go && !loops_.front()->IsStopping();
}

bool Server::Impl::MayAdmit() {
  {
    MutexLock lock(mu_);
    FollowGroup();
    if (stops_ != Stops::kNone || open_ >= max_connections_) {
      ++refused_;
      return false;
    }
    ++open_;
    ++accepted_;
  }
  if (!owns_group_) group_->ConnectionBegan();
  return true;
}

void Server::Impl::Accepted(ConnectedSocket socket, internal::EventLoop& accepting) {
  ServerLoop& loop = *loops_[next_loop_.fetch_add(1, std::memory_order_relaxed) % loops_.size()];
  if (&loop.loop() == &accepting) {
    loop.Serve(std::move(socket));
  } else {
    loop.Deal(std::move(socket));
  }
}

void Server::Impl::AcceptFailed() {
  MutexLock lock(mu_);
  ++accept_errors_;
}

void Server::Impl::ListenerDied(std::error_code error) {
  if (IsDraining()) {
    ListenerDrained();
  } else if (listening_.fetch_sub(1) == 1) {
    Fail(error);
  }
}

void Server::Impl::ListenerDrained() {
  if (listening_.fetch_sub(1) > 1) return;
  bool over = false;
  {
    MutexLock lock(mu_);
    drained_ = true;
    over = HasDrained();
  }
  if (over) Stop(StopMode::kGracefullyButNotWait);
}

bool Server::Impl::HasDrained() const { return drained_ && open_ == 0 && stops_ == Stops::kNone; }

void Server::Impl::ConnectionRefused(std::error_code error) {
  if (error) {
    XTCP_LOG_LIMITED(kWarn, "a connection was refused: %s", error.message().c_str());
  }
  bool last = false, drained = false;
  {
    MutexLock lock(mu_);
    FollowGroup();
    --open_;
    if (error) {
      --accepted_;
      ++refused_;
    } else {
      ++closed_;
    }
    last = stops_ != Stops::kNone && open_ == 0;
    drained = HasDrained();
  }
  if (!owns_group_) group_->ConnectionEnded({});
  if (last) EndLoops();
  if (drained) Stop(StopMode::kGracefullyButNotWait);
}

void Server::Impl::ConnectionEnded(const StopReport& report) {
  bool last = false, drained = false;
  {
    MutexLock lock(mu_);
    FollowGroup();
    --open_;
    ++closed_;
    if (stops_ != Stops::kNone) {
      report_.cut += report.cut;
      report_.unsent_bytes += report.unsent_bytes;
      report_.unacked_bytes += report.unacked_bytes;
    }
    last = stops_ != Stops::kNone && open_ == 0;
    drained = HasDrained();
  }
  if (!owns_group_) group_->ConnectionEnded(report);
  if (last) EndLoops();
  if (drained) Stop(StopMode::kGracefullyButNotWait);
}

// ---- Stopping.

StopReport Server::Impl::Stop(StopMode mode) {
  const bool waits = mode == StopMode::kGracefullyAndWait;
  StopReport report;
  StopWith(internal::Add(Stops::kNone, mode), &report);
  if (!waits) return report;
  if (InsideCallback()) {
    report.error = Errc::kWouldDeadlock;
    return report;
  }
  WaitForEnd();
  MutexLock lock(mu_);
  return report_;
}

StopReport Server::Impl::Stop(StopMode mode, internal::EndCall ended) {
  StopReport report;
  std::vector<internal::EndCall> at_once;
  try {
    at_once.reserve(1);
    MutexLock lock(mu_);
    const bool comes = life_ == Life::kStarting || life_ == Life::kServing;
    if (ended != nullptr) (comes ? ended_ : at_once).push_back(std::move(ended));
  } catch (const std::bad_alloc&) {
    report.error = Errc::kNoMemory;
    return report;
  }
  StopWith(internal::Add(Stops::kNone, mode), &report);
  Tell(std::move(at_once));
  return report;
}

void Server::Impl::StopWith(Stops stops, StopReport* report) {
  bool tell = false;
  bool end_loops = false;
  {
    MutexLock lock(mu_);
    const Stops before = stops_;
    // A graceful stop changes nothing after an immediate one.
    stops_ = internal::Has(before, Stops::kNow) ? before : before | stops;
    if (before == Stops::kNone) report_.connections = open_;
    report->connections = report_.connections;
    tell = stops_ != before && life_ == Life::kServing;
    end_loops = tell && open_ == 0;
    // Under the lock, since another thread may just begin to serve, and find the stop.
    if (life_ == Life::kIdle) CloseListeners();
    // Noted before the lock is released, since a second stop, which returns at once, promises as
    // well that no send is accepted after it.
    if (tell) NoteStops(stops_);
  }
  if (EndsWithoutLoops()) return;
  if (!tell || !ran_.load()) return;  // the loops see it when they begin
  for (const std::unique_ptr<ServerLoop>& loop : loops_) loop->Post();
  if (end_loops) EndLoops();
}

// `Begin` attaches and then looks for a stop, a stop is noted and then looks here: one of them finds
// the other.
bool Server::Impl::EndsWithoutLoops() {
  if (owns_group_ || !IsStopped() || !group_->DetachIdle(*this)) return false;
  EndIdle();
  return true;
}

void Server::Impl::NoteStops(Stops stops) {
  for (const std::unique_ptr<ServerLoop>& loop : loops_) loop->NoteStops(stops);
}

// What is open now was open when the group's stop began: each connection that ends comes through
// here first.
void Server::Impl::FollowGroup() {
  if (owns_group_ || stops_ != Stops::kNone) return;
  const Stops group_stops = group_->core(0).context().group_stops.load();
  if (group_stops == Stops::kNone) return;
  stops_ = group_stops;
  report_.connections = open_;
  if (life_ == Life::kServing) NoteStops(stops_);
}

void Server::Impl::GroupStops(Stops stops) {
  bool end_loops = false;
  {
    MutexLock lock(mu_);
    FollowGroup();
    stops_ = internal::Has(stops_, Stops::kNow) ? stops_ : stops_ | stops;
    NoteStops(stops_);
    end_loops = open_ == 0;
  }
  for (const std::unique_ptr<ServerLoop>& loop : loops_) loop->Post();
  if (end_loops) EndLoops();
}

void Server::Impl::LoopStops(ServerLoop& loop) {
  for (std::size_t i = 0; i < acceptors_.size(); ++i) {
    if (loops_[LoopOfListener(i)].get() == &loop) acceptors_[i]->Close();
  }
}

void Server::Impl::LoopDrains(ServerLoop& loop) {
  for (std::size_t i = 0; i < acceptors_.size(); ++i) {
    if (loops_[LoopOfListener(i)].get() != &loop) continue;
    acceptors_[i]->Drain(drain_mode_.load(), options_.drain_grace);
  }
}

// A listener belongs to its loop, once there is one; before, it can only be hidden.
void Server::Impl::Drain(DrainMode mode) {
  const internal::CancellationOff off;
  bool serves = false;
  {
    MutexLock lock(mu_);
    FollowGroup();
    if (stops_ != Stops::kNone || life_ == Life::kEnded || drains_.load()) return;
    drain_mode_.store(mode);
    drains_.store(true);
    serves = life_ == Life::kServing && ran_.load();
    if (life_ == Life::kIdle) {
      for (const std::unique_ptr<Acceptor>& acceptor : acceptors_) acceptor->Hide(mode);
    }
  }
  if (!serves) return;  // the loops see it when they begin
  for (const std::unique_ptr<ServerLoop>& loop : loops_) loop->Post();
}

std::error_code Server::Impl::ForEach(internal::ServerVisit::Call visit) {
  std::shared_ptr<internal::ServerVisit> all;
  try {
    all = std::make_shared<internal::ServerVisit>(std::move(visit), group_->size());
  } catch (const std::bad_alloc&) {
    return Errc::kNoMemory;
  }
  {
    MutexLock lock(mu_);
    if (life_ == Life::kEnded) return Errc::kStopped;
    if (life_ != Life::kServing || !ran_.load()) return {};  // there is nobody to visit
  }
  for (std::size_t i = 0; i < loops_.size(); ++i) {
    all->stages[i].keep = all;
    loops_[i]->Visit(all->stages[i]);
  }
  return {};
}

void Server::Impl::EndLoops() {
  for (const std::unique_ptr<ServerLoop>& loop : loops_) loop->RequestEnd();
}

void Server::Impl::LoopEnded() {
  if (loops_left_.fetch_sub(1) > 1) return;
  const std::shared_ptr<Impl> self = std::move(self_);
  if (owns_group_) {
    group_->Detach(*this);
    group_->Stop(StopMode::kImmediately);  // `Serve` returns, and ends the server
    return;
  }
  End();
  group_->Detach(*this);
}

void Server::Impl::EndIdle() {
  const std::shared_ptr<Impl> self = std::move(self_);
  {
    MutexLock lock(mu_);
    FollowGroup();
  }
  End();
}

void Server::Impl::CloseListeners() {
  for (const std::unique_ptr<Acceptor>& acceptor : acceptors_) acceptor->Close();
}

void Server::Impl::End() {
  const internal::CancellationOff off;
  CloseListeners();
  std::vector<internal::EndCall> tell;
  {
    MutexLock lock(mu_);
    life_ = Life::kEnded;
    tell.swap(ended_);
    changed_.NotifyAll();
  }
  Tell(std::move(tell));
}

void Server::Impl::Tell(std::vector<internal::EndCall> calls) {
  StopReport report;
  {
    MutexLock lock(mu_);
    report = report_;
  }
  internal::MakeEndCalls(std::move(calls), report,
                         ran_.load() ? &group_->core(0).context() : nullptr);
}

void Server::Impl::Fail(std::error_code error) {
  {
    MutexLock lock(mu_);
    if (!error_) error_ = error;
  }
  Stop(StopMode::kGracefullyButNotWait);
}

void Server::Impl::WaitForEnd() {
  group_->TurnUntil([this] {
    MutexLock lock(mu_);
    return life_ == Life::kIdle || life_ == Life::kEnded;
  });
  MutexLock lock(mu_);
  while (life_ == Life::kStarting || life_ == Life::kServing) changed_.Wait(mu_);
}

bool Server::Impl::IsStopped() const {
  if (!owns_group_ && group_->IsStopped()) return true;
  MutexLock lock(mu_);
  return stops_ != Stops::kNone || life_ == Life::kEnded;
}

// ---- Counting.

std::size_t Server::Impl::ConnectionCount() const {
  MutexLock lock(mu_);
  return open_;
}

ServerStats Server::Impl::Stats() const {
  ServerStats stats;
  {
    MutexLock lock(mu_);
    stats.accepted = accepted_;
    stats.refused = refused_;
    stats.closed = closed_;
    stats.accept_errors = accept_errors_;
    if (life_ == Life::kIdle || life_ == Life::kStarting) return stats;
  }
  for (const std::unique_ptr<ServerLoop>& loop : loops_) {
    const internal::LoopTotals& totals = loop->totals();
    stats.exceptions += totals.exceptions.load(std::memory_order_relaxed);
    stats.received_bytes += totals.received_bytes.load(std::memory_order_relaxed);
    stats.unacked_bytes += totals.unacked_bytes.load(std::memory_order_relaxed);
    // They are read in this order, since what was written had been accepted before.
    stats.written_bytes += totals.written_bytes.load(std::memory_order_acquire);
    stats.accepted_bytes += totals.accepted_bytes.load(std::memory_order_relaxed);
  }
  stats.unsent_bytes = stats.accepted_bytes - stats.written_bytes;
  return stats;
}

}  // namespace xtcp
