#pragma once

#include <string_view>
#include <system_error>
#include <vector>

#include "socket/socket_address.h"

namespace xtcp::internal {

// Either an error or at least one address, in the order in which to try them; or a name.
struct Resolution {
  std::error_code error{};
  std::vector<SocketAddress> addresses{};
  bool any_family = false;  // ":port": one IPv6 socket that also takes IPv4
  bool is_name = false;     // see ParseForDial
};

// These take "host:port", "[v6]:port", "[v6%zone]:port", "unix:/path", "unix:@abstract", and to
// listen also ":port". They parse strictly and truncate nothing: what does not parse is
// Errc::kBadAddress. What looks like a number is never looked up as a name. The look-up of a name
// may wait for the network; if the name has no address the result is Errc::kHostNotFound, or the
// system's error. Listening takes the first address of a name only. Dialling needs a host, and a
// port other than 0. They never throw; without memory the result is Errc::kNoMemory.
Resolution ResolveForListen(std::string_view address) noexcept;
Resolution ResolveForDial(std::string_view address) noexcept;

// As `ResolveForDial`, but nothing is looked up: for a name `is_name` is set, and there are no
// addresses.
Resolution ParseForDial(std::string_view address) noexcept;

}  // namespace xtcp::internal
