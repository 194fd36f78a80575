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

// "host:port", "[v6]:port", "[v6%zone]:port", "unix:/path", "unix:@abstract", and to listen also
// ":port". Strict, and nothing is truncated: what does not parse is Errc::kBadAddress. What looks
// like a number is never looked up as a name. A name may wait for the network; where it has no
// address, Errc::kHostNotFound, or the system's error. Listening takes a name's first address only;
// dialling needs a host and a port other than 0. Never throws: Errc::kNoMemory.
Resolution ResolveForListen(std::string_view address) noexcept;
Resolution ResolveForDial(std::string_view address) noexcept;

// As `ResolveForDial`, but nothing is looked up: for a name `is_name` is set, and there are no addresses.
Resolution ParseForDial(std::string_view address) noexcept;

}  // namespace xtcp::internal
