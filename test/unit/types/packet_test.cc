// What `new` and `delete` of a packet do: see decision 9.

#include <xtcp/protocol.h>

#include <array>
#include <catch2/catch.hpp>
#include <cstdint>
#include <memory>
#include <new>
#include <stdexcept>
#include <thread>
#include <vector>

#include "support/alloc_hook.h"

namespace xtcp {
namespace {

using test::Allocations;

template <std::size_t kBytes>
struct Sized : Packet {
  std::array<char, kBytes> bytes{};
};
using Small = Sized<40>;
using Large = Sized<300>;  // too large for a list

struct alignas(64) Aligned : Packet {
  std::array<char, 64> bytes{};
};

struct Throwing : Packet {
  Throwing() { throw std::runtime_error("no"); }
};

// How many allocations it takes to make `count` packets, which are all there at the same time, and
// to let them go.
template <class P>
std::uint64_t AllocationsOf(std::size_t count) {
  std::vector<PacketPtr> packets(count);
  const std::uint64_t before = Allocations();
  for (PacketPtr& packet : packets) packet = std::make_unique<P>();
  for (PacketPtr& packet : packets) packet.reset();
  return Allocations() - before;
}

#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)  // there is no list there
TEST_CASE("a small packet that is gone leaves its memory to the next", "[R6]") {
  std::uint64_t first = 0, again = 0, more = 0, larger = 0;
  std::thread([&] {
    AllocationsOf<Small>(1);  // from here on the thread has its lists
    first = AllocationsOf<Small>(64);
    again = AllocationsOf<Small>(64);
    more = AllocationsOf<Small>(100);
    larger = AllocationsOf<Large>(3);
  }).join();
  CHECK(first >= 63);
  CHECK(again == 0);
  CHECK(more == 36);  // a list holds 64
  CHECK(larger == 3);
}

TEST_CASE("a packet that goes on another thread joins that one's list", "[R6]") {
  std::uint64_t again = 0;
  std::vector<PacketPtr> packets(10);
  for (PacketPtr& packet : packets) packet = std::make_unique<Small>();
  std::thread([&] {
    AllocationsOf<Small>(1);
    packets.clear();
    again = AllocationsOf<Small>(10);
  }).join();
  CHECK(again == 0);
}
#endif

TEST_CASE("packets of any size and alignment come and go") {
  CHECK(AllocationsOf<Large>(10) == 10);
  const auto packet = std::make_unique<Aligned>();
  CHECK(reinterpret_cast<std::uintptr_t>(packet.get()) % 64 == 0);
}

TEST_CASE("a packet may be made without exceptions", "[F4]") {
  PacketPtr small(new (std::nothrow) Small);
  CHECK(small != nullptr);
  Large* large = nullptr;
  {
    const test::NoMemory none;
    large = new (std::nothrow) Large;
  }
  CHECK(large == nullptr);
  CHECK_THROWS_AS(new (std::nothrow) Throwing, std::runtime_error);
  CHECK_THROWS_AS(new Throwing, std::runtime_error);
}

}  // namespace
}  // namespace xtcp
