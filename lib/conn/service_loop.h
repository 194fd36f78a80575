#pragma once

#include <xtcp/options.h>
#include <xtcp/stop_mode.h>

#include <cstdint>
#include <memory>

#include "base/check.h"
#include "conn/conn_context.h"
#include "loop/loop_core.h"
#include "loop/totals.h"
#include "loop/turn.h"
#include "socket/socket_address.h"
#include "socket/unique_fd.h"

namespace xtcp::internal {

class ConnImpl;

// A connected socket that is to become a connection.
struct ConnectedSocket {
  UniqueFd fd;
  ConnectionEnds ends;
};

// A service on one of its loops, as its connections there see it:
//
//   LoopCore ──► ServiceLoop ─┬─ ServerLoop: a server, many connections
//                             └─ DialedConn: a service of its own, one connection
//
// Loop thread only.
class ServiceLoop : public LoopService {
 public:
  // All of them must outlive it; `options` is the service's copy, and `totals` are what its
  // connections count here.
  ServiceLoop(LoopCore& core, const Options& options, Ref<ConnContext> context, LoopTotals& totals);
  ServiceLoop(const ServiceLoop&) = delete;
  ServiceLoop& operator=(const ServiceLoop&) = delete;

  LoopCore& core() { return core_; }
  EventLoop& loop() { return core_.loop(); }
  Turn& turn() { return core_.turn(); }
  const Service& service() const { return service_; }
  ConnContext& context() { return *context_; }
  const Ref<ConnContext>& shared_context() const { return context_; }

  // Returns the handle that callbacks of the connection with this index get. It is a reference to
  // the service's own, so that no reference count is touched.
  const ConnPtr& PtrOf(std::uint32_t index) const {
    XTCP_DCHECK(handles_ != nullptr, "a service has no handles of its connections");
    return handles_[index];
  }

  // A connection has ended: its descriptor is closed, and kClosed comes next.
  virtual void ConnectionEnded(const StopReport& report) XTCP_ON_LOOP = 0;

  // Nothing but handles refers to the connection any more.
  virtual void ConnectionGone(ConnImpl& conn) XTCP_ON_LOOP = 0;

 protected:
  ~ServiceLoop();

  // Says where the handles of its connections are, by index.
  void SetHandles(const ConnPtr* handles) { handles_ = handles; }

 private:
  LoopCore& core_;
  const Ref<ConnContext> context_;
  const Service service_;
  const ConnPtr* handles_ = nullptr;
};

}  // namespace xtcp::internal
