#include "server/server_loop.h"

#include <xtcp/error.h>

#include <algorithm>
#include <cerrno>
#include <new>
#include <utility>

#include "base/check.h"
#include "sys/sync.h"

namespace xtcp::internal {

ServerLoop::ServerLoop(Owner& owner, LoopCore& core, const Options& options,
                       Ref<ConnContext> context)
    : ServiceLoop(core, options, std::move(context), totals_),
      owner_(owner),
      stops_of_(ServiceLoop::context()) {}

// ---- Any thread.

void ServerLoop::Deal(ConnectedSocket socket) {
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

void ServerLoop::Post() {
  {
    MutexLock lock(mu_);
    if (over_ || !ClaimPost()) return;
  }
  core().Push(this);
}

void ServerLoop::RequestEnd() {
  end_asked_.store(true);
  Post();
}

// ---- The loop's thread.

void ServerLoop::HandlePosted() {
  if (!std::exchange(begun_, true)) {
    core().Attach(*this);
    const Stops group_stops = stops_of_.loop->group_stops.load();
    if (group_stops != Stops::kNone) owner_.GroupStops(group_stops);
    owner_.LoopBegins(*this);
  }
  TakeDealt();
  SeeStops();
  SeeDrain();
  VisitSome();
  EndIfOver();
}

void ServerLoop::SeeStops() {
  const Stops stops = stops_of_.stops.load();
  if (stops != told_stops_) {
    told_stops_ = stops;
    owner_.LoopStops(*this);
    tell_next_ = conns_.size();
  }
  TellStops();
}

// The last ones come first: a connection that ends meanwhile leaves its place to one that was told
// already.
void ServerLoop::TellStops() {
  tell_next_ = std::min(tell_next_, conns_.size());
  for (int left = kPerIteration; tell_next_ > 0 && left > 0; --left) {
    static_cast<ConnImpl&>(*conns_[--tell_next_]).StopByService(told_stops_);
  }
  if (tell_next_ > 0) Post();
}

void ServerLoop::SeeDrain() {
  if (!drains_ && owner_.Drains()) {
    drains_ = true;
    owner_.LoopDrains(*this);
    drain_next_ = conns_.size();
  }
  TellDrain();
}

// In slices, as `TellStops`. One that is told twice notices.
void ServerLoop::TellDrain() {
  drain_next_ = std::min(drain_next_, conns_.size());
  for (int left = kPerIteration; drain_next_ > 0 && left > 0; --left) {
    static_cast<ConnImpl&>(*conns_[--drain_next_]).TellDrain();
  }
  if (drain_next_ > 0) Post();
}

void ServerLoop::Visit(ServerVisit::Stage& stage) {
  bool gone = false;
  {
    MutexLock lock(mu_);
    gone = over_;
    if (!gone) {
      (first_stage_ == nullptr ? first_stage_ : last_stage_->next) = &stage;
      last_stage_ = &stage;
    }
  }
  if (gone) {
    stage.keep.reset();
  } else {
    Post();
  }
}

ServerVisit::Stage* ServerLoop::NextStage() {
  MutexLock lock(mu_);
  ServerVisit::Stage* const stage = first_stage_;
  if (stage != nullptr) first_stage_ = stage->next;
  return stage;
}

void ServerLoop::VisitSome() {
  if (stage_ == nullptr) {
    stage_ = NextStage();
    if (stage_ == nullptr) return;
    visit_mark_ = !visit_mark_;
    visit_next_ = conns_.size();
  }
  visit_next_ = std::min(visit_next_, conns_.size());
  for (int left = kPerIteration; visit_next_ > 0 && left > 0; --left) {
    auto& conn = static_cast<ConnImpl&>(*conns_[--visit_next_]);
    if (conn.MarkVisited(visit_mark_)) conn.CallBack(stage_->keep->call);
  }
  if (visit_next_ == 0) {
    // With the last stage goes what the application gave.
    const std::shared_ptr<ServerVisit> done = std::move(std::exchange(stage_, nullptr)->keep);
  }
  Post();  // for the rest, or the next one
}

void ServerLoop::Serve(ConnectedSocket socket) {
  std::error_code error = Errc::kNoMemory;
  bool has_timer = false;
  try {
    auto conn = std::make_shared<ConnImpl>(shared_context(), SendState::kNew);
    loop().AddTimer();
    has_timer = true;
    conn->set_index(static_cast<std::uint32_t>(conns_.size()));
    static_cast<void>(conn->MarkVisited(visit_mark_));  // it sees for itself what was before
    conns_.push_back(conn);
    SetHandles(conns_.data());
    CountConnection(1);
    error = conn->Begin(std::move(socket.fd), std::move(socket.ends), EventType::kAccept);
    if (error) {
      conns_.pop_back();
      CountConnection(-1);
    } else if (drains_) {
      conn->TellDrain();
    }
  } catch (const std::bad_alloc&) {
  }
  if (!error) return;
  if (has_timer) loop().RemoveTimer();
  owner_.ConnectionRefused(error);
}

void ServerLoop::ConnectionEnded(const StopReport& report) {
  CountConnection(-1);
  owner_.ConnectionEnded(report);
}

void ServerLoop::ConnectionGone(ConnImpl& conn) {
  // The last one moves into the hole. The pointer is destroyed at the end, since the connection may
  // go with it.
  XTCP_DCHECK(conn.index() < conns_.size() && conns_[conn.index()].get() == &conn,
              "a connection is not in its place");
  ConnPtr& place = conns_[conn.index()];
  std::swap(place, conns_.back());
  static_cast<ConnImpl&>(*place).set_index(conn.index());
  const ConnPtr gone = std::move(conns_.back());
  conns_.pop_back();
  loop().RemoveTimer();
  EndIfOver();
}

void ServerLoop::CountConnection(int change) {
  sys::Atomic<std::size_t>& count = stops_of_.loop->connections;
  count.store(count.load(std::memory_order_relaxed) + static_cast<std::size_t>(change),
              std::memory_order_relaxed);
}

void ServerLoop::TakeDealt() {
  std::vector<ConnectedSocket> dealt;
  {
    MutexLock lock(mu_);
    dealt.swap(dealt_);
  }
  for (ConnectedSocket& socket : dealt) {
    if (stops_of_.stopping()) {
      socket.fd.Reset();
      owner_.ConnectionRefused({});
    } else {
      Serve(std::move(socket));
    }
  }
}

void ServerLoop::RefuseDealt() {
  std::vector<ConnectedSocket> late;
  {
    MutexLock lock(mu_);
    gone_ = true;
    late.swap(dealt_);
  }
  for (ConnectedSocket& socket : late) {
    socket.fd.Reset();
    owner_.ConnectionRefused({});
  }
}

void ServerLoop::Abort(std::error_code error) {
  RefuseDealt();
  owner_.LoopFailed(error);
  owner_.LoopStops(*this);
  for (const ConnPtr& conn : conns_) static_cast<ConnImpl&>(*conn).Abort(error);
  end_asked_.store(true);
  EndIfOver();
}

void ServerLoop::EndIfOver() {
  if (!begun_ || !end_asked_.load() || !conns_.empty()) return;
  {
    // A post that is on its way still needs this object, and comes here.
    MutexLock lock(mu_);
    if (over_ || posted()) return;
    over_ = true;
  }
  loop().Retire(this);
}

void ServerLoop::HandleRetired() {
  // There is nobody left to visit.
  while (stage_ != nullptr || (stage_ = NextStage()) != nullptr) {
    const std::shared_ptr<ServerVisit> dropped = std::move(std::exchange(stage_, nullptr)->keep);
  }
  core().Detach(*this);
  owner_.LoopEnded();
}

}  // namespace xtcp::internal
