#pragma once

#include <utility>

#include "sys/syscalls.h"

namespace xtcp::internal {

// The one owner of a descriptor. It calls close(2) once and never repeats it: on Linux the
// descriptor is gone even after EINTR or EIO, and its number may already be another one's
// (close(2)).
class UniqueFd {
 public:
  UniqueFd() noexcept = default;
  explicit UniqueFd(int fd) noexcept : fd_(fd) {}
  UniqueFd(UniqueFd&& other) noexcept : fd_(other.Release()) {}
  UniqueFd& operator=(UniqueFd&& other) noexcept {
    Reset(other.Release());
    return *this;
  }
  ~UniqueFd() { Reset(); }

  int get() const noexcept { return fd_; }
  bool valid() const noexcept { return fd_ >= 0; }

  // Closes what it holds, and takes `fd` in its place.
  void Reset(int fd = -1) noexcept {
    const int old = std::exchange(fd_, fd);
    if (old >= 0) sys::Close(old);
  }

  // Gives the descriptor up without closing it.
  [[nodiscard]] int Release() noexcept { return std::exchange(fd_, -1); }

 private:
  int fd_ = -1;
};

}  // namespace xtcp::internal
