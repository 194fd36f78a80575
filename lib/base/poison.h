#pragma once

#include <cstddef>
#include <cstring>
#include <span>

#include "base/check.h"

// Functions of the address sanitizer's runtime. They are null in a program without it.
extern "C" {
[[gnu::weak]] void __asan_poison_memory_region(const volatile void* bytes, std::size_t size);
[[gnu::weak]] void __asan_unpoison_memory_region(const volatile void* bytes, std::size_t size);
}

namespace xtcp::internal {

// Marks bytes that must not be read any more, so that a view that is used too late is found. A
// program with the address sanitizer reports it at that place, even if the library was compiled
// without. In a debug build of the library those of them that were written, `written` from the
// first on, are overwritten with ones that make no sense.
inline void Poison(std::span<const std::byte> bytes, std::size_t written) noexcept {
  if (bytes.empty()) return;
  if (__asan_poison_memory_region != nullptr) {
    __asan_poison_memory_region(bytes.data(), bytes.size());
  } else if (kDebugChecks && written != 0) {
    std::memset(const_cast<std::byte*>(bytes.data()), 0xdb, written);
  }
}

inline void Poison(std::span<const std::byte> bytes) noexcept { Poison(bytes, bytes.size()); }

// Takes the mark away, before the bytes are written again or given back to the allocator.
inline void Unpoison(std::span<const std::byte> bytes) noexcept {
  if (__asan_unpoison_memory_region != nullptr && !bytes.empty()) {
    __asan_unpoison_memory_region(bytes.data(), bytes.size());
  }
}

}  // namespace xtcp::internal
