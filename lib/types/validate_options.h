#pragma once

#include <xtcp/options.h>

namespace xtcp::internal {

// Throws std::invalid_argument for every value that options.h calls impossible. Its text names the
// field.
void ValidateOptions(const Options& options);

}  // namespace xtcp::internal
