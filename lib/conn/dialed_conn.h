#pragma once

#include <xtcp/options.h>

#include <memory>
#include <string_view>
#include <system_error>

#include "conn/conn_impl.h"
#include "conn/worker.h"

namespace xtcp::internal {

class Dialer;

// A connection made by `NewConn`: it brings its own loop, which runs on the thread that calls
// `DialAndServe`.
class DialedConn final : public ConnImpl,
                         public std::enable_shared_from_this<DialedConn>,
                         private WorkerOwner {
 public:
  explicit DialedConn(Options options);

  std::error_code DialAndServe(std::string_view address) override;

 private:
  friend class Dialer;

  bool accepted() const override { return false; }
  void HandlePosted() override;

  void ConnectionEnded(const StopReport&) override { worker_->RequestQuit(); }

  std::error_code Dial(std::string_view address);
  void End(std::error_code error);

  Options options_;
  Worker* worker_ = nullptr;  // while dialling and serving; own thread only
  Dialer* dialer_ = nullptr;  // while dialling; own thread only
  bool established_ = false;  // served, or was; own thread only
};

}  // namespace xtcp::internal
