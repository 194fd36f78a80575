#pragma once

#include <mutex>

namespace xtcp::sys {

// This is an alias so that a test program may put a lock of its own in its place.
using Mutex = std::mutex;

}  // namespace xtcp::sys
