#pragma once

#include <xtcp/task.h>

#include <cstddef>
#include <memory>
#include <utility>

#include "base/check.h"

namespace xtcp::internal {

// Tasks in order. It is one pointer wide, and an empty one holds no memory. Its destructor destroys
// what is in it.
class TaskChain {
 public:
  // A task that is to be put into a chain. It is made first, so that no lock is held while memory
  // is allocated.
  struct Node {
    explicit Node(Task t) : task(std::move(t)) {}
    Task task;
    Node* next = nullptr;  // in a circle: the last one's is the first
  };

  TaskChain() = default;
  TaskChain(TaskChain&& other) noexcept : last_(std::exchange(other.last_, nullptr)) {}
  TaskChain& operator=(TaskChain&& other) noexcept {
    std::swap(last_, other.last_);
    return *this;
  }
  ~TaskChain() {
    while (!empty()) TakeFirst();
  }

  bool empty() const { return last_ == nullptr; }

  void Append(std::unique_ptr<Node> node) {
    Node* const added = node.release();
    added->next = last_ == nullptr ? added : std::exchange(last_->next, added);
    last_ = added;
  }

  std::unique_ptr<Node> TakeFirst() {
    XTCP_DCHECK(!empty(), "a task is taken from an empty chain");
    Node* const first = last_->next;
    if (first == last_) {
      last_ = nullptr;
    } else {
      last_->next = first->next;
    }
    return std::unique_ptr<Node>(first);
  }

  // Takes the first tasks out, at most `most` of them.
  TaskChain Split(std::size_t most) {
    TaskChain first;
    for (; most > 0 && !empty(); --most) first.Append(TakeFirst());
    return first;
  }

 private:
  Node* last_ = nullptr;
};

}  // namespace xtcp::internal
