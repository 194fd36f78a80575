#pragma once

#include <xtcp/protocol.h>

#include <cstddef>
#include <memory>
#include <system_error>
#include <utility>

#include "base/ref.h"
#include "loop/loop_context.h"
#include "loop/stops.h"
#include "sys/sync.h"

namespace xtcp::internal {

class ServiceLoop;

// What the connections of one service on one loop share and may use on any thread:
//
//   ConnImpl, thousands ──► ConnContext, one ──► LoopContext of the loop
//                                └────► the service, while it is there (loop thread only)
//
// It lives for as long as somebody holds one of the connections, which is longer than the loop and
// the service. It holds no handler, so a handler may hold connections.
struct ConnContext : RefCounted {
  ConnContext(std::shared_ptr<LoopContext> on, std::shared_ptr<const Protocol> with,
              std::size_t limit)
      : loop(std::move(on)),
        mailbox(loop->mailbox),
        protocol(std::move(with)),
        send_buffer_limit(limit) {}

  const std::shared_ptr<LoopContext> loop;
  Mailbox& mailbox;
  const std::shared_ptr<const Protocol> protocol;
  const std::size_t send_buffer_limit;
  // It is asked for once, since a default std::error_code costs a call into another library.
  const std::error_category& no_error = std::error_code().category();

  ServiceLoop* service = nullptr;  // loop thread only, while the service is there

  BlockPool& pool() const { return loop->pool; }

  // The service's stops. Once there is one, or one of the group, `Send` is refused, even before the
  // loop has seen the stop. Relaxed: a thread that must see it is ordered after it by other means.
  sys::Atomic<Stops> stops{Stops::kNone};
  Stops all_stops() const { return stops.load() | loop->group_stops.load(); }
  bool stopping() const {
    return stops.load(std::memory_order_relaxed) != Stops::kNone ||
           loop->group_stops.load(std::memory_order_relaxed) != Stops::kNone;
  }
};

}  // namespace xtcp::internal
