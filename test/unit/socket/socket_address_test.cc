#include "socket/socket_address.h"

#include <arpa/inet.h>

#include <array>
#include <catch2/catch.hpp>
#include <cstddef>
#include <cstring>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>
#include <vector>

namespace xtcp::internal {
namespace {

constexpr std::size_t kPathOffset = offsetof(sockaddr_un, sun_path);

SocketAddress Ipv4(const char* host, std::uint16_t port) {
  SocketAddress address;
  address.ipv4 = {};
  address.ipv4.sin_family = AF_INET;
  address.ipv4.sin_port = htons(port);
  REQUIRE(::inet_pton(AF_INET, host, &address.ipv4.sin_addr) == 1);
  address.size = sizeof(sockaddr_in);
  return address;
}

SocketAddress Ipv6(const char* host, std::uint16_t port, std::uint32_t zone = 0) {
  SocketAddress address;
  address.ipv6 = {};
  address.ipv6.sin6_family = AF_INET6;
  address.ipv6.sin6_port = htons(port);
  address.ipv6.sin6_scope_id = zone;
  REQUIRE(::inet_pton(AF_INET6, host, &address.ipv6.sin6_addr) == 1);
  address.size = sizeof(sockaddr_in6);
  return address;
}

// With these bytes for a path, and nothing behind them.
SocketAddress Unix(std::string_view path) {
  SocketAddress address;
  address.local.sun_family = AF_UNIX;
  REQUIRE(path.size() <= sizeof(address.local.sun_path));
  path.copy(address.local.sun_path, path.size());
  address.size = static_cast<socklen_t>(kPathOffset + path.size());
  return address;
}

using namespace std::string_literals;
using namespace std::string_view_literals;

struct Case {
  SocketAddress address;
  std::string text;
  std::string host;
  std::uint16_t port;
  bool is_unix;
};

std::vector<Case> Cases() {
  const std::string longest(108, 'p');
  return {
      {Ipv4("127.0.0.1", 80), "127.0.0.1:80", "127.0.0.1", 80, false},
      {Ipv4("255.254.253.252", 65535), "255.254.253.252:65535", "255.254.253.252", 65535, false},
      {Ipv4("0.0.0.0", 0), "0.0.0.0:0", "0.0.0.0", 0, false},
      {Ipv6("::1", 443), "[::1]:443", "::1", 443, false},
      {Ipv6("::", 1), "[::]:1", "::", 1, false},
      {Ipv6("2001:db8:1:2:3:4:5:6", 258), "[2001:db8:1:2:3:4:5:6]:258", "2001:db8:1:2:3:4:5:6", 258,
       false},
      {Ipv6("fe80::1", 7, 2), "[fe80::1%2]:7", "fe80::1%2", 7, false},
      {Ipv6("fe80::1", 7, 0xffffffff), "[fe80::1%4294967295]:7", "fe80::1%4294967295", 7, false},
      {Ipv6("::ffff:192.0.2.9", 9), "192.0.2.9:9", "192.0.2.9", 9, false},
      {Ipv6("::192.0.2.9", 9), "[::192.0.2.9]:9", "::192.0.2.9", 9, false},
      {Unix("/run/x.sock\0"sv), "unix:/run/x.sock", "", 0, true},
      {Unix("/run/x.sock"sv), "unix:/run/x.sock", "", 0, true},
      {Unix("/run\0garbage"sv), "unix:/run", "", 0, true},
      {Unix("\0abstract"sv), "unix:@abstract", "", 0, true},
      {Unix("\0a\0b\0"sv), "unix:@a\0b\0"s, "", 0, true},
      {Unix("\0"sv), "unix:@", "", 0, true},
      {Unix(""sv), "unix:", "", 0, true},
      {Unix(longest), "unix:" + longest, "", 0, true},
  };
}

TEST_CASE("an address of each kind reads as the user sees it") {
  for (const Case& c : Cases()) {
    INFO(c.text);
    const Address address = ToAddress(c.address);
    CHECK(address.ToString() == c.text);
    CHECK(address.Host() == c.host);
    CHECK(address.Port() == c.port);
    CHECK(address.IsUnix() == c.is_unix);
    CHECK(ToAddress(c.address.get(), c.address.size) == address);
  }
}

TEST_CASE("both ends of a connection come back as they were, also after moves") {
  for (const Case& local : Cases()) {
    for (const Case& remote : Cases()) {
      INFO(local.text << " and " << remote.text);
      ConnectionEnds ends(local.address, remote.address);
      CHECK(ends.Local() == ToAddress(local.address));
      CHECK(ends.Remote() == ToAddress(remote.address));
      CHECK(ends.IsUnix() == local.is_unix);
      ConnectionEnds moved;
      moved = std::move(ends);
      CHECK(moved.Local() == ToAddress(local.address));
      CHECK(moved.Remote() == ToAddress(remote.address));
    }
  }
  CHECK(ConnectionEnds().Local() == Address{});
  CHECK(ConnectionEnds().Remote() == Address{});
}

TEST_CASE("what the kernel did not fill in is never read", "[X3]") {
  for (const SocketAddress& whole : {Ipv4("127.0.0.1", 80), Ipv6("::1", 80)}) {
    for (socklen_t size = 0; size < whole.size; ++size) {
      CHECK(ToAddress(whole.get(), size) == Address{});
    }
  }
  const SocketAddress named = Unix("/run/x.sock");
  CHECK(ToAddress(named.get(), 0) == Address{});
  CHECK(ToAddress(named.get(), 1) == Address{});
  CHECK(ToAddress(named.get(), kPathOffset).ToString() == "unix:");
  CHECK(ToAddress(named.get(), kPathOffset + 4).ToString() == "unix:/run");
}

TEST_CASE("a size beyond the buffer reads no further than it", "[X3]") {
  // The kernel counts a NUL behind a path of 108 bytes (unix(7), BUGS).
  const std::string longest(108, 'p');
  const SocketAddress address = Unix(longest);
  alignas(sockaddr_un) std::array<char, 256> memory;
  memory.fill('q');
  std::memcpy(memory.data(), address.get(), sizeof(sockaddr_un));
  const auto* raw = reinterpret_cast<const sockaddr*>(memory.data());
  for (const socklen_t size : {110, 111, 200}) {
    CHECK(ToAddress(raw, size).ToString() == "unix:" + longest);
  }
}

TEST_CASE("an address may lie anywhere in memory", "[X3]") {
  const SocketAddress address = Ipv6("2001:db8::1", 443);
  alignas(8) std::array<char, sizeof(SocketAddress) + 8> memory{};
  for (std::size_t offset = 0; offset < 8; ++offset) {
    std::memcpy(memory.data() + offset, address.get(), address.size);
    const auto* raw = reinterpret_cast<const sockaddr*>(memory.data() + offset);
    CHECK(ToAddress(raw, address.size).ToString() == "[2001:db8::1]:443");
  }
}

TEST_CASE("an address of another family is empty") {
  SocketAddress address = Ipv6("::1", 80);
  for (const int family : {AF_UNSPEC, AF_NETLINK, AF_VSOCK, 255}) {
    address.base.sa_family = static_cast<sa_family_t>(family);
    CHECK(ToAddress(address) == Address{});
  }
}

TEST_CASE("addresses are equal when all of them is") {
  CHECK(ToAddress(Ipv4("1.2.3.4", 5)) == ToAddress(Ipv4("1.2.3.4", 5)));
  CHECK(ToAddress(Ipv6("::ffff:1.2.3.4", 5)) == ToAddress(Ipv4("1.2.3.4", 5)));
  CHECK_FALSE(ToAddress(Ipv4("1.2.3.4", 5)) == ToAddress(Ipv4("1.2.3.4", 6)));
  CHECK_FALSE(ToAddress(Ipv4("1.2.3.4", 5)) == ToAddress(Ipv4("1.2.3.5", 5)));
  CHECK_FALSE(ToAddress(Ipv6("fe80::1", 5, 1)) == ToAddress(Ipv6("fe80::1", 5, 2)));
  CHECK_FALSE(ToAddress(Ipv6("::102:304", 5)) == ToAddress(Ipv4("1.2.3.4", 5)));
  CHECK_FALSE(ToAddress(Unix("/a")) == ToAddress(Unix("/b")));
  CHECK_FALSE(ToAddress(Unix("")) == Address{});
}

}  // namespace
}  // namespace xtcp::internal
