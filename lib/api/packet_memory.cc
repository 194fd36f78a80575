// Packet's operator new and delete: a free list per thread and size. A packet may be freed on
// another thread than it was made on; it then joins that thread's list, which is bounded.

#include <xtcp/protocol.h>

#include <cstddef>
#include <new>
#include <utility>

namespace xtcp {

constinit thread_local Packet::Memory::List Packet::Memory::lists_[kLargest / kStep]{};

// Frees the lists when the thread ends. Packets that go later than this find no room.
struct Packet::Memory::Cleaner {
  static constexpr int kKept = 64;  // per list

  Cleaner() {
    for (List& list : lists_) list.room = kKept;
  }
  ~Cleaner() {
    for (List& list : lists_) {
      list.room = 0;
      while (list.first != nullptr) ::operator delete(std::exchange(list.first, list.first->next));
    }
  }
};

// The list is full, or this thread has none yet. Under a sanitizer there is never one: every packet
// comes from the allocator, so that a use after free is seen.
void Packet::Memory::GiveSlowly(void* packet) noexcept {
#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
  thread_local Cleaner cleaner;
#endif
  ::operator delete(packet);
}

void* Packet::operator new(std::size_t size, const std::nothrow_t&) noexcept {
  try {
    return Memory::Take(size);
  } catch (const std::bad_alloc&) {
    return nullptr;
  }
}

// After a constructor that threw: of what size, is not said here.
void Packet::operator delete(void* packet, const std::nothrow_t&) noexcept {
  ::operator delete(packet);
}

void* Packet::operator new(std::size_t size, std::align_val_t alignment) {
  return ::operator new(size, alignment);
}

void Packet::operator delete(void* packet, std::size_t, std::align_val_t alignment) noexcept {
  ::operator delete(packet, alignment);
}

}  // namespace xtcp
