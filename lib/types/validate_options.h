#pragma once

#include <xtcp/options.h>
#include <xtcp/redialer.h>

namespace xtcp::internal {

// Throws std::invalid_argument for every value that options.h calls impossible. Its text names the
// field.
void ValidateOptions(const Options& options);

// The same for redialer.h.
void ValidateBackoff(const Backoff& backoff);

}  // namespace xtcp::internal
