#pragma once

#include <xtcp/stop_mode.h>

#include <functional>
#include <vector>

#include "loop/loop_context.h"

namespace xtcp::internal {

// Whom a service tells that it has ended, with the report of its stop.
using EndCall = std::function<void(const StopReport&)>;

// Makes the calls as tasks of `loop`; on this thread, before it returns, when `loop` is null or
// runs no more.
void MakeEndCalls(std::vector<EndCall> calls, const StopReport& report, LoopContext* loop);

}  // namespace xtcp::internal
