#pragma once

#include <atomic>
#include <cstddef>
#include <utility>

#include "sys/sync.h"

namespace xtcp::internal {

// The count of an object that is held by `Ref`.
class RefCounted {
 protected:
  RefCounted() = default;
  ~RefCounted() = default;
  RefCounted(const RefCounted&) = delete;
  RefCounted& operator=(const RefCounted&) = delete;

 private:
  template <typename T>
  friend class Ref;
  sys::Atomic<std::size_t> refs_{0};
};

// Holds an object that others hold, too, as std::shared_ptr does. It is one pointer wide instead of
// two, for holders of which there are thousands; the object has to be a `RefCounted`. It is never
// null, but after it was moved from.
//
// Thread safety: that of std::shared_ptr.
template <typename T>
class Ref {
 public:
  // Throws what the constructor throws, and std::bad_alloc.
  template <typename... Args>
  static Ref Make(Args&&... args) {
    return Ref(new T(std::forward<Args>(args)...));
  }

  Ref(const Ref& other) noexcept : Ref(other.object_) {}
  Ref(Ref&& other) noexcept : object_(std::exchange(other.object_, nullptr)) {}
  ~Ref() {
    // Acquire and release: what every holder did is over before the object is destroyed.
    if (object_ != nullptr && object_->refs_.fetch_sub(1, std::memory_order_acq_rel) == 1) {
      delete object_;
    }
  }
  Ref& operator=(const Ref&) = delete;

  T& operator*() const { return *object_; }
  T* operator->() const { return object_; }

 private:
  explicit Ref(T* object) noexcept : object_(object) {
    object_->refs_.fetch_add(1, std::memory_order_relaxed);
  }

  T* object_;
};

}  // namespace xtcp::internal
