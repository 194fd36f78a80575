#pragma once

#include <cstdio>
#include <cstdlib>

namespace xtcp::internal {

[[noreturn, gnu::cold, gnu::noinline]] inline void CheckFailed(const char* text, const char* file,
                                                               int line) noexcept {
  std::fprintf(stderr, "xtcp: %s:%d: %s\n", file, line, text);
  std::abort();
}

}  // namespace xtcp::internal

// Ends the process if the condition does not hold. It is always on, and only for conditions that
// prove that the library's own memory is corrupt: what a caller, a peer or the kernel can cause is
// handled, never checked.
#define XTCP_CHECK(condition, text)        \
  (__builtin_expect(!!(condition), 1) != 0 \
       ? static_cast<void>(0)              \
       : ::xtcp::internal::CheckFailed(text, __FILE__, __LINE__))

// The same for hot paths. It is on when XTCP_DEBUG_CHECKS is defined, as in the sanitizer builds;
// otherwise it is compiled but never evaluated.
#ifdef XTCP_DEBUG_CHECKS
namespace xtcp::internal {
inline constexpr bool kDebugChecks = true;
}
#define XTCP_DCHECK(condition, text) XTCP_CHECK(condition, text)
#else
namespace xtcp::internal {
inline constexpr bool kDebugChecks = false;
}
#define XTCP_DCHECK(condition, text) static_cast<void>(sizeof((condition) ? text : text))
#endif
