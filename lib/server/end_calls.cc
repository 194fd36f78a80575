#include "server/end_calls.h"

#include <memory>
#include <new>
#include <utility>

#include "base/callback_scope.h"
#include "base/log.h"
#include "base/thread_end.h"

namespace xtcp::internal {

namespace {

void Make(const EndCall& call, const StopReport& report) {
  const CallbackScope scope;
  try {
    call(report);
  } catch (const ForcedUnwind&) {
    throw;
  } catch (...) {
    LogUserException("what a stop calls at its end");
  }
}

// A call that its task makes; or its destructor, when the task was refused, or could not run any
// more because its loop was just ending.
class CallAtEnd {
 public:
  CallAtEnd(EndCall call, const StopReport& report) : call_(std::move(call)), report_(report) {}
  CallAtEnd(const CallAtEnd&) = delete;
  CallAtEnd& operator=(const CallAtEnd&) = delete;
  ~CallAtEnd() {
    if (!std::exchange(made_, true)) Make(call_, report_);
  }
  void Run() {
    made_ = true;
    call_(report_);
  }

 private:
  const EndCall call_;
  const StopReport report_;
  bool made_ = false;
};

}  // namespace

void MakeEndCalls(std::vector<EndCall> calls, const StopReport& report, LoopContext* loop) {
  for (EndCall& call : calls) {
    std::unique_ptr<CallAtEnd> at_end;
    try {
      if (loop != nullptr) at_end = std::make_unique<CallAtEnd>(call, report);
    } catch (const std::bad_alloc&) {
      // It is made here.
    }
    if (at_end == nullptr) {
      Make(call, report);
    } else {
      static_cast<void>(loop->tasks.Push([at_end = std::move(at_end)] { at_end->Run(); }));
    }
  }
}

}  // namespace xtcp::internal
