#include "support/alloc_hook.h"

#include <malloc.h>

#include <atomic>
#include <cstdlib>
#include <new>
#include <utility>

namespace xtcp::test {
namespace {

constexpr std::uint64_t kNever = ~std::uint64_t{0};

// Allocation `fail_first` of the program, from 1, and those behind it fail, `fail_times` of them.
// All relaxed: the hook must not order anything, or it would hide races of the library.
std::atomic<std::uint64_t> allocations{0};
std::atomic<std::int64_t> bytes_in_use{0};
std::atomic<std::uint64_t> fail_first{kNever};
std::atomic<std::uint64_t> fail_times{0};
constinit thread_local bool fail_here = false;

bool Fails() noexcept {
  const std::uint64_t n = allocations.fetch_add(1, std::memory_order_relaxed) + 1;
  const std::uint64_t first = fail_first.load(std::memory_order_relaxed);
  if (fail_here) return true;
  return n >= first && n - first < fail_times.load(std::memory_order_relaxed);
}

void Count(void* memory, std::int64_t sign) noexcept {
  if (memory == nullptr) return;
  bytes_in_use.fetch_add(sign * static_cast<std::int64_t>(::malloc_usable_size(memory)),
                         std::memory_order_relaxed);
}

void* Allocate(std::size_t size, std::size_t alignment) noexcept {
  if (Fails()) return nullptr;
  void* const memory =
      alignment <= alignof(std::max_align_t)
          ? std::malloc(size)
          : std::aligned_alloc(alignment, (size + alignment - 1) / alignment * alignment);
  Count(memory, 1);
  return memory;
}

void Free(void* memory) noexcept {
  Count(memory, -1);
  std::free(memory);
}

void* AllocateOrThrow(std::size_t size, std::size_t alignment = 0) {
  void* const memory = Allocate(size == 0 ? 1 : size, alignment);
  if (memory == nullptr) throw std::bad_alloc();
  return memory;
}

}  // namespace

std::uint64_t Allocations() { return allocations.load(std::memory_order_relaxed); }

std::int64_t BytesInUse() { return bytes_in_use.load(std::memory_order_relaxed); }

FailAllocations::FailAllocations(std::uint64_t first, std::uint64_t times)
    : first_(Allocations() + first) {
  fail_times.store(times, std::memory_order_relaxed);
  fail_first.store(first_, std::memory_order_relaxed);
}

FailAllocations::~FailAllocations() { fail_first.store(kNever, std::memory_order_relaxed); }

NoMemoryHere::NoMemoryHere(bool fail) : before_(std::exchange(fail_here, fail)) {}
NoMemoryHere::~NoMemoryHere() { fail_here = before_; }

}  // namespace xtcp::test

using xtcp::test::Allocate;
using xtcp::test::AllocateOrThrow;
using xtcp::test::Free;

void* operator new(std::size_t size) { return AllocateOrThrow(size); }
void* operator new[](std::size_t size) { return AllocateOrThrow(size); }
void* operator new(std::size_t size, const std::nothrow_t&) noexcept { return Allocate(size, 0); }
void* operator new[](std::size_t size, const std::nothrow_t&) noexcept { return Allocate(size, 0); }
void* operator new(std::size_t size, std::align_val_t alignment) {
  return AllocateOrThrow(size, static_cast<std::size_t>(alignment));
}
void* operator new[](std::size_t size, std::align_val_t alignment) {
  return AllocateOrThrow(size, static_cast<std::size_t>(alignment));
}
void* operator new(std::size_t size, std::align_val_t alignment, const std::nothrow_t&) noexcept {
  return Allocate(size, static_cast<std::size_t>(alignment));
}
void* operator new[](std::size_t size, std::align_val_t alignment, const std::nothrow_t&) noexcept {
  return Allocate(size, static_cast<std::size_t>(alignment));
}
void operator delete(void* memory) noexcept { Free(memory); }
void operator delete[](void* memory) noexcept { Free(memory); }
void operator delete(void* memory, std::size_t) noexcept { Free(memory); }
void operator delete[](void* memory, std::size_t) noexcept { Free(memory); }
void operator delete(void* memory, const std::nothrow_t&) noexcept { Free(memory); }
void operator delete[](void* memory, const std::nothrow_t&) noexcept { Free(memory); }
void operator delete(void* memory, std::align_val_t) noexcept { Free(memory); }
void operator delete[](void* memory, std::align_val_t) noexcept { Free(memory); }
void operator delete(void* memory, std::size_t, std::align_val_t) noexcept { Free(memory); }
void operator delete[](void* memory, std::size_t, std::align_val_t) noexcept { Free(memory); }
void operator delete(void* memory, std::align_val_t, const std::nothrow_t&) noexcept {
  Free(memory);
}
void operator delete[](void* memory, std::align_val_t, const std::nothrow_t&) noexcept {
  Free(memory);
}
