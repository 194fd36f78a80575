#pragma once

#include <cstddef>
#include <cstring>
#include <memory>
#include <new>
#include <type_traits>
#include <utility>

namespace xtcp {

// A call that is made once: a function object that takes nothing, with what it captured. It may own
// what cannot be copied, such as a `PacketPtr`. Captures of up to 48 bytes that move without
// throwing need no memory of their own.
//
// Thread safety: none; use it on one thread at a time.
class Task {
 public:
  // Makes an empty task.
  Task() noexcept = default;

  // Takes `function`, by copy or move. Throws what that throws, and std::bad_alloc when a larger
  // one finds no memory.
  template <typename Function>
  requires(!std::is_same_v<std::remove_cvref_t<Function>, Task> &&
           std::is_invocable_v<std::decay_t<Function>&>)
      Task(Function&& function) {  // NOLINT: a function object is a task
    using Stored = std::decay_t<Function>;
    if constexpr (kFits<Stored>) {
      ::new (static_cast<void*>(&memory_)) Stored(std::forward<Function>(function));
      kind_ = &Kind::template kInPlace<Stored>;
    } else {
      auto* const stored = new Stored(std::forward<Function>(function));
      std::memcpy(&memory_, &stored, sizeof stored);
      kind_ = &Kind::template kOnHeap<Stored>;
    }
  }

  // Takes the call over; `other` is empty then. What an assignment replaces is destroyed.
  Task(Task&& other) noexcept { Take(other); }
  Task& operator=(Task&& other) noexcept {
    if (this != &other) {
      Reset();
      Take(other);
    }
    return *this;
  }
  ~Task() { Reset(); }

  // Returns whether there is a call to make.
  explicit operator bool() const noexcept { return kind_ != nullptr; }

  // Makes the call; there must be one. The task keeps its function object, and so its captures,
  // until it is destroyed or assigned to.
  void operator()() { kind_->call(&memory_); }

 private:
  static constexpr std::size_t kSize = 48;
  struct Memory {
    alignas(std::max_align_t) std::byte bytes[kSize];
  };

  template <typename Stored>
  static constexpr bool kFits =
      sizeof(Stored) <= kSize &&
      alignof(Stored) <= alignof(Memory) && std::is_nothrow_move_constructible_v<Stored>;

  // What can be done with one kind of function object.
  struct Kind {
    void (*call)(void* memory);
    void (*move)(void* from, void* to) noexcept;  // `from` is destroyed
    void (*destroy)(void* memory) noexcept;

    template <typename Stored>
    static const Kind kInPlace;
    template <typename Stored>
    static const Kind kOnHeap;
  };

  template <typename Stored>
  static Stored* OnHeap(void* memory) {
    Stored* stored = nullptr;
    std::memcpy(&stored, memory, sizeof stored);
    return stored;
  }

  void Take(Task& other) noexcept {
    kind_ = std::exchange(other.kind_, nullptr);
    if (kind_ != nullptr) kind_->move(&other.memory_, &memory_);
  }
  void Reset() noexcept {
    const Kind* const kind = std::exchange(kind_, nullptr);
    if (kind != nullptr) kind->destroy(&memory_);
  }

  const Kind* kind_ = nullptr;
  Memory memory_;
};

template <typename Stored>
inline constexpr Task::Kind Task::Kind::kInPlace{
    .call = [](void* memory) { (*std::launder(static_cast<Stored*>(memory)))(); },
    .move =
        [](void* from, void* to) noexcept {
          Stored* const stored = std::launder(static_cast<Stored*>(from));
          ::new (to) Stored(std::move(*stored));
          std::destroy_at(stored);
        },
    .destroy =
        [](void* memory) noexcept { std::destroy_at(std::launder(static_cast<Stored*>(memory))); }};

template <typename Stored>
inline constexpr Task::Kind Task::Kind::kOnHeap{
    .call = [](void* memory) { (*OnHeap<Stored>(memory))(); },
    .move = [](void* from, void* to) noexcept { std::memcpy(to, from, sizeof(Stored*)); },
    .destroy = [](void* memory) noexcept { delete OnHeap<Stored>(memory); }};

}  // namespace xtcp
