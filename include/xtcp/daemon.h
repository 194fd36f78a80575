#pragma once

#include <xtcp/export.h>
#include <xtcp/loop.h>
#include <xtcp/server.h>
#include <xtcp/stop_mode.h>

#include <chrono>
#include <csignal>
#include <system_error>
#include <vector>

// What a daemon's main() does with signals. It is not a part of xtcp.h, since who embeds the
// library in a program that has its own way with signals wants none of it.

namespace xtcp {

// Which signals end a daemon, and how.
struct XTCP_CONTAINERS SignalPlan {
  // Those that count. One that the process ignores at the time of the call (nohup(1)) stays
  // ignored.
  std::vector<int> signals{SIGINT, SIGTERM};

  // For how long the first one drains, before it stops what is left; 0: it stops at once. It is
  // less when the last connection ends before.
  std::chrono::milliseconds drain{0};
};

// Calls `server.Serve()`, and stops the server when a signal of the plan comes: the first one
// drains, where the plan says so, and then stops gracefully; a second one stops immediately, also
// in the drain. One that was blocked and pending counts as the first. Returns what `Serve` returns,
// and in `*report` the report of the last stop, also where `Serve` ended by itself.
//
// Handlers are installed, with SA_RESTART, for the time of the call, and the signals are unblocked
// in the calling thread; then handlers and mask are put back. So it does not matter which threads
// there are, when they were started and what they block, and no thread is started. A child that
// was forked meanwhile takes such a signal as it would have before.
//
// On a shared group a signal acts when the first loop runs. Returns `Errc::kWouldDeadlock` inside a
// callback, `kAlreadyUsed` while another such call of the process runs, the system's error for a
// signal that cannot be handled (EINVAL), `kNoMemory`.
[[nodiscard]] XTCP_API std::error_code ServeUntilSignal(Server& server, const SignalPlan& plan = {},
                                                        StopReport* report = nullptr);

// Does the same for a group, with `group.Run()`.
[[nodiscard]] XTCP_API std::error_code RunUntilSignal(LoopGroup& group, const SignalPlan& plan = {},
                                                      StopReport* report = nullptr);

}  // namespace xtcp
