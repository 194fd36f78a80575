#pragma once

#include <xtcp/protocol.h>

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <system_error>
#include <utility>

#include "buffer/block_pool.h"
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

  // Bytes accepted from other threads than the loop's, for the server's totals. Relaxed: a counter.
  std::atomic<std::uint64_t> accepted_elsewhere{0};

  Worker* worker = nullptr;  // loop thread only, while the loop runs

  // The server's stop has begun: Send is refused before the loop has seen it. Relaxed: whoever must
  // see it has it ordered before.
  std::atomic<bool> stopping{false};
  std::atomic<bool> stopping_gracefully{
      false};  // it is graceful, or was before it became immediate
};

}  // namespace xtcp::internal
