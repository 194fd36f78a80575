#pragma once

#include <xtcp/conn.h>
#include <xtcp/options.h>

#include <chrono>

#include "conn/phase.h"

namespace xtcp::internal {

// The times of one connection, from which follows when it has to end. It is a value: it reads no
// clock and arms no timer. Traffic only moves its times, which costs nothing; a timer that comes
// too early asks again.
//
//   what happened                              ends the connection after
//   a byte was received, or taken ───────────► read_deadline     kServing, not while paused
//   a packet began ──────────────────────────► packet_deadline   kServing, not while paused or held
//   a byte was taken, or the queue began ────► write_deadline    while something is queued
//   a byte was taken, or the peer's FIN came ► linger_timeout    kFlushing
//   a graceful stop began ───────────────────► linger_timeout    kStopping, kLingering
//
// Loop thread only.
class Deadlines {
 public:
  using Time = std::chrono::nanoseconds;  // of sys::Now
  static constexpr Time kNever = Time::max();

  // The time at which a connection has to end, `kNever` when no deadline runs, and the reason.
  // `queued` says whether bytes wait that the kernel has not taken.
  struct Due {
    Time at = kNever;
    CloseReason reason = CloseReason::kNone;
  };
  Due Next(const Options& options, Phase phase, bool queued) const;

  // A byte was received, or taken by the kernel. It is noted at the end of a turn, since the time
  // that callbacks took is not the peer's silence.
  void NoteActivity(Time now) { active_at_ = input_clock_stopped_ ? Time{0} : now; }

  // The application was called though there was no traffic, and took this long.
  void NoteAside(Time took) {
    if (!input_clock_stopped_) active_at_ += took;
  }

  // The kernel took a byte, or there is something to take from now on, or the peer's end came.
  void NoteOutput(Time now) { output_at_ = now; }

  // An unfinished packet has begun, and has to be complete at `due`; it is complete.
  void BeginPacket(Time due);
  void EndPacket() { fixed_due_ = kNever; }
  bool packet_began() const { return fixed_due_ != kNever; }

  // A graceful stop has begun, and may last until `due`. No packet will be finished any more.
  void BeginLinger(Time due) { fixed_due_ = due; }

  // Stops the clock of read_deadline and packet_deadline, and starts it again.
  void StopInputClock(Time now);
  void StartInputClock(Time now);
  bool input_clock_stopped() const { return input_clock_stopped_; }

  // The same for the clock of packet_deadline alone: input is held, for what is queued.
  void StopPacketClock(Time now);
  void StartPacketClock(Time now);
  bool packet_clock_stopped() const { return packet_clock_stopped_; }

 private:
  bool packet_stands() const { return input_clock_stopped_ || packet_clock_stopped_; }
  void ShiftPacket(Time by);

  // While its clock is stopped, the first, and so the last, is kept relative to the moment at which
  // it starts again.
  Time active_at_{0};
  Time output_at_{0};
  Time fixed_due_ = kNever;  // of packet_deadline or a stop: traffic does not move it
  bool input_clock_stopped_ = false;
  bool packet_clock_stopped_ = false;
};

}  // namespace xtcp::internal
