#pragma once

// Catch2 2 or 3, whichever is installed, by the name that its header had in version 2. It stands in
// front of that header, since test/ is searched first.

// #include_next is an extension of the compilers.
#pragma GCC system_header

#if __has_include(<catch2/catch_all.hpp>)

#include <catch2/catch_all.hpp>

namespace Catch {

using TestEventListenerBase = EventListenerBase;

inline auto Contains(const std::string& text) { return Matchers::ContainsSubstring(text); }
inline const std::string& NameOf(const TestCaseStats& stats) { return stats.testInfo->name; }

}  // namespace Catch

#else

// With its listeners, for leak_guard.cc.
#define CATCH_CONFIG_EXTERNAL_INTERFACES
#include_next <catch2/catch.hpp>

namespace Catch {

inline const std::string& NameOf(const TestCaseStats& stats) { return stats.testInfo.name; }

}  // namespace Catch

#endif
