#include "server/end_calls.h"

#include <xtcp/error.h>
#include <xtcp/task.h>

#include <new>
#include <utility>

#include "base/callback_scope.h"

namespace xtcp::internal {

void MakeEndCalls(std::vector<EndCall> calls, const StopReport& report, LoopContext* loop) {
  for (EndCall& call : calls) {
    // Copied, since a task that is refused is gone.
    std::error_code error = Errc::kNoLoop;
    try {
      if (loop != nullptr) error = loop->tasks.Push([call, report] { call(report); });
    } catch (const std::bad_alloc&) {
      error = Errc::kNoMemory;
    }
    if (!error) continue;
    const CallbackScope scope;
    Task task([&call, &report] { call(report); });
    static_cast<void>(CallTask(task));  // what it throws is logged, as a task's
  }
}

}  // namespace xtcp::internal
