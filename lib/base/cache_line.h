#pragma once

#include <cstddef>

namespace xtcp::internal {

// What caches hold together, in bytes, on nearly all processors.
inline constexpr std::size_t kCacheLine = 64;

// Asks for the cache line of `address`, so that what is done with it later need not wait for it:
// for a read, or for a write. A line that another processor has in its cache is taken away from
// there only by the second. Any address will do; nothing else than the time changes.
inline void PrefetchForRead(const void* address) { __builtin_prefetch(address); }
inline void PrefetchForWrite(const void* address) {
#ifdef __x86_64__
  // __builtin_prefetch(…, 1) makes the instruction for a read, unless the compiler may use what
  // Intel has had since 2014 only (-mprfchw). At this one older processors of theirs do nothing.
  asm volatile("prefetchw %0" : : "m"(*static_cast<const char*>(address)));
#else
  __builtin_prefetch(address, 1);
#endif
}

}  // namespace xtcp::internal
