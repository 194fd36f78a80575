#pragma once

#include <cstddef>
#include <cstdint>

namespace xtcp::test {

// Global operator new, of all forms, replaced in every test program: it counts, and can be told to
// fail. Thread safety: any thread; what is counted and fails is what the whole process allocates.

// How many allocations there were.
std::uint64_t Allocations();

// While one lives, every allocation fails, on all threads.
class NoMemory {
 public:
  NoMemory();
  ~NoMemory();
  NoMemory(const NoMemory&) = delete;
  NoMemory& operator=(const NoMemory&) = delete;
};

}  // namespace xtcp::test
