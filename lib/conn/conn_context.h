#pragma once

#include <xtcp/protocol.h>

#include <atomic>
#include <cstddef>
#include <memory>
#include <system_error>
#include <utility>

#include "buffer/block_pool.h"
#include "conn/phase.h"
#include "reactor/mailbox.h"

namespace xtcp::internal {

class Worker;

// What the connections of one loop share and may use from any thread, for as long as somebody holds
// one of them: longer than the loop, longer than the server. It holds no handler.
struct ConnContext {
  ConnContext(std::shared_ptr<const Protocol> with, std::size_t limit)
      : protocol(std::move(with)), send_buffer_limit(limit) {}

  const std::shared_ptr<const Protocol> protocol;
  const std::size_t send_buffer_limit;
  // Asked for once: a default std::error_code costs a call into another library.
  const std::error_category& no_error = std::error_code().category();

  Mailbox mailbox;
  BlockPool pool;

  Worker* worker = nullptr;  // loop thread only, while the loop runs

  // The server's stops. Once there is one, Send is refused, before the loop has seen it. Relaxed: a
  // thread that must see it is ordered after it by other means.
  std::atomic<Stops> stops{Stops::kNone};
  bool stopping() const { return stops.load(std::memory_order_relaxed) != Stops::kNone; }
};

}  // namespace xtcp::internal
