#pragma once

namespace xtcp::internal {

// Exists around every call into the application: handler, protocol, logger, destructors of what it
// gave us. A call that waits asks `InsideCallback` and refuses (Errc::kWouldDeadlock), whichever
// object it belongs to. Scopes nest.
class CallbackScope {
 public:
  CallbackScope() noexcept { ++depth_; }
  ~CallbackScope() { --depth_; }
  CallbackScope(const CallbackScope&) = delete;
  CallbackScope& operator=(const CallbackScope&) = delete;

 private:
  friend bool InsideCallback() noexcept;
  static inline constinit thread_local int depth_ = 0;
};

// Whether this thread runs a callback of this library now.
inline bool InsideCallback() noexcept { return CallbackScope::depth_ > 0; }

}  // namespace xtcp::internal
