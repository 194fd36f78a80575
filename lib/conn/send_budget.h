#pragma once

#include <atomic>
#include <cstddef>

namespace xtcp::internal {

// How much of `send_buffer_limit` is spoken for on one connection. Exact although senders on other
// threads and the loop charge it without a common lock.
//
// All operations are sequentially consistent: a refused sender first leaves its note and then tries
// again; whoever releases first releases and then looks for the note. One of them sees the other,
// so that no `OnSendReady` is lost.
class SendBudget {
 public:
  bool TryCharge(std::size_t bytes, std::size_t limit) {
    std::size_t charged = charged_.load();
    do {
      if (bytes > limit - charged) return false;
    } while (!charged_.compare_exchange_weak(charged, charged + bytes));
    return true;
  }
  void Release(std::size_t bytes) { charged_.fetch_sub(bytes); }
  std::size_t charged() const { return charged_.load(); }

 private:
  std::atomic<std::size_t> charged_{0};
};

}  // namespace xtcp::internal
