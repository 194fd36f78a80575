#pragma once

#include <xtcp/options.h>
#include <xtcp/stop_mode.h>

#include <cstdint>
#include <memory>

#include "conn/conn_context.h"
#include "loop/loop_core.h"
#include "loop/totals.h"
#include "loop/turn.h"
#include "socket/socket_address.h"
#include "socket/unique_fd.h"

namespace xtcp::internal {

class ConnImpl;

// A connected socket on its way to the connection that it will be.
struct ConnectedSocket {
  UniqueFd fd;
  ConnectionEnds ends;
};

// A service on one of its loops, as its connections there see it: a server with many of them, or a
// dialled connection, which is a service of its own with one.
//
// Thread safety: `totals` from any thread; all else on the loop's thread.
class ServiceLoop : public LoopService {
 public:
  // All must outlive it; `options` is the service's copy.
  ServiceLoop(LoopCore& core, const Options& options, std::shared_ptr<ConnContext> context);
  ServiceLoop(const ServiceLoop&) = delete;
  ServiceLoop& operator=(const ServiceLoop&) = delete;

  LoopCore& core() { return core_; }
  EventLoop& loop() { return core_.loop(); }
  Turn& turn() { return core_.turn(); }
  const Service& service() const { return service_; }
  ConnContext& context() { return *context_; }
  const std::shared_ptr<ConnContext>& shared_context() const { return context_; }
  const LoopTotals& totals() const { return totals_; }

  // The handle that callbacks of the connection with this index get: a reference to the service's own,
  // so that no count is touched.
  const ConnPtr& PtrOf(std::uint32_t index) const { return handles_[index]; }

  // A connection is over: its descriptor is closed, and kClosed comes next.
  virtual void ConnectionEnded(const StopReport& report) = 0;

  // Nothing refers to the connection any more, but for handles.
  virtual void ConnectionGone(ConnImpl& conn) = 0;

 protected:
  ~ServiceLoop();

  void SetHandles(const ConnPtr* handles) { handles_ = handles; }

 private:
  LoopCore& core_;
  const std::shared_ptr<ConnContext> context_;
  LoopTotals totals_;
  const Service service_;
  const ConnPtr* handles_ = nullptr;
};

}  // namespace xtcp::internal
