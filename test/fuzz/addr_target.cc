#include <string>
#include <string_view>

#include "fuzz/targets.h"
#include "socket/resolve.h"
#include "socket/socket_address.h"

namespace xtcp::test {
namespace {

using internal::Resolution;
using internal::SocketAddress;

// What was taken is what it says: its text is taken again, and means the same.
void CheckRoundTrip(const SocketAddress& address, bool listen) {
  const std::string text = internal::ToAddress(address).ToString();
  const Resolution again =
      listen ? internal::ResolveForListen(text) : internal::ResolveForDial(text);
  FUZZ_CHECK(!again.error);
  FUZZ_CHECK(again.addresses.size() == 1);
  FUZZ_CHECK(internal::ToAddress(again.addresses[0]) == internal::ToAddress(address));
}

}  // namespace

void FuzzAddr(FuzzInput input) {
  const std::string text(input.begin(), input.end());
  for (const bool listen : {false, true}) {
    const Resolution resolution =
        listen ? internal::ResolveForListen(text) : internal::ResolveForDial(text);
    FUZZ_CHECK(resolution.error || !resolution.addresses.empty());
    if (resolution.error) continue;
    // Nothing is truncated (X3): a path is there to its last byte.
    const bool unix_path = text.starts_with("unix:");
    for (const SocketAddress& address : resolution.addresses) {
      const Address shown = internal::ToAddress(address);
      FUZZ_CHECK(shown.IsUnix() == unix_path);
      if (unix_path &&
          text.find_first_not_of("abcdefghijklmnopqrstuvwxyz/.-_:@") == std::string::npos) {
        FUZZ_CHECK(shown.ToString() == text);
      }
      // A zone is a number on this machine alone, and any address is two.
      if (text.find('%') == std::string::npos && !resolution.any_family) {
        CheckRoundTrip(address, listen);
      }
    }
  }
}

}  // namespace xtcp::test
