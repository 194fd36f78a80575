#pragma once

#include <xtcp/loop.h>

#include <memory>
#include <utility>

#include "loop/group.h"
#include "loop/loop_context.h"

namespace xtcp::internal {

// The private parts of the handles, for the library's own files that make them or look inside.
struct LoopAccess {
  static Loop Make(std::shared_ptr<LoopContext> context) {
    Loop loop;
    loop.context_ = std::move(context);
    return loop;
  }
  static const std::shared_ptr<LoopContext>& ContextOf(const Loop& loop) { return loop.context_; }
  static const std::shared_ptr<Group>& GroupOf(const LoopGroup& group) { return group.group_; }
};

}  // namespace xtcp::internal
