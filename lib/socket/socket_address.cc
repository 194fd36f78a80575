#include "socket/socket_address.h"

#include <algorithm>
#include <cstddef>
#include <cstring>
#include <string_view>
#include <utility>

namespace xtcp::internal {

Address AddressAccess::Make(Kind kind, std::uint16_t port, std::uint32_t zone,
                            const std::array<std::uint8_t, 16>& ip, std::string_view path) {
  Address address;
  address.kind_ = kind;
  address.port_ = port;
  address.zone_ = zone;
  address.ip_ = ip;
  address.path_ = path;
  return address;
}

namespace {

using Kind = AddressAccess::Kind;

struct Parts {
  Kind kind = Kind::kNone;
  std::uint16_t port = 0;
  std::uint32_t zone = 0;
  std::array<std::uint8_t, 16> ip{};
  std::string_view path{};  // into the socket address
};

Parts DecodeIpv4(const sockaddr_in& in) noexcept {
  Parts parts{.kind = Kind::kIpv4, .port = ntohs(in.sin_port)};
  std::memcpy(parts.ip.data(), &in.sin_addr, sizeof(in.sin_addr));
  return parts;
}

Parts DecodeIpv6(const sockaddr_in6& in) noexcept {
  Parts parts{.kind = Kind::kIpv6, .port = ntohs(in.sin6_port), .zone = in.sin6_scope_id};
  std::memcpy(parts.ip.data(), &in.sin6_addr, sizeof(in.sin6_addr));
  if (IN6_IS_ADDR_V4MAPPED(&in.sin6_addr)) {
    parts.kind = Kind::kIpv4;
    parts.zone = 0;
    std::copy(parts.ip.begin() + 12, parts.ip.end(), parts.ip.begin());
    std::fill(parts.ip.begin() + 4, parts.ip.end(), std::uint8_t{0});
  }
  return parts;
}

// Decodes the three kinds of unix(7): unnamed; abstract, which begins with a NUL and of which every
// byte counts; and a path, which ends at its NUL, or after 108 bytes without one.
Parts DecodeUnix(const sockaddr* address, socklen_t size) noexcept {
  constexpr std::size_t kOffset = offsetof(sockaddr_un, sun_path);
  Parts parts{.kind = Kind::kUnix};
  const std::size_t known = std::min<std::size_t>(size, sizeof(sockaddr_un));
  if (known <= kOffset) return parts;
  const char* path = reinterpret_cast<const char*>(address) + kOffset;
  const std::size_t room = known - kOffset;
  parts.path = {path, path[0] == '\0' ? room : ::strnlen(path, room)};
  return parts;
}

Parts Decode(const sockaddr* address, socklen_t size) noexcept {
  if (size < sizeof(sa_family_t)) return {};
  // It is copied out because the caller's bytes may have another type or alignment.
  sa_family_t family;
  std::memcpy(&family, reinterpret_cast<const char*>(address) + offsetof(sockaddr, sa_family),
              sizeof(family));
  if (family == AF_INET && size >= sizeof(sockaddr_in)) {
    sockaddr_in in;
    std::memcpy(&in, address, sizeof(in));
    return DecodeIpv4(in);
  }
  if (family == AF_INET6 && size >= sizeof(sockaddr_in6)) {
    sockaddr_in6 in;
    std::memcpy(&in, address, sizeof(in));
    return DecodeIpv6(in);
  }
  if (family == AF_UNIX) return DecodeUnix(address, size);
  return {};
}

}  // namespace

Address ToAddress(const sockaddr* address, socklen_t size) {
  const Parts parts = Decode(address, size);
  return AddressAccess::Make(parts.kind, parts.port, parts.zone, parts.ip, parts.path);
}

ConnectionEnds::ConnectionEnds(const SocketAddress& local, const SocketAddress& remote) {
  const Parts near = Decode(local.get(), local.size);
  const Parts far = Decode(remote.get(), remote.size);
  if (near.kind == Kind::kIpv4 && far.kind == Kind::kIpv4) {
    Ipv4Pair& pair = ends_.emplace<Ipv4Pair>();
    std::copy_n(near.ip.begin(), pair.first.ip.size(), pair.first.ip.begin());
    pair.first.port = near.port;
    std::copy_n(far.ip.begin(), pair.second.ip.size(), pair.second.ip.begin());
    pair.second.port = far.port;
  } else {
    ends_ =
        std::make_unique<const std::pair<Address, Address>>(ToAddress(local), ToAddress(remote));
  }
}

Address ConnectionEnds::Local() const {
  if (const auto* const pair = std::get_if<Ipv4Pair>(&ends_)) return Make(pair->first);
  const Others& others = std::get<Others>(ends_);
  return others == nullptr ? Address() : others->first;
}

Address ConnectionEnds::Remote() const {
  if (const auto* const pair = std::get_if<Ipv4Pair>(&ends_)) return Make(pair->second);
  const Others& others = std::get<Others>(ends_);
  return others == nullptr ? Address() : others->second;
}

bool ConnectionEnds::IsUnix() const {
  const auto* const others = std::get_if<Others>(&ends_);
  return others != nullptr && *others != nullptr && (*others)->first.IsUnix();
}

Address ConnectionEnds::Make(const Ipv4& end) {
  std::array<std::uint8_t, 16> ip{};
  std::copy(end.ip.begin(), end.ip.end(), ip.begin());
  return AddressAccess::Make(Kind::kIpv4, end.port, 0, ip, {});
}

}  // namespace xtcp::internal
