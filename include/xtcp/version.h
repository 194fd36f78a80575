#pragma once

#include <xtcp/export.h>

#include <string_view>

// The version of the headers in its parts.
#define XTCP_VERSION_MAJOR 0
#define XTCP_VERSION_MINOR 1
#define XTCP_VERSION_PATCH 0

// The version of the headers as one number to compare: 10203 is 1.2.3.
#define XTCP_VERSION (XTCP_VERSION_MAJOR * 10000 + XTCP_VERSION_MINOR * 100 + XTCP_VERSION_PATCH)

namespace xtcp {

// The version of the library that the program runs with, "1.2.3". With a shared library it may be
// another one than that of the headers. Any thread.
XTCP_API std::string_view Version() noexcept;

}  // namespace xtcp
