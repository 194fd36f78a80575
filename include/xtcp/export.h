#pragma once

// The library is built with hidden visibility; what carries this mark is its public surface.
#define XTCP_API __attribute__((visibility("default")))
