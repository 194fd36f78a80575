// Packet's operator new and delete: a free list per thread and size. A packet may be freed on
// another thread than it was made on; it then joins that thread's list, which is bounded.

#include <xtcp/protocol.h>

#include <array>
#include <cstddef>
#include <new>
#include <utility>

namespace xtcp {

namespace {

// Sizes that share a list; larger packets are left to the allocator.
constexpr std::size_t kStep = 16;
constexpr std::size_t kLargest = 256;
constexpr std::size_t kClasses = kLargest / kStep;
constexpr int kKept = 64;  // per list

struct Free {
  Free* next;
};

struct List {
  Free* first;
  int count;
};

// Trivial, so that using it costs no check whether it was constructed.
constinit thread_local std::array<List, kClasses> lists{};
enum class Cleaning : char { kNotArranged, kArranged, kDone };
constinit thread_local Cleaning cleaning = Cleaning::kNotArranged;

// Frees the lists when the thread ends. Packets that go later than this go straight back.
struct Cleaner {
  Cleaner() { cleaning = Cleaning::kArranged; }
  ~Cleaner() {
    cleaning = Cleaning::kDone;
    for (List& list : lists) {
      while (list.first != nullptr) ::operator delete(std::exchange(list.first, list.first->next));
    }
  }
};

[[gnu::noinline]] void ArrangeCleaning() { thread_local Cleaner cleaner; }

// Under a sanitizer every packet comes from the allocator, so that a use after free is seen.
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
constexpr bool kKeep = false;
#else
constexpr bool kKeep = true;
#endif

constexpr std::size_t ClassOf(std::size_t size) { return (size - 1) / kStep; }

}  // namespace

void* Packet::operator new(std::size_t size) {
  if (!kKeep || size > kLargest) return ::operator new(size);
  List& list = lists[ClassOf(size)];
  if (list.first != nullptr) {
    --list.count;
    return std::exchange(list.first, list.first->next);
  }
  return ::operator new((ClassOf(size) + 1) * kStep);
}

void Packet::operator delete(void* packet, std::size_t size) noexcept {
  if (packet == nullptr) return;
  if (kKeep && size <= kLargest) {
    List& list = lists[ClassOf(size)];
    if (list.count < kKept && cleaning != Cleaning::kDone) {
      if (cleaning == Cleaning::kNotArranged) ArrangeCleaning();
      ++list.count;
      list.first = ::new (packet) Free{list.first};
      return;
    }
  }
  ::operator delete(packet);
}

void* Packet::operator new(std::size_t size, std::align_val_t alignment) {
  return ::operator new(size, alignment);
}

void Packet::operator delete(void* packet, std::size_t size, std::align_val_t alignment) noexcept {
  ::operator delete(packet, size, alignment);
}

}  // namespace xtcp
