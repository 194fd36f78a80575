#include "conn/worker.h"

#include <xtcp/error.h>

#include <algorithm>
#include <cerrno>
#include <new>
#include <utility>

#include "base/log.h"
#include "base/thread_end.h"
#include "sys/syscalls.h"

namespace xtcp::internal {

Worker::Worker(WorkerOwner& owner, const Options& options, std::shared_ptr<ConnContext> context,
               std::size_t own_timers)
    : owner_(owner),
      context_(std::move(context)),
      own_timers_(own_timers),
      loop_(context_->mailbox),
      service_{.handler = options.handler.get(),
               .protocol = context_->protocol.get(),
               .options = &options,
               .totals = &totals_,
               .pool = &context_->pool,
               .has_deadlines = options.read_deadline.count() > 0 ||
                                options.write_deadline.count() > 0 ||
                                options.packet_deadline.count() > 0} {
  context_->worker = this;
}

Worker::~Worker() {
  Close();
  context_->worker = nullptr;
}

std::error_code Worker::Open() {
  try {
    turn_.Allocate();
    loop_.ReserveTimers(own_timers_);
  } catch (const std::bad_alloc&) {
    return Errc::kNoMemory;
  }
  return loop_.Open();
}

std::error_code Worker::Run() {
  try {
    const std::error_code error = loop_.Run();
    if (error) Fail(error);
    return error;
  } catch (const ForcedUnwind&) {
    const CancellationOff off;
    turn_.Abandon();
    Fail({ECANCELED, std::system_category()});
    throw;
  }
}

void Worker::Close() {
  RefuseDealt();
  loop_.Close();
  context_->pool.Trim();  // whoever holds a connection that has ended holds no memory of its loop
}

void Worker::Deal(AcceptedSocket socket) {
  std::error_code error;
  {
    MutexLock lock(mu_);
    try {
      if (gone_) {
        error = {ECANCELED, std::system_category()};  // its loop is broken
      } else {
        dealt_.push_back(std::move(socket));
      }
    } catch (const std::bad_alloc&) {
      error = Errc::kNoMemory;
    }
  }
  if (error) {
    owner_.ConnectionRefused(error);
  } else {
    Post();
  }
}

void Worker::RequestQuit() {
  quit_.store(true);
  Post();
}

void Worker::Serve(AcceptedSocket socket) {
  std::error_code error = Errc::kNoMemory;
  try {
    auto conn = std::make_shared<ConnImpl>(context_, SendState::kNew);
    error = Serve(std::move(conn), std::move(socket), EventType::kAccept);
  } catch (const std::bad_alloc&) {
  }
  if (error) owner_.ConnectionRefused(error);
}

std::error_code Worker::Serve(std::shared_ptr<ConnImpl> conn, AcceptedSocket socket,
                              EventType first) {
  try {
    loop_.ReserveTimers(conns_.size() + 1 + own_timers_);
    conn->set_worker_index(static_cast<std::uint32_t>(conns_.size()));
    conns_.push_back(conn);
  } catch (const std::bad_alloc&) {
    return Errc::kNoMemory;
  }
  const std::error_code error = conn->Begin(std::move(socket.fd), std::move(socket.ends), first);
  if (error) conns_.pop_back();
  return error;
}

void Worker::Erase(ConnImpl& conn) {
  // The last one moves into the hole. The pointer goes at the end: with it may go the connection.
  ConnPtr& place = conns_[conn.worker_index()];
  std::swap(place, conns_.back());
  static_cast<ConnImpl&>(*place).set_worker_index(conn.worker_index());
  const ConnPtr gone = std::move(conns_.back());
  conns_.pop_back();
  if (quit_.load() && conns_.empty()) loop_.Quit();
}

void Worker::HandlePosted() {
  TakeDealt();
  const Stops stops = context_->stops.load();
  if (stops != told_stops_) {
    told_stops_ = stops;
    owner_.StopReachedLoop(*this);
    tell_next_ = conns_.size();
  }
  TellStops();
  if (quit_.load() && conns_.empty()) loop_.Quit();
}

// Some connections an iteration, the last ones first: one that ends meanwhile leaves its place to one
// that was told already.
void Worker::TellStops() {
  tell_next_ = std::min(tell_next_, conns_.size());
  for (int left = kStopsPerIteration; tell_next_ > 0 && left > 0; --left) {
    static_cast<ConnImpl&>(*conns_[--tell_next_]).StopFromServer(told_stops_);
  }
  if (tell_next_ > 0) Post();
}

void Worker::Post() {
  if (ClaimPost()) context_->mailbox.Push(this);
}

void Worker::TakeDealt() {
  std::vector<AcceptedSocket> dealt;
  {
    MutexLock lock(mu_);
    dealt.swap(dealt_);
  }
  for (AcceptedSocket& socket : dealt) {
    if (context_->stopping()) {
      socket.fd.Reset();
      owner_.ConnectionRefused({});
    } else {
      Serve(std::move(socket));
    }
  }
}

void Worker::Fail(std::error_code error) {
  XTCP_LOG(kError, "an event loop is broken: %s", error.message().c_str());
  RefuseDealt();
  owner_.StopReachedLoop(*this);
  // Again and again: a post may still bring a connection, and one that another thread is just
  // posting leaves when the post has arrived.
  do {
    loop_.RunBroken([&] {
      for (const ConnPtr& conn : conns_) static_cast<ConnImpl&>(*conn).Abort(error);
    });
    if (!conns_.empty()) sys::Yield();
  } while (!conns_.empty());
}

void Worker::RefuseDealt() {
  std::vector<AcceptedSocket> late;
  {
    MutexLock lock(mu_);
    gone_ = true;
    late.swap(dealt_);
  }
  for (AcceptedSocket& socket : late) {
    socket.fd.Reset();
    owner_.ConnectionRefused({});
  }
}

}  // namespace xtcp::internal
