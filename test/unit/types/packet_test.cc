// What `new` and `delete` of a packet do: see decision 9.

#include <xtcp/protocol.h>

#include <algorithm>
#include <array>
#include <catch2/catch.hpp>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <new>
#include <stdexcept>
#include <string>
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

// SIMD members ask for such alignments; 16 is what the allocator gives anyway.
template <std::size_t kAlignment>
struct alignas(kAlignment) Strict : Packet {
  Strict() = default;
  explicit Strict(bool throws) {
    if (throws) throw std::runtime_error("no");
  }
  std::array<char, kAlignment> bytes{};
};
template <std::size_t kAlignment>
struct Derived final : Strict<kAlignment> {
  double more = 0;
};

template <class P>
bool IsAligned(const P* packet) {
  return reinterpret_cast<std::uintptr_t>(packet) % alignof(P) == 0;
}

// Makes packets in every way that C++ has, several at a time, and says which gave a bad address.
template <class P>
std::string Misaligned() {
  std::string bad;
  const auto look = [&bad](const P* packet, const char* how) {
    if (!IsAligned(packet)) bad += std::string(how) + ", ";
  };
  for (int round = 0; round < 50; ++round) {
    std::vector<PacketPtr> packets;  // end through the base class
    const auto keep = [&](P* packet, const char* how) {
      look(packet, how);
      packets.emplace_back(packet);
    };
    keep(new P, "new");
    keep(new (std::nothrow) P, "new (std::nothrow)");
    keep(std::make_unique<P>().release(), "make_unique");
    if constexpr (alignof(P) > __STDCPP_DEFAULT_NEW_ALIGNMENT__) {
      constexpr std::align_val_t kAlignment{alignof(P)};
      keep(new (kAlignment) P, "new (std::align_val_t)");
      keep(new (kAlignment, std::nothrow) P, "new (std::align_val_t, std::nothrow)");
    }
    const auto shared = std::make_shared<P>();
    look(shared.get(), "make_shared");
    const std::vector<P> several(3);
    for (const P& one : several) look(&one, "vector");
#if !defined(__ARM_EABI__)
    // There an array of whatever type begins 8 bytes after its memory ("C++ ABI for the Arm
    // Architecture", array construction), and so is not aligned to more.
    const std::unique_ptr<P[]> array(new P[3]);
    for (int i = 0; i < 3; ++i) look(&array[i], "new[]");
    const std::unique_ptr<P[]> quiet(new (std::nothrow) P[3]);
    for (int i = 0; i < 3; ++i) look(&quiet[i], "new (std::nothrow) []");
#endif
    alignas(P) std::array<std::byte, sizeof(P)> room;
    P* const placed = new (room.data()) P;
    look(placed, "placement");
    placed->~P();
    if (round % 2 == 0) std::reverse(packets.begin(), packets.end());
  }
  return bad;
}

TEST_CASE("a packet is aligned as its type asks, however it is made", "[F4][seen-13]") {
  CHECK(Misaligned<Small>() == "");
  CHECK(Misaligned<Strict<16>>() == "");
  CHECK(Misaligned<Strict<32>>() == "");
  CHECK(Misaligned<Strict<64>>() == "");
  CHECK(Misaligned<Derived<32>>() == "");
  CHECK(Misaligned<Derived<64>>() == "");
  CHECK(Misaligned<Derived<512>>() == "");  // larger than any list's packets
}

// Whether making a packet throws what `E` names. Catch2's macros would allocate meanwhile.
template <class E, class Make>
bool Throws(const Make& make) {
  try {
    static_cast<void>(make());
  } catch (const E&) {
    return true;
  }
  return false;
}

TEST_CASE("a strictly aligned packet may fail like any other", "[F4][seen-13]") {
  using Wide = Strict<64>;
  std::uint64_t allocations = 0;
  const Wide* packet = nullptr;
  bool threw = false;
  {
    const test::NoMemory none;
    allocations = Allocations();
    packet = new (std::nothrow) Wide;
    threw = Throws<std::bad_alloc>([] { return new Wide; });
    allocations = Allocations() - allocations;
  }
  CHECK(packet == nullptr);
  CHECK(threw);
  CHECK(allocations == 2);
  // What was allocated for one whose constructor throws is freed.
  using E = std::runtime_error;
  CHECK(Throws<E>([] { return new Wide(true); }));  // what the first exception keeps
  const std::int64_t before = test::BytesInUse();
  threw = Throws<E>([] { return new Strict<16>(true); }) &&
          Throws<E>([] { return new (std::nothrow) Strict<16>(true); }) &&
          Throws<E>([] { return new Wide(true); }) &&
          Throws<E>([] { return new (std::nothrow) Wide(true); }) &&
          Throws<E>([] { return new (std::align_val_t(64)) Wide(true); }) &&
          Throws<E>([] { return new (std::align_val_t(64), std::nothrow) Wide(true); });
  const std::int64_t left = test::BytesInUse() - before;
  CHECK(threw);
  CHECK(left <= 0);  // a list may have had one of those that are freed
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
