#include <xtcp/version.h>

#define XTCP_TEXT_OF(number) #number
#define XTCP_TEXT(number) XTCP_TEXT_OF(number)

namespace xtcp {

std::string_view Version() noexcept {
  return XTCP_TEXT(XTCP_VERSION_MAJOR) "." XTCP_TEXT(XTCP_VERSION_MINOR) "." XTCP_TEXT(
      XTCP_VERSION_PATCH);
}

}  // namespace xtcp
