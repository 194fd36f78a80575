#pragma once

#include <algorithm>
#include <cstddef>

#include "base/check.h"

namespace xtcp::internal {

// The part of `send_buffer_limit` that is spoken for on one connection, and a note of the sends
// that were refused for want of the rest. It is exact, because one lock guards it: a refusal and
// its note are one step, and so are the return of room and the look for the note.
class SendBudget {
 public:
  // Charges `bytes` if there is room for them, and returns whether there was.
  bool ChargeIfFree(std::size_t bytes, std::size_t limit) {
    if (bytes > limit - charged_) return false;
    charged_ += bytes;
    return true;
  }

  // Charges `bytes`, or notes that this many were refused, and returns which.
  bool TryCharge(std::size_t bytes, std::size_t limit) {
    if (ChargeIfFree(bytes, limit)) return true;
    refused_ = std::max(refused_, bytes);
    return false;
  }

  // Charges `bytes` more if at least half of the limit is free afterwards.
  bool TryChargeAhead(std::size_t bytes, std::size_t limit) {
    if (charged_ > limit / 2 || bytes > limit / 2 - charged_) return false;
    charged_ += bytes;
    return true;
  }

  void Release(std::size_t bytes) {
    XTCP_DCHECK(bytes <= charged_, "more is given back than was charged");
    charged_ -= bytes;
  }

  bool has_refused() const { return refused_ != 0; }

  // Returns whether a send was refused and there is room now: half of the limit, and what the
  // largest refused call wanted. Then the note is removed.
  bool TakeReady(std::size_t limit) {
    if (refused_ == 0 || limit - charged_ < std::max(limit - limit / 2, refused_)) return false;
    refused_ = 0;
    return true;
  }

  std::size_t charged() const { return charged_; }

 private:
  std::size_t charged_ = 0;
  std::size_t refused_ = 0;  // bytes of the largest refused call; 0: none
};

}  // namespace xtcp::internal
