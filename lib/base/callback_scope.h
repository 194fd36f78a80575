#pragma once

namespace xtcp::internal {

// Surrounds every call into the application: its handler, protocol and logger, and the destructors
// of what it gave us. A call that would wait asks `InsideCallback` and refuses
// (Errc::kWouldDeadlock), whichever object it belongs to. Scopes nest.
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

// Returns whether this thread is running a callback of this library.
inline bool InsideCallback() noexcept { return CallbackScope::depth_ > 0; }

}  // namespace xtcp::internal
