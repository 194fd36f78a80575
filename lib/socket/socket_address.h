#pragma once

#include <netinet/in.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <xtcp/address.h>

#include <array>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <variant>

namespace xtcp::internal {

// An address in the kernel's form, with room for every kind that the library uses. (A
// sockaddr_storage would take twice the room.)
struct SocketAddress {
  SocketAddress() noexcept : local{} {}

  const sockaddr* get() const noexcept { return &base; }
  sockaddr* get() noexcept { return &base; }

  union {
    sockaddr base;
    sockaddr_in ipv4;
    sockaddr_in6 ipv6;
    sockaddr_un local;
  };
  socklen_t size = 0;

  static constexpr socklen_t kCapacity = sizeof(sockaddr_un);
};
static_assert(sizeof(sockaddr_un) >= sizeof(sockaddr_in6));

// Converts to the user's form. An IPv4-mapped IPv6 address reads as IPv4. The result is empty for
// other families, and for a size that is too small for the family. `size` may be more than the
// kernel wrote (unix(7), BUGS). Throws std::bad_alloc, for a Unix address only.
Address ToAddress(const sockaddr* address, socklen_t size);
inline Address ToAddress(const SocketAddress& address) {
  return ToAddress(address.get(), address.size);
}

// Makes addresses, for which it may touch the private members of Address.
struct AddressAccess {
  using Kind = Address::Kind;
  static Address Make(Kind kind, std::uint16_t port, std::uint32_t zone,
                      const std::array<std::uint8_t, 16>& ip, std::string_view path);
};

// The addresses of the two ends, which every connection keeps. IPv4 fits into these 24 bytes, of
// which the last seven are free; others are on the heap.
class ConnectionEnds {
 public:
  ConnectionEnds() = default;  // both are empty

  // Throws std::bad_alloc, but not for IPv4 (IPv4-mapped IPv6 included).
  ConnectionEnds(const SocketAddress& local, const SocketAddress& remote);

  Address Local() const;
  Address Remote() const;
  bool IsUnix() const;

 private:
  struct Ipv4 {
    std::array<std::uint8_t, 4> ip;
    std::uint16_t port;
  };
  using Ipv4Pair = std::pair<Ipv4, Ipv4>;  // local and remote, here and below
  using Others = std::unique_ptr<const std::pair<Address, Address>>;

  // Converts one end to the user's form.
  static Address Make(const Ipv4& end);

  [[no_unique_address]] std::variant<Others, Ipv4Pair> ends_;
};
static_assert(sizeof(ConnectionEnds) <= 24);  // less where a pointer has 32 bits

}  // namespace xtcp::internal
