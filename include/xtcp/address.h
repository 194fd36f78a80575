#pragma once

#include <xtcp/export.h>

#include <array>
#include <cstddef>
#include <cstdint>
#include <string>

struct sockaddr;

namespace xtcp {

namespace internal {
struct AddressAccess;
}

// The place of a socket: an IPv4 or IPv6 address with a port, or a Unix socket. It is a value; a
// default one is empty and prints as "".
class XTCP_API Address {
 public:
  // Returns the numeric address without brackets, "" for a Unix socket. An IPv4-mapped IPv6 address
  // (RFC 4291, 2.5.5.2) reads as IPv4; a link-local one keeps its zone as a number, "fe80::1%2".
  std::string Host() const;

  // Returns the port, 0 for a Unix socket.
  std::uint16_t Port() const noexcept { return port_; }

  // Returns whether it is a Unix socket, with a path, an abstract name or none.
  bool IsUnix() const noexcept { return kind_ == Kind::kUnix; }

  // Returns "127.0.0.1:80", "[::1]:80", "unix:/path" or "unix:@abstract". `Listen` and the dials
  // parse it back. An unnamed Unix peer is "unix:".
  std::string ToString() const;

  // Whether all parts are the same, including the port and the zone.
  bool operator==(const Address&) const = default;

 private:
  friend struct internal::AddressAccess;
  enum class Kind : std::uint8_t { kNone, kIpv4, kIpv6, kUnix };

  Kind kind_ = Kind::kNone;
  std::uint16_t port_ = 0;
  std::uint32_t zone_ = 0;
  std::array<std::uint8_t, 16> ip_{};  // network order; IPv4 in the first four
  std::string path_;                   // an abstract name begins with a NUL
};

}  // namespace xtcp
