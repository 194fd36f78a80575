#include "conn/slice.h"

#include <catch2/catch.hpp>
#include <chrono>

#include "sys/syscalls.h"

namespace xtcp::internal {
namespace {

// How many packets a slice lets through when each takes the handler `each`, at least.
int PacketsIn(Slice slice, std::chrono::nanoseconds each, int at_most) {
  int packets = 0;
  while (packets < at_most && !slice.IsOver()) {
    ++packets;
    const std::chrono::nanoseconds until = sys::Now() + each;
    while (sys::Now() < until) {
    }
  }
  return packets;
}

TEST_CASE("a slice never lets more than its number of packets through", "[R9]") {
  // A busy machine may end one earlier, never later.
  for (int i = 0; i < 10; ++i) {
    const int packets = PacketsIn({}, std::chrono::nanoseconds(0), 5 * Slice::kPackets);
    CHECK(packets <= Slice::kPackets);
    CHECK(packets >= 2 * Slice::kFirstLook);
  }
}

TEST_CASE("a slice lets the first packets through without a look at the clock", "[R9]") {
  CHECK(PacketsIn({}, Slice::kTime, Slice::kFirstLook) == Slice::kFirstLook);
}

TEST_CASE("a slice ends at the second look when the handler is slow", "[R9]") {
  // The first look begins the measurement, and after as many packets more it is known.
  CHECK(PacketsIn({}, Slice::kTime / Slice::kFirstLook, 5 * Slice::kPackets) ==
        2 * Slice::kFirstLook);
}

}  // namespace
}  // namespace xtcp::internal
