#pragma once

#include <memory>

#include "support/process.h"

namespace bench {

// A path of which each direction takes a time, through this machine only: a network namespace of our
// own, and in it a TUN device (Documentation/networking/tuntap.rst of the kernel) whose packets a
// process takes, holds for `delay` seconds and gives back with source and destination exchanged. So
// who connects to kRemote reaches a server on kLocal, and sees it at kRemote.
//
// The calling process moves to the namespace, and so do the children that it starts later.
class DelayedPath {
 public:
  static constexpr const char* kLocal = "10.9.0.1";
  static constexpr const char* kRemote = "10.9.0.2";

  // Throws std::system_error where this is not allowed: it needs CAP_SYS_ADMIN and CAP_NET_ADMIN.
  explicit DelayedPath(double delay);

 private:
  std::unique_ptr<Child> forwarder_;
};

}  // namespace bench
