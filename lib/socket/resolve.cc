#include "socket/resolve.h"

#include <arpa/inet.h>
#include <net/if.h>
#include <xtcp/error.h>

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <memory>
#include <new>
#include <optional>
#include <string>

#include "sys/syscalls.h"

namespace xtcp::internal {
namespace {

struct HostPort {
  std::string_view host;
  std::uint16_t port = 0;
  bool bracketed = false;
};

bool IsDigit(char c) { return c >= '0' && c <= '9'; }
bool IsHexDigit(char c) { return IsDigit(c) || (c >= 'a' && c <= 'f') || (c >= 'A' && c <= 'F'); }
bool IsNameCharacter(char c) {
  return IsDigit(c) || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '-' || c == '_';
}

// Parses digits, at most `most_digits` of them. It takes no sign, no space and no base.
template <typename T>
std::optional<T> ParseNumber(std::string_view text, std::size_t most_digits) {
  if (text.empty() || text.size() > most_digits) return std::nullopt;
  if (!std::all_of(text.begin(), text.end(), IsDigit)) return std::nullopt;
  T value{};
  const auto result = std::from_chars(text.data(), text.data() + text.size(), value);
  if (result.ec != std::errc{}) return std::nullopt;  // too large
  return value;
}

// Splits "host:port" and "[host]:port". It refuses "::1:80", which is ambiguous.
std::optional<HostPort> Split(std::string_view text) {
  HostPort parts;
  std::size_t colon = text.find(':');
  if (text.starts_with('[')) {
    const std::size_t bracket = text.find(']');
    if (bracket == std::string_view::npos) return std::nullopt;
    parts.bracketed = true;
    parts.host = text.substr(1, bracket - 1);
    colon = bracket + 1;
    if (!text.substr(colon).starts_with(':')) return std::nullopt;
  } else {
    if (colon == std::string_view::npos) return std::nullopt;
    parts.host = text.substr(0, colon);
  }
  const auto port = ParseNumber<std::uint16_t>(text.substr(colon + 1), 5);
  if (!port) return std::nullopt;
  parts.port = *port;
  return parts;
}

SocketAddress MakeIpv4(const in_addr& host, std::uint16_t port) {
  SocketAddress address;
  address.ipv4 = {};
  address.ipv4.sin_family = AF_INET;
  address.ipv4.sin_port = htons(port);
  address.ipv4.sin_addr = host;
  address.size = sizeof(address.ipv4);
  return address;
}

SocketAddress MakeIpv6(const in6_addr& host, std::uint32_t zone, std::uint16_t port) {
  SocketAddress address;
  address.ipv6 = {};
  address.ipv6.sin6_family = AF_INET6;
  address.ipv6.sin6_port = htons(port);
  address.ipv6.sin6_addr = host;
  address.ipv6.sin6_scope_id = zone;
  address.size = sizeof(address.ipv6);
  return address;
}

Resolution Failure(std::error_code error) { return {.error = error}; }

Resolution Success(const SocketAddress& address) { return {.addresses = {address}}; }

// Parses the text after "unix:". The kernel would also take a path of 108 bytes without a NUL, but
// few programs read such an address back correctly (unix(7), BUGS).
Resolution ParseUnix(std::string_view path) {
  SocketAddress address;
  address.local.sun_family = AF_UNIX;
  constexpr std::size_t kMost = sizeof(address.local.sun_path) - 1;
  constexpr std::size_t kOffset = offsetof(sockaddr_un, sun_path);
  char* const out = address.local.sun_path;
  if (path.starts_with('/') && path.size() <= kMost) {
    path.copy(out, path.size());
    address.size = static_cast<socklen_t>(kOffset + path.size() + 1);
    return Success(address);
  }
  if (path.starts_with('@') && path.size() > 1 && path.size() - 1 <= kMost) {
    path.substr(1).copy(out + 1, path.size() - 1);
    address.size = static_cast<socklen_t>(kOffset + path.size());
    return Success(address);
  }
  return Failure(Errc::kBadAddress);
}

// Returns whether this is a dotted name of letters, digits, hyphens and underscores, of at most 253
// bytes (RFC 1035, 2.3.4, less the two that only the wire needs) and with at most 63 in a label. A
// dot may follow.
//
// What ends in a number is not a name: "127.1" and "0x7f.1" are addresses to inet_aton(3), which
// getaddrinfo(3) asks, and mean something else to every other reader. The rule is that of
// https://url.spec.whatwg.org/#ends-in-a-number-checker.
bool IsName(std::string_view host) {
  if (host.ends_with('.')) host.remove_suffix(1);
  if (host.size() > 253) return false;
  std::string_view label;
  for (std::size_t begin = 0; begin <= host.size(); begin += label.size() + 1) {
    label = host.substr(begin, host.find('.', begin) - begin);
    if (label.empty() || label.size() > 63) return false;
    if (!std::all_of(label.begin(), label.end(), IsNameCharacter)) return false;
  }
  if (std::all_of(label.begin(), label.end(), IsDigit)) return false;
  const bool hex = label.starts_with("0x") || label.starts_with("0X");
  return !hex || !std::all_of(label.begin() + 2, label.end(), IsHexDigit);
}

struct FreeList {
  void operator()(addrinfo* list) const { sys::FreeAddrInfo(list); }
};

// getaddrinfo(3), with its errors as M31 and docs/errors.md have them.
std::error_code LookUp(const std::string& host, int flags,
                       std::unique_ptr<addrinfo, FreeList>* list) {
  addrinfo hints{};
  hints.ai_family = AF_UNSPEC;
  hints.ai_socktype = SOCK_STREAM;
  hints.ai_flags = flags;
  addrinfo* found = nullptr;
  int code;
  int system_error;
  do {
    errno = 0;
    code = sys::GetAddrInfo(host.c_str(), nullptr, &hints, &found);
    system_error = errno;
  } while (code == EAI_SYSTEM && system_error == EINTR);
  if (code == 0) {
    list->reset(found);
    return {};
  }
  if (code == EAI_MEMORY) return Errc::kNoMemory;
  if (code == EAI_AGAIN) return {EAGAIN, std::system_category()};
  if (code == EAI_SYSTEM && system_error != 0) return {system_error, std::system_category()};
  return Errc::kHostNotFound;
}

Resolution ResolveName(std::string_view host, std::uint16_t port, int flags) {
  std::unique_ptr<addrinfo, FreeList> list;
  if (const auto error = LookUp(std::string(host), flags, &list)) return Failure(error);
  Resolution resolution;
  for (const addrinfo* info = list.get(); info != nullptr; info = info->ai_next) {
    if (info->ai_family == AF_INET && info->ai_addrlen >= sizeof(sockaddr_in)) {
      sockaddr_in in;
      std::memcpy(&in, info->ai_addr, sizeof(in));
      resolution.addresses.push_back(MakeIpv4(in.sin_addr, port));
    } else if (info->ai_family == AF_INET6 && info->ai_addrlen >= sizeof(sockaddr_in6)) {
      sockaddr_in6 in;
      std::memcpy(&in, info->ai_addr, sizeof(in));
      resolution.addresses.push_back(MakeIpv6(in.sin6_addr, in.sin6_scope_id, port));
    }
  }
  if (resolution.addresses.empty()) return Failure(Errc::kHostNotFound);
  return resolution;
}

bool IsZoneName(std::string_view zone) {
  const auto allowed = [](char c) { return c > ' ' && c < 0x7f && c != '/' && c != '%'; };
  return !zone.empty() && zone.size() < IF_NAMESIZE &&
         std::all_of(zone.begin(), zone.end(), allowed);
}

// Resolves the text between brackets. A zone (RFC 4007, 11) is the number of an interface, or its
// name, which getaddrinfo looks up without asking a server.
Resolution ResolveIpv6(std::string_view host, std::uint16_t port) {
  const std::size_t percent = host.find('%');
  const std::string digits(host.substr(0, percent));
  in6_addr ip;
  if (::inet_pton(AF_INET6, digits.c_str(), &ip) != 1) return Failure(Errc::kBadAddress);
  if (percent != std::string_view::npos) {
    const std::string_view zone = host.substr(percent + 1);
    if (const auto number = ParseNumber<std::uint32_t>(zone, 10)) {
      return Success(MakeIpv6(ip, *number, port));
    }
    if (!IsZoneName(zone) || std::all_of(zone.begin(), zone.end(), IsDigit)) {
      return Failure(Errc::kBadAddress);
    }
    return ResolveName(host, port, AI_NUMERICHOST);
  }
  if (IN6_IS_ADDR_V4MAPPED(&ip)) {
    in_addr mapped;
    std::memcpy(&mapped, &ip.s6_addr[12], sizeof(mapped));
    return Success(MakeIpv4(mapped, port));
  }
  return Success(MakeIpv6(ip, 0, port));
}

enum class Purpose { kListen, kDial, kParseOnly };

Resolution ResolveOrThrow(std::string_view text, Purpose purpose) {
  constexpr std::string_view kUnix = "unix:";
  if (text.find('\0') != std::string_view::npos) return Failure(Errc::kBadAddress);
  if (text.starts_with(kUnix)) return ParseUnix(text.substr(kUnix.size()));

  const auto parts = Split(text);
  if (!parts) return Failure(Errc::kBadAddress);
  if (purpose != Purpose::kListen && parts->port == 0) return Failure(Errc::kBadAddress);
  if (parts->bracketed) return ResolveIpv6(parts->host, parts->port);
  if (parts->host.empty()) {
    if (purpose != Purpose::kListen) return Failure(Errc::kBadAddress);
    Resolution any = Success(MakeIpv6(in6addr_any, 0, parts->port));
    any.any_family = true;
    return any;
  }
  in_addr ip;
  if (::inet_pton(AF_INET, std::string(parts->host).c_str(), &ip) == 1) {
    return Success(MakeIpv4(ip, parts->port));
  }
  if (!IsName(parts->host)) return Failure(Errc::kBadAddress);
  if (purpose == Purpose::kParseOnly) return {.is_name = true};
  // Without AI_ADDRCONFIG, which would hide "::1" on a host that has no other IPv6 address
  // (getaddrinfo(3)). Addresses that cannot be reached come last (RFC 6724), and fail at once.
  return ResolveName(parts->host, parts->port, 0);
}

Resolution Resolve(std::string_view text, Purpose purpose) noexcept {
  try {
    return ResolveOrThrow(text, purpose);
  } catch (const std::bad_alloc&) {
    return Failure(Errc::kNoMemory);
  }
}

}  // namespace

Resolution ResolveForListen(std::string_view address) noexcept {
  Resolution resolution = Resolve(address, Purpose::kListen);
  if (resolution.addresses.size() > 1) {
    resolution.addresses.erase(resolution.addresses.begin() + 1, resolution.addresses.end());
  }
  return resolution;
}

Resolution ResolveForDial(std::string_view address) noexcept {
  return Resolve(address, Purpose::kDial);
}

Resolution ParseForDial(std::string_view address) noexcept {
  return Resolve(address, Purpose::kParseOnly);
}

}  // namespace xtcp::internal
