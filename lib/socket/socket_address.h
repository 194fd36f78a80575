#pragma once

#include <netinet/in.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <xtcp/address.h>

#include <array>
#include <cstdint>
#include <string>
#include <string_view>
#include <utility>

namespace xtcp::internal {

// An address as the kernel takes and gives it, with room for every kind that the library uses (a
// sockaddr_storage has twice the room).
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

// As the user sees it; IPv4-mapped IPv6 reads as IPv4. Empty for other families, and for a size
// that is too small for the family. `size` may be more than the kernel wrote (unix(7), BUGS).
// Throws std::bad_alloc, for a Unix address only.
Address ToAddress(const sockaddr* address, socklen_t size);
inline Address ToAddress(const SocketAddress& address) {
  return ToAddress(address.get(), address.size);
}

// Address's private parts, for the only ones who make addresses.
struct AddressAccess {
  using Kind = Address::Kind;
  static Address Make(Kind kind, std::uint16_t port, std::uint32_t zone,
                      const std::array<std::uint8_t, 16>& ip, std::string_view path);
};

// The same in 24 bytes, for what each connection keeps.
class PackedAddress {
 public:
  PackedAddress() noexcept : ip_{} {}  // unpacks to an empty one

  // Throws std::bad_alloc, and allocates, for a Unix address with a name only.
  PackedAddress(const sockaddr* address, socklen_t size);
  explicit PackedAddress(const SocketAddress& address)
      : PackedAddress(address.get(), address.size) {}

  PackedAddress(PackedAddress&& other) noexcept : PackedAddress() { Swap(other); }
  PackedAddress& operator=(PackedAddress&& other) noexcept {
    PackedAddress(std::move(other)).Swap(*this);
    return *this;
  }
  ~PackedAddress();

  Address Unpack() const;
  bool is_unix() const noexcept { return kind_ == AddressAccess::Kind::kUnix; }

 private:
  void Swap(PackedAddress& other) noexcept;

  AddressAccess::Kind kind_{};
  std::uint16_t port_ = 0;
  std::uint32_t zone_ = 0;
  union {
    std::array<std::uint8_t, 16> ip_;
    std::string* path_;  // kUnix: owned, null without a name; a smart one would not fit a union
  };
};
static_assert(sizeof(PackedAddress) == 24);

}  // namespace xtcp::internal
