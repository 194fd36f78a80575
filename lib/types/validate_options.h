#pragma once

#include <xtcp/options.h>

namespace xtcp::internal {

// Throws std::invalid_argument that names the field for every value that options.h calls
// impossible.
void ValidateOptions(const Options& options);

}  // namespace xtcp::internal
