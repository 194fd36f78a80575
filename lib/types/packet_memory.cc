// Packet's operators new and delete: a free list for each thread and size. A packet may be freed on
// another thread than it was made on; then it joins the list of that thread, which is bounded.

#include <link.h>
#include <xtcp/protocol.h>

#include <cstddef>
#include <cstring>
#include <new>
#include <utility>

// Functions of the sanitizers' runtimes. They are null in a program without them; which parts of
// the program were compiled for a sanitizer does not matter.
extern "C" {
[[gnu::weak]] void __asan_init();
[[gnu::weak]] void __hwasan_init();
[[gnu::weak]] void __msan_init();
[[gnu::weak]] void __tsan_init();
}

namespace xtcp {
namespace {

// Returns 1 for the library that valgrind(1) loads into the program that it checks.
int IsMemcheck(dl_phdr_info* object, std::size_t, void*) {
  return std::strstr(object->dlpi_name, "/vgpreload_memcheck-") != nullptr ? 1 : 0;
}

// Returns whether a tool looks for packets that are used after their end. Then each packet comes
// from the allocator and goes back to it.
bool MemoryIsWatched() noexcept {
  return __asan_init != nullptr || __hwasan_init != nullptr || __msan_init != nullptr ||
         __tsan_init != nullptr || ::dl_iterate_phdr(IsMemcheck, nullptr) != 0;
}

}  // namespace

constinit thread_local Packet::Memory::List Packet::Memory::lists_[kLargest / kStep]{};

// Frees the lists when the thread ends. Packets that are freed later find no room there.
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

// The list is full, or this thread has not used its lists yet.
void Packet::Memory::GiveSlowly(void* packet) noexcept {
  static const bool memory_is_watched = MemoryIsWatched();
  if (!memory_is_watched) {
    thread_local Cleaner cleaner;
  }
  ::operator delete(packet);
}

void* Packet::operator new(std::size_t size, const std::nothrow_t&) noexcept {
  try {
    return Memory::Take(size);
  } catch (const std::bad_alloc&) {
    return nullptr;
  }
}

// This is called after a constructor that threw. It does not say the size, so there is no list for
// it.
void Packet::operator delete(void* packet, const std::nothrow_t&) noexcept {
  ::operator delete(packet);
}

void* Packet::operator new(std::size_t size, std::align_val_t alignment,
                           const std::nothrow_t& nothrow) noexcept {
  return ::operator new(size, alignment, nothrow);
}

void Packet::operator delete(void* packet, std::align_val_t alignment,
                             const std::nothrow_t&) noexcept {
  ::operator delete(packet, alignment);
}

void* Packet::operator new(std::size_t size, std::align_val_t alignment) {
  return ::operator new(size, alignment);
}

// Not the form with a size: after a constructor that threw, compilers look for this one only.
void Packet::operator delete(void* packet, std::align_val_t alignment) noexcept {
  ::operator delete(packet, alignment);
}

}  // namespace xtcp
