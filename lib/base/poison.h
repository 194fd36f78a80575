#pragma once

#include <cstddef>
#include <cstring>
#include <span>

#include "base/check.h"

// Of the address sanitizer's runtime, where it is in the program; null elsewhere.
extern "C" {
[[gnu::weak]] void __asan_poison_memory_region(const volatile void* bytes, std::size_t size);
[[gnu::weak]] void __asan_unpoison_memory_region(const volatile void* bytes, std::size_t size);
}

namespace xtcp::internal {

// Marks bytes that nobody may read any more, so that a view that is used after its end is found: in a
// program with the address sanitizer by a report at that place, whatever the library was compiled for;
// in the library's debug builds by bytes that make no sense.
inline void Poison(std::span<const std::byte> bytes) noexcept {
  if (bytes.empty()) return;
  if (__asan_poison_memory_region != nullptr) {
    __asan_poison_memory_region(bytes.data(), bytes.size());
  } else if constexpr (kDebugChecks) {
    std::memset(const_cast<std::byte*>(bytes.data()), 0xdb, bytes.size());
  }
}

// Before the bytes are written again, or handed to somebody else.
inline void Unpoison(std::span<const std::byte> bytes) noexcept {
  if (__asan_unpoison_memory_region != nullptr && !bytes.empty()) {
    __asan_unpoison_memory_region(bytes.data(), bytes.size());
  }
}

}  // namespace xtcp::internal
