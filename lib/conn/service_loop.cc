#include "conn/service_loop.h"

#include <utility>

namespace xtcp::internal {

ServiceLoop::ServiceLoop(LoopCore& core, const Options& options, Ref<ConnContext> context,
                         LoopTotals& totals)
    : core_(core),
      context_(std::move(context)),
      service_{.handler = options.handler.get(),
               .protocol = context_->protocol.get(),
               .options = &options,
               .totals = &totals,
               .pool = &context_->pool(),
               .has_deadlines = options.read_deadline.count() > 0 ||
                                options.write_deadline.count() > 0 ||
                                options.packet_deadline.count() > 0} {
  context_->service = this;
}

ServiceLoop::~ServiceLoop() { context_->service = nullptr; }

}  // namespace xtcp::internal
