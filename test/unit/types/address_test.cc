#include <xtcp/address.h>

#include <catch2/catch.hpp>
#include <string>

#include "socket/resolve.h"
#include "socket/socket_address.h"

namespace xtcp {
namespace {

TEST_CASE("a default address is empty") {
  const Address address;
  CHECK(address.ToString().empty());
  CHECK(address.Host().empty());
  CHECK(address.Port() == 0);
  CHECK_FALSE(address.IsUnix());
  CHECK(address == Address{});
}

TEST_CASE("an address prints as what parses back to it", "[M35]") {
  for (const std::string text :
       {"127.0.0.1:80", "0.0.0.0:1", "255.255.255.255:65535", "[::]:80", "[::1]:65535",
        "[2001:db8::8:800:200c:417a]:443", "[fe80::1%2]:80", "unix:/run/xtcp.sock",
        "unix:@abstract", "unix:@with space and \xff"}) {
    INFO(text);
    const internal::Resolution first = internal::ResolveForDial(text);
    REQUIRE_FALSE(first.error);
    REQUIRE(first.addresses.size() == 1);
    const Address address = internal::ToAddress(first.addresses[0]);
    CHECK(address.ToString() == text);

    const internal::Resolution again = internal::ResolveForListen(address.ToString());
    REQUIRE_FALSE(again.error);
    CHECK(internal::ToAddress(again.addresses[0]) == address);
  }
}

TEST_CASE("an address is copied as a value") {
  const Address address = internal::ToAddress(internal::ResolveForDial("unix:/a").addresses.at(0));
  Address copy = address;
  CHECK(copy == address);
  copy = Address{};
  CHECK(address.ToString() == "unix:/a");
}

}  // namespace
}  // namespace xtcp
