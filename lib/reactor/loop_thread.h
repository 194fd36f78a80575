#pragma once

#include "base/thread_annotations.h"

namespace xtcp::internal {

// The right to touch what belongs to a loop, for clang's analysis. Code that the loop calls has it;
// so has code that knows by other means that no thread runs the loop, and says so with
// `EventLoop::AssertOnThread`, which a debug build checks. It is one right for all loops: the
// analysis tells a loop's thread from others, and the check tells one loop from another.
class XTCP_CAPABILITY("loop thread") LoopThread {};
inline LoopThread loop_thread;

}  // namespace xtcp::internal

// For functions that are called on the loop's thread only, and for members that are used there
// only.
#define XTCP_ON_LOOP XTCP_REQUIRES(::xtcp::internal::loop_thread)
#define XTCP_OF_LOOP XTCP_GUARDED_BY(::xtcp::internal::loop_thread)
