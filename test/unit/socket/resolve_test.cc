#include "socket/resolve.h"

#include <xtcp/error.h>

#include <catch2/catch.hpp>
#include <cstddef>
#include <string>
#include <string_view>
#include <vector>

#include "support/random.h"
#include "support/raw_peer.h"

namespace xtcp::internal {
namespace {

using namespace std::string_literals;

// What it resolves to, as text; "" and an error for what it does not.
std::string Only(const Resolution& resolution) {
  if (resolution.error) {
    CHECK(resolution.addresses.empty());
    return "";
  }
  CHECK(resolution.addresses.size() == 1);
  return ToAddress(resolution.addresses.at(0)).ToString();
}

TEST_CASE("numbers and paths parse, for listening and for dialling", "[M35][X3]") {
  struct {
    std::string text;
    std::string parsed;
  } const table[] = {
      {"127.0.0.1:80", "127.0.0.1:80"},
      {"0.0.0.0:1", "0.0.0.0:1"},
      {"255.255.255.255:65535", "255.255.255.255:65535"},
      {"10.0.0.1:00080", "10.0.0.1:80"},
      {"10.0.0.1:00001", "10.0.0.1:1"},
      {"[::1]:80", "[::1]:80"},
      {"[::]:80", "[::]:80"},
      {"[2001:DB8::A]:443", "[2001:db8::a]:443"},
      {"[2001:db8:0:0:0:0:0:1]:443", "[2001:db8::1]:443"},
      {"[::ffff:192.0.2.1]:80", "192.0.2.1:80"},
      {"[64:ff9b::192.0.2.33]:80", "[64:ff9b::c000:221]:80"},
      {"[fe80::1%1]:80", "[fe80::1%1]:80"},
      {"[fe80::1%4294967295]:80", "[fe80::1%4294967295]:80"},
      {"[fe80::1%0]:80", "[fe80::1]:80"},
      {"unix:/a", "unix:/a"},
      {"unix:/", "unix:/"},
      {"unix:/run/a b:c@d[e]", "unix:/run/a b:c@d[e]"},
      {"unix:/" + std::string(106, 'x'), "unix:/" + std::string(106, 'x')},
      {"unix:@a", "unix:@a"},
      {"unix:@/a", "unix:@/a"},
      {"unix:@@", "unix:@@"},
      {"unix:@" + std::string(107, 'x'), "unix:@" + std::string(107, 'x')},
      {"unix:@\xc3\xa9", "unix:@\xc3\xa9"},
  };
  for (const auto& [text, parsed] : table) {
    INFO(text);
    for (const Resolution& resolution : {ResolveForListen(text), ResolveForDial(text)}) {
      CHECK_FALSE(resolution.error);
      CHECK(Only(resolution) == parsed);
      CHECK_FALSE(resolution.any_family);
    }
  }
}

TEST_CASE("what does not parse is refused, for listening and for dialling", "[M35][M36][X3]") {
  const std::vector<std::string> table = {
      // No host and no port, or only one of them.
      "",
      ":",
      "::",
      "80",
      "localhost",
      "127.0.0.1",
      "[::1]",
      "localhost:",
      "127.0.0.1:",
      "[::1]:",
      "[]:80",
      "[:80",
      "]:80",
      // Ports.
      "127.0.0.1:65536",
      "127.0.0.1:99999",
      "127.0.0.1:000080",
      "127.0.0.1:100000",
      "127.0.0.1:4294967376",
      "127.0.0.1:18446744073709551696",
      "127.0.0.1:-1",
      "127.0.0.1:+80",
      "127.0.0.1: 80",
      "127.0.0.1:80 ",
      "127.0.0.1:\t80",
      "127.0.0.1:8 0",
      "127.0.0.1:0x50",
      "127.0.0.1:80a",
      "127.0.0.1:http",
      "127.0.0.1:8.0",
      "127.0.0.1:80:80",
      "127.0.0.1::80",
      "127.0.0.1:80\n",
      "127.0.0.1:\xd9\xa1",
      // Hosts that look like numbers.
      "127.1:80",
      "1.2.3:80",
      "2130706433:80",
      "0:80",
      "1.2.3.4.5:80",
      "1.2.3.256:80",
      "1.2.3.:80",
      "1.2.3.4.:80",
      "01.2.3.4:80",
      "1.2.3.04:80",
      "0x7f.1:80",
      "0x7f000001:80",
      "0X7F.0x1:80",
      "127.0.0.0x1:80",
      "0x:80",
      "host.1:80",
      "host.0xff:80",
      "host.example.123.:80",
      // IPv6.
      "::1:80",
      "2001:db8::1:80",
      "[::1]80",
      "[::1]]:80",
      "[[::1]]:80",
      "[::1:80",
      "::1]:80",
      "[::1] :80",
      " [::1]:80",
      "x[::1]:80",
      "[::1:]:80",
      "[1::2::3]:80",
      "[12345::]:80",
      "[::g]:80",
      "[127.0.0.1]:80",
      "[localhost]:80",
      "[1:2:3:4:5:6:7:8:9]:80",
      "[::ffff:1.2.3]:80",
      // Zones.
      "[fe80::1%]:80",
      "[fe80::1%%1]:80",
      "[%1]:80",
      "[fe80::1%4294967296]:80",
      "[fe80::1%00000000001]:80",
      "[fe80::1% ]:80",
      "[fe80::1%a b]:80",
      "[fe80::1%a/b]:80",
      "[fe80::1%sixteen-letters-]:80",
      "127.0.0.1%1:80",
      "localhost%1:80",
      // Names.
      " localhost:80",
      "localhost :80",
      "lo cal:80",
      "local\nhost:80",
      ".:80",
      "..:80",
      ".localhost:80",
      "localhost..:80",
      "a..b:80",
      "a/b:80",
      "user@host:80",
      "http://host:80",
      "host,other:80",
      "*:80",
      "h\xc3\xb6st:80",
      std::string(64, 'a') + ":80",
      "a." + std::string(64, 'a') + ".b:80",
      std::string(100'000, 'a') + ":80",
      // 254 bytes in good labels.
      std::string(62, 'a') + "." + std::string(63, 'b') + "." + std::string(63, 'c') + "." +
          std::string(63, 'd') + ":80",
      // Embedded NULs.
      "127.0.0.1\0:80"s,
      "127.0.0.1:80\0"s,
      "127.0.0.1:\0"s + "80",
      "local\0host:80"s,
      "[::1\0]:80"s,
      "\0"s,
      "unix:/a\0b"s,
      "unix:/a\0"s,
      "unix:@a\0b"s,
      // Unix.
      "unix:",
      "unix:@",
      "unix: /a",
      "unix:a",
      "unix:./a",
      "unix:80",
      "unix:/" + std::string(107, 'x'),
      "unix:@" + std::string(108, 'x'),
      "unix:/" + std::string(100'000, 'x'),
      "UNIX:/a",
      "unix/a",
      "/a",
      "@a",
  };
  for (const std::string& text : table) {
    INFO('"' << text.substr(0, 80) << '"');
    CHECK(ResolveForListen(text).error == Errc::kBadAddress);
    CHECK(ResolveForListen(text).addresses.empty());
    CHECK(ResolveForDial(text).error == Errc::kBadAddress);
    CHECK(ResolveForDial(text).addresses.empty());
  }
  CHECK(ResolveForListen(std::string_view{}).error == Errc::kBadAddress);
  CHECK(ResolveForDial(std::string_view{}).error == Errc::kBadAddress);
}

TEST_CASE("listening needs no host: a port alone is every address of both families", "[M35]") {
  for (const std::string text : {":80", ":0", ":65535", ":00080"}) {
    INFO(text);
    const Resolution resolution = ResolveForListen(text);
    CHECK(resolution.any_family);
    const auto port = std::to_string(std::stoi(text.substr(1)));
    CHECK(Only(resolution) == "[::]:" + port);
    CHECK(ResolveForDial(text).error == Errc::kBadAddress);
  }
  for (const std::string text : {":", ":65536", ":-1", ":x", "::80", " :80"}) {
    INFO(text);
    CHECK(ResolveForListen(text).error == Errc::kBadAddress);
  }
}

TEST_CASE("a port of 0 is for listening only", "[M35]") {
  for (const std::string text : {"127.0.0.1:0", "[::1]:0"}) {
    CHECK(Only(ResolveForListen(text)) == text);
    CHECK(ResolveForDial(text).error == Errc::kBadAddress);
  }
  CHECK(ResolveForDial("127.0.0.1:00000").error == Errc::kBadAddress);
  CHECK(ResolveForDial("localhost:0").error == Errc::kBadAddress);
}

TEST_CASE("a name is looked up, and keeps its port", "[M35]") {
  if (!xtcp::test::HasLocalhost()) return;
  for (const std::string host : {"localhost", "LOCALHOST"}) {
    INFO(host);
    const Resolution dial = ResolveForDial(host + ":80");
    REQUIRE_FALSE(dial.error);
    REQUIRE_FALSE(dial.addresses.empty());
    for (const SocketAddress& address : dial.addresses) {
      const std::string text = ToAddress(address).ToString();
      CHECK((text == "127.0.0.1:80" || text == "[::1]:80"));
    }
    const Resolution listen = ResolveForListen(host + ":80");
    CHECK_FALSE(listen.any_family);
    CHECK(Only(listen) == ToAddress(dial.addresses.front()).ToString());
  }
}

TEST_CASE("a zone may be an interface's name", "[M35]") {
  const Resolution loopback = ResolveForDial("[fe80::1%lo]:80");
  if (!loopback.error) CHECK(Only(loopback) == "[fe80::1%1]:80");
  CHECK(ResolveForDial("[fe80::1%no-such-if]:80").error == Errc::kHostNotFound);
}

TEST_CASE("the unix addresses have exactly the bytes that they were given", "[M36]") {
  const Resolution file = ResolveForListen("unix:/run/x");
  CHECK(file.addresses.at(0).size == offsetof(sockaddr_un, sun_path) + 7);
  CHECK(std::string_view(file.addresses.at(0).local.sun_path) == "/run/x");

  const Resolution abstract = ResolveForListen("unix:@name");
  const SocketAddress& address = abstract.addresses.at(0);
  CHECK(address.size == offsetof(sockaddr_un, sun_path) + 5);
  CHECK(std::string_view(address.local.sun_path, 5) == "\0name"s);
}

TEST_CASE("a shortened or changed address never does harm, nor becomes a name", "[M35][X3]") {
  test::Random random(4);
  const std::string seeds[] = {"127.0.0.1:8080", "[2001:db8::1%2]:443", "unix:@abstract", ":80"};
  const std::string alphabet = "0123456789abcdefx.:[]%@/+- \t\n\0\xff"s;
  for (int round = 0; round < 20'000; ++round) {
    std::string text = seeds[round % 4];
    for (std::size_t changes = random.Between(1, 3); changes > 0; --changes) {
      const std::size_t at = random.Between(0, text.size() - 1);
      const char c = alphabet[random.Between(0, alphabet.size() - 1)];
      switch (random.Between(0, 2)) {
        case 0:
          text[at] = c;
          break;
        case 1:
          text.insert(at, 1, c);
          break;
        default:
          if (text.size() > 1) text.erase(at, 1);
      }
    }
    // Letters before a colon may be a real name, and the test asks no name server.
    const std::string host = text.substr(0, text.find(':'));
    if (!text.starts_with('[') && !text.starts_with("unix:") &&
        host.find_first_of("abcdefx-") != std::string::npos) {
      continue;
    }
    if (text.find('%') != std::string::npos) continue;
    const Resolution resolution = ResolveForListen(text);
    if (resolution.error) {
      REQUIRE(resolution.error == Errc::kBadAddress);
      continue;
    }
    REQUIRE(resolution.addresses.size() == 1);
    // What was understood prints as something that is understood the same way.
    if (resolution.any_family) continue;
    const Address address = ToAddress(resolution.addresses[0]);
    REQUIRE(ToAddress(ResolveForListen(address.ToString()).addresses.at(0)) == address);
  }
}

}  // namespace
}  // namespace xtcp::internal
