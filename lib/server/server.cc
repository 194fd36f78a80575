#include <xtcp/error.h>
#include <xtcp/server.h>

#include <algorithm>
#include <cerrno>
#include <new>
#include <thread>
#include <utility>

#include "base/callback_scope.h"
#include "base/log.h"
#include "base/mutex.h"
#include "base/scope.h"
#include "base/thread_end.h"
#include "conn/worker.h"
#include "server/acceptor.h"
#include "socket/resolve.h"
#include "socket/socket.h"
#include "sys/syscalls.h"
#include "types/validate_options.h"

namespace xtcp {

using internal::AcceptedSocket;
using internal::Acceptor;
using internal::ConnContext;
using internal::InsideCallback;
using internal::MutexLock;
using internal::SocketAddress;
using internal::SocketFile;
using internal::Stops;
using internal::UniqueFd;
using internal::Worker;

// All of a server that must live until `Serve` has returned, whatever becomes of the `Server`.
//
// How it stops: `Stop` notes the stop and posts it to every worker. The first worker closes the
// listeners; each ends its own connections. When the last connection is gone the workers are told
// to quit, `Serve` joins them, closes what is left, and releases those who wait in `Stop`.
class Server::Impl final : public internal::WorkerOwner, public internal::AcceptSink {
 public:
  explicit Impl(Options options)
      : options_(std::move(options)),
        tcp_{options_.no_delay, options_.keep_alive, options_.keep_alive_period,
             options_.user_timeout} {}

  std::error_code Listen(std::string_view address);
  std::error_code Adopt(int fd);
  std::error_code Serve();
  StopReport Stop(StopMode mode);
  void WaitForEnd();
  bool IsStopped() const;
  std::vector<Address> Addresses() const;
  std::size_t ConnectionCount() const;
  ServerStats Stats() const;

 private:
  enum class Life { kIdle, kStarting, kServing, kEnded };

  // WorkerOwner, on the workers' threads.
  void ConnectionEnded(const StopReport& ending) override;
  void ConnectionRefused(std::error_code error) override;
  void StopReachedLoop(Worker& worker) override;

  // AcceptSink, on the first worker's thread.
  bool MayAccept() const override { return !workers_.front()->IsStopping(); }
  bool MayAdmit() override;
  void Accepted(AcceptedSocket socket) override;
  void SetUpFailed(std::error_code error) override { ConnectionRefused(error); }
  void AcceptFailed() override;
  void ListenerDied(std::error_code error) override;

  std::error_code AddListener(UniqueFd& fd, SocketFile& file, const internal::TcpOptions* apply);
  std::error_code Start();
  void End();
  std::error_code MakeWorkers();
  std::error_code StartAcceptors();
  void RunWorkers();
  void JoinThreads();
  void RunWorker(Worker& worker);
  void Fail(std::error_code error);
  void QuitWorkers();
  void CloseAll();

  const Options options_;
  const internal::TcpOptions tcp_;

  // Written while nothing runs: the workers by `Serve`, before `kServing`; the acceptors before
  // `Serve`, and then on the first worker's thread.
  std::vector<std::unique_ptr<Worker>> workers_;
  std::vector<std::thread> threads_;  // of the workers but the first
  std::vector<std::unique_ptr<Acceptor>> acceptors_;
  std::size_t max_connections_ = 0;
  std::size_t next_worker_ = 0;         // first worker's thread only
  internal::AcceptPause accept_pause_;  // likewise

  mutable internal::Mutex mu_;
  internal::CondVar ended_;
  Life life_ XTCP_GUARDED_BY(mu_) = Life::kIdle;
  Stops stops_ XTCP_GUARDED_BY(mu_) = Stops::kNone;
  std::size_t open_ XTCP_GUARDED_BY(mu_) = 0;  // admitted and not ended
  StopReport report_ XTCP_GUARDED_BY(mu_);
  std::error_code error_ XTCP_GUARDED_BY(mu_);
  std::vector<Address> addresses_ XTCP_GUARDED_BY(mu_);
  std::uint64_t accepted_ XTCP_GUARDED_BY(mu_) = 0;
  std::uint64_t refused_ XTCP_GUARDED_BY(mu_) = 0;
  std::uint64_t closed_ XTCP_GUARDED_BY(mu_) = 0;
  std::uint64_t accept_errors_ XTCP_GUARDED_BY(mu_) = 0;
};

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
  error = AddListener(fd, file, nullptr);
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
  const std::error_code error = AddListener(owned, none, &tcp_);
  if (error) (void)owned.Release();  // it stays the caller's
  return error;
}

// Takes `fd` and `file` over when there is no error.
std::error_code Server::Impl::AddListener(UniqueFd& fd, SocketFile& file,
                                          const internal::TcpOptions* apply) {
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
    acceptors_.push_back(std::make_unique<Acceptor>(std::move(fd), bound, std::move(file), apply));
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

// ---- Serving.

std::error_code Server::Impl::Serve() {
  if (InsideCallback()) return Errc::kWouldDeadlock;
  bool stopped = false;
  {
    MutexLock lock(mu_);
    if (life_ != Life::kIdle) return Errc::kAlreadyUsed;
    stopped = stops_ != Stops::kNone;
    if (!stopped && acceptors_.empty()) return Errc::kNotListening;
    life_ = stopped ? Life::kEnded : Life::kStarting;
  }
  if (stopped) {
    CloseAll();  // what was opened after the stop
    return {};
  }
  const internal::AtScopeEnd end([this] { End(); });  // also when this thread ends in a callback
  if (const std::error_code error = Start()) return error;
  RunWorkers();
  JoinThreads();
  MutexLock lock(mu_);
  return error_;
}

std::error_code Server::Impl::Start() {
  const internal::CancellationOff off;
  const std::error_code error = MakeWorkers();
  return error ? error : StartAcceptors();
}

void Server::Impl::End() {
  const internal::CancellationOff off;
  JoinThreads();
  CloseAll();
  MutexLock lock(mu_);
  life_ = Life::kEnded;
  ended_.NotifyAll();
}

std::error_code Server::Impl::MakeWorkers() {
  const std::size_t count =
      options_.loops > 0 ? options_.loops : static_cast<std::size_t>(sys::AvailableProcessors());
  try {
    threads_.reserve(count);
    workers_.reserve(count);
    for (std::size_t i = 0; i < count; ++i) {
      workers_.push_back(std::make_unique<Worker>(
          *this, options_,
          std::make_shared<ConnContext>(options_.protocol, options_.send_buffer_limit),
          i == 0 ? acceptors_.size() : 0));
      if (const std::error_code error = workers_.back()->Open()) return error;
    }
  } catch (const std::bad_alloc&) {
    return Errc::kNoMemory;
  }
  return {};
}

std::error_code Server::Impl::StartAcceptors() {
  max_connections_ = options_.max_connections;
  if (max_connections_ == 0) {
    rlimit limit{};
    if (sys::GetRlimit(RLIMIT_NOFILE, &limit) != 0) return {errno, std::system_category()};
    max_connections_ = limit.rlim_cur - std::min<rlim_t>(64, limit.rlim_cur / 2);
  }
  for (const std::unique_ptr<Acceptor>& acceptor : acceptors_) {
    const std::error_code error = acceptor->Start(workers_.front()->loop(), *this, accept_pause_);
    if (error) return error;
  }
  return {};
}

void Server::Impl::RunWorkers() {
  bool stopped = false;
  {
    MutexLock lock(mu_);
    life_ = Life::kServing;
    stopped = stops_ != Stops::kNone;
  }
  if (stopped) QuitWorkers();  // a stop came while we were starting
  for (std::size_t i = 1; i < workers_.size(); ++i) {
    Worker* worker = workers_[i].get();
    std::thread thread;
    const std::error_code error = sys::StartThread([this, worker] { RunWorker(*worker); }, &thread);
    if (error) {
      Fail(error);
      break;
    }
    threads_.push_back(std::move(thread));
  }
  RunWorker(*workers_.front());
}

void Server::Impl::RunWorker(Worker& worker) {
  try {
    if (const std::error_code error = worker.Run()) Fail(error);
  } catch (const internal::ForcedUnwind&) {
    Fail({ECANCELED, std::system_category()});
    throw;
  }
}

void Server::Impl::JoinThreads() {
  const internal::CancellationOff off;
  for (std::thread& thread : threads_) thread.join();
  threads_.clear();
}

void Server::Impl::CloseAll() {
  for (const std::unique_ptr<Acceptor>& acceptor : acceptors_) acceptor->Close();
  for (const std::unique_ptr<Worker>& worker : workers_) worker->Close();
}

// A loop is broken, or no listener is left: stop gracefully, and return the first such error from
// `Serve`.
void Server::Impl::Fail(std::error_code error) {
  {
    MutexLock lock(mu_);
    if (!error_) error_ = error;
  }
  Stop(StopMode::kGracefullyButNotWait);
}

// ---- Accepting.

bool Server::Impl::MayAdmit() {
  MutexLock lock(mu_);
  if (stops_ != Stops::kNone || open_ >= max_connections_) {
    ++refused_;
    return false;
  }
  ++open_;
  ++accepted_;
  return true;
}

void Server::Impl::Accepted(AcceptedSocket socket) {
  Worker& worker = *workers_[next_worker_];
  next_worker_ = (next_worker_ + 1) % workers_.size();
  if (&worker == workers_.front().get()) {
    worker.Serve(std::move(socket));
  } else {
    worker.Deal(std::move(socket));
  }
}

void Server::Impl::AcceptFailed() {
  MutexLock lock(mu_);
  ++accept_errors_;
}

void Server::Impl::ListenerDied(std::error_code error) {
  for (const std::unique_ptr<Acceptor>& acceptor : acceptors_) {
    if (!acceptor->closed()) return;
  }
  Fail(error);
}

void Server::Impl::ConnectionRefused(std::error_code error) {
  if (error) {
    XTCP_LOG_LIMITED(kWarn, "a connection was refused: %s", error.message().c_str());
  }
  bool last = false;
  {
    MutexLock lock(mu_);
    --open_;
    if (error) {
      --accepted_;
      ++refused_;
    } else {
      ++closed_;
    }
    last = stops_ != Stops::kNone && open_ == 0;
  }
  if (last) QuitWorkers();
}

void Server::Impl::ConnectionEnded(const StopReport& ending) {
  bool last = false;
  {
    MutexLock lock(mu_);
    --open_;
    ++closed_;
    if (stops_ != Stops::kNone) {
      report_.cut += ending.cut;
      report_.unsent_bytes += ending.unsent_bytes;
      report_.unacked_bytes += ending.unacked_bytes;
    }
    last = stops_ != Stops::kNone && open_ == 0;
  }
  if (last) QuitWorkers();
}

// ---- Stopping.

StopReport Server::Impl::Stop(StopMode mode) {
  const bool waits = mode == StopMode::kGracefullyAndWait;
  const bool would_deadlock = waits && InsideCallback();
  bool tell = false;
  bool quit = false;
  std::vector<std::unique_ptr<Acceptor>> idle;
  StopReport report;
  {
    MutexLock lock(mu_);
    if (stops_ == Stops::kNone) report_.connections = open_;
    const Stops before = std::exchange(stops_, Add(stops_, mode));
    tell = stops_ != before && life_ == Life::kServing;
    quit = tell && open_ == 0;
    // Before the lock is released, since a second stop, which returns at once, promises it as well:
    // from now on no Send is accepted.
    if (tell) {
      for (const std::unique_ptr<Worker>& worker : workers_) worker->NoteStops(stops_);
    }
    if (life_ == Life::kIdle) idle.swap(acceptors_);
    report.connections = report_.connections;
  }
  for (const std::unique_ptr<Acceptor>& acceptor : idle) acceptor->Close();
  if (tell) {
    for (const std::unique_ptr<Worker>& worker : workers_) worker->Post();
  }
  if (quit) QuitWorkers();
  if (would_deadlock) report.error = Errc::kWouldDeadlock;
  if (!waits || would_deadlock) return report;
  WaitForEnd();
  MutexLock lock(mu_);
  return report_;
}

void Server::Impl::WaitForEnd() {
  MutexLock lock(mu_);
  while (life_ == Life::kStarting || life_ == Life::kServing) ended_.Wait(mu_);
}

void Server::Impl::QuitWorkers() {
  for (const std::unique_ptr<Worker>& worker : workers_) worker->RequestQuit();
}

void Server::Impl::StopReachedLoop(Worker& worker) {
  if (&worker != workers_.front().get()) return;
  for (const std::unique_ptr<Acceptor>& acceptor : acceptors_) acceptor->Close();
}

bool Server::Impl::IsStopped() const {
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
  for (const std::unique_ptr<Worker>& worker : workers_) {
    const internal::LoopTotals& totals = worker->totals();
    stats.exceptions += totals.exceptions.load(std::memory_order_relaxed);
    stats.received_bytes += totals.received_bytes.load(std::memory_order_relaxed);
    stats.unacked_bytes += totals.unacked_bytes.load(std::memory_order_relaxed);
    // In this order: what was written had been accepted before.
    stats.written_bytes += totals.written_bytes.load(std::memory_order_acquire);
    stats.accepted_bytes += totals.accepted_bytes.load(std::memory_order_relaxed);
  }
  stats.unsent_bytes = stats.accepted_bytes - stats.written_bytes;
  return stats;
}

// ---- The handle.

Server::Server(Options options) {
  internal::ValidateOptions(options);
  impl_ = std::make_shared<Impl>(std::move(options));
}

Server::~Server() {
  const internal::CancellationOff off;
  impl_->Stop(StopMode::kImmediately);
  if (!InsideCallback()) impl_->WaitForEnd();
}

// Those that may outlast the handle keep the inside themselves. What makes system calls outside the
// loops cannot be cancelled in the middle.
std::error_code Server::ListenAndServe(std::string_view address) {
  const std::shared_ptr<Impl> impl = impl_;
  const std::error_code error = InsideCallback() ? Errc::kWouldDeadlock : Listen(address);
  return error ? error : impl->Serve();
}

std::error_code Server::Serve() {
  const std::shared_ptr<Impl> impl = impl_;
  return impl->Serve();
}

StopReport Server::Stop(StopMode mode) {
  const internal::CancellationOff off;
  const std::shared_ptr<Impl> impl = impl_;
  return impl->Stop(mode);
}

std::error_code Server::Listen(std::string_view address) {
  const internal::CancellationOff off;
  return impl_->Listen(address);
}

std::error_code Server::Adopt(int listening_fd) {
  const internal::CancellationOff off;
  return impl_->Adopt(listening_fd);
}

bool Server::IsStopped() const { return impl_->IsStopped(); }

std::vector<Address> Server::Addresses() const { return impl_->Addresses(); }

std::size_t Server::ConnectionCount() const { return impl_->ConnectionCount(); }

ServerStats Server::Stats() const { return impl_->Stats(); }

}  // namespace xtcp
