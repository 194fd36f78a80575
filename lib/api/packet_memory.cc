// Packet's operator new and delete: a free list per thread and size. A packet may be freed on
// another thread than it was made on; it then joins that thread's list, which is bounded.

#include <xtcp/protocol.h>

#include <cstddef>
#include <new>
#include <utility>

namespace xtcp {

namespace {

// Sizes that share a list; larger packets are left to the allocator.
constexpr std::size_t kStep = 16;
constexpr std::size_t kLargest = 256;
constexpr int kKept = 64;  // per list

struct Free {
  Free* next;
};

struct List {
  Free* first;
  int room;  // how many more may join
};

// Trivial, so that using it costs no check whether it was constructed; there is no room until the
// thread has arranged that it is cleaned.
constinit thread_local List lists[kLargest / kStep]{};

// Frees the lists when the thread ends. Packets that go later than this find no room.
struct Cleaner {
  Cleaner() {
    for (List& list : lists) list.room = kKept;
  }
  ~Cleaner() {
    for (List& list : lists) {
      list.room = 0;
      while (list.first != nullptr) ::operator delete(std::exchange(list.first, list.first->next));
    }
  }
};

// Under a sanitizer every packet comes from the allocator, so that a use after free is seen.
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
constexpr bool kKeep = false;
#else
constexpr bool kKeep = true;
#endif

bool IsKept(std::size_t size) { return kKeep && size <= kLargest; }

List& ListOf(std::size_t size) { return lists[(size - 1) / kStep]; }

// The list is full, or this thread has none yet.
[[gnu::noinline]] void DeleteSlowly(void* packet) {
  if (kKeep) thread_local Cleaner cleaner;
  ::operator delete(packet);
}

}  // namespace

void* Packet::operator new(std::size_t size) {
  if (!IsKept(size)) return ::operator new(size);
  List& list = ListOf(size);
  if (list.first == nullptr) return ::operator new((size + kStep - 1) / kStep * kStep);
  ++list.room;
  return std::exchange(list.first, list.first->next);
}

void Packet::operator delete(void* packet, std::size_t size) noexcept {
  if (IsKept(size) && packet != nullptr) {
    List& list = ListOf(size);
    if (list.room > 0) {
      --list.room;
      list.first = ::new (packet) Free{list.first};
      return;
    }
  }
  DeleteSlowly(packet);
}

void* Packet::operator new(std::size_t size, std::align_val_t alignment) {
  return ::operator new(size, alignment);
}

void Packet::operator delete(void* packet, std::size_t, std::align_val_t alignment) noexcept {
  ::operator delete(packet, alignment);
}

}  // namespace xtcp
