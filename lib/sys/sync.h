#pragma once

// What decides something between threads is made of these. They are aliases, so that a test program
// may put its own in their place (XTCP_SYNC_HEADER), which can hold a thread ahead of each
// operation.

#ifdef XTCP_SYNC_HEADER
#include XTCP_SYNC_HEADER
#else

#include <atomic>
#include <condition_variable>
#include <mutex>

namespace xtcp::sys {

template <typename T>
using Atomic = std::atomic<T>;
using Mutex = std::mutex;
using ConditionVariable = std::condition_variable;

// A thread looks so often at a lock that another one holds before it sleeps. The other one nearly
// always releases it at once; if not, it has most likely lost its processor, which the looks keep
// from it.
inline constexpr int kLooksAtLock = 5;

}  // namespace xtcp::sys

#endif
