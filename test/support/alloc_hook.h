#pragma once

#include <cstddef>
#include <cstdint>
#include <limits>

namespace xtcp::test {

// Global operator new, of all forms, replaced in every test program: it counts, and can be told to
// fail. Thread safety: any thread; what is counted and fails is what the whole process allocates.

// How many allocations there were, those that failed included.
std::uint64_t Allocations();

// Bytes that were allocated and have not been freed, as the allocator counts them.
std::int64_t BytesInUse();

// While one lives, the `first` allocation from here on (1: the next one) and those behind it fail,
// `times` of them, on all threads. One at a time. Catch2's assertions allocate: none in between.
class FailAllocations {
 public:
  static constexpr std::uint64_t kAlways = std::numeric_limits<std::uint64_t>::max();

  explicit FailAllocations(std::uint64_t first, std::uint64_t times = 1);
  ~FailAllocations();
  FailAllocations(const FailAllocations&) = delete;
  FailAllocations& operator=(const FailAllocations&) = delete;

  // Whether one has failed.
  bool failed() const { return Allocations() >= first_; }

 private:
  const std::uint64_t first_;  // counted from the program's begin
};

// While one lives, every allocation fails.
class NoMemory : FailAllocations {
 public:
  NoMemory() : FailAllocations(1, kAlways) {}
};

// While one lives, every allocation of the thread that made it fails; or none does, for the parts of
// the test that run in between.
class NoMemoryHere {
 public:
  explicit NoMemoryHere(bool fail = true);
  ~NoMemoryHere();
  NoMemoryHere(const NoMemoryHere&) = delete;
  NoMemoryHere& operator=(const NoMemoryHere&) = delete;

 private:
  const bool before_;
};

}  // namespace xtcp::test
