#include "conn/deadlines.h"

#include "base/check.h"

namespace xtcp::internal {

Deadlines::Due Deadlines::Next(const Options& options, Phase phase, bool queued) const {
  XTCP_DCHECK(phase != Phase::kClosed, "a closed connection has no deadlines");
  if (phase == Phase::kStopping || phase == Phase::kLingering) {
    return {fixed_due_, CloseReason::kLingerTimeout};
  }
  Due next;
  const auto consider = [&next](Time at, CloseReason reason) {
    if (at < next.at) next = {at, reason};
  };
  if (options.write_deadline.count() > 0 && queued) {
    consider(output_at_ + options.write_deadline, CloseReason::kWriteDeadline);
  }
  if (phase == Phase::kFlushing) {
    consider(output_at_ + options.linger_timeout, CloseReason::kLingerTimeout);
  }
  if (phase != Phase::kServing) return next;
  if (!packet_stands()) consider(fixed_due_, CloseReason::kPacketDeadline);
  if (!input_clock_stopped_ && options.read_deadline.count() > 0) {
    consider(active_at_ + options.read_deadline, CloseReason::kReadDeadline);
  }
  return next;
}

void Deadlines::BeginPacket(Time due) {
  XTCP_DCHECK(!packet_stands(), "a packet begins while nothing is read");
  fixed_due_ = due;
}

void Deadlines::StopInputClock(Time now) {
  XTCP_DCHECK(!input_clock_stopped_, "the input clock is stopped twice");
  if (!packet_stands()) ShiftPacket(-now);
  input_clock_stopped_ = true;
  active_at_ -= now;
}

void Deadlines::StartInputClock(Time now) {
  XTCP_DCHECK(input_clock_stopped_, "the input clock is started twice");
  input_clock_stopped_ = false;
  active_at_ += now;
  if (!packet_stands()) ShiftPacket(now);
}

void Deadlines::StopPacketClock(Time now) {
  XTCP_DCHECK(!packet_clock_stopped_, "the clock of packets is stopped twice");
  if (!packet_stands()) ShiftPacket(-now);
  packet_clock_stopped_ = true;
}

void Deadlines::StartPacketClock(Time now) {
  XTCP_DCHECK(packet_clock_stopped_, "the clock of packets is started twice");
  packet_clock_stopped_ = false;
  if (!packet_stands()) ShiftPacket(now);
}

void Deadlines::ShiftPacket(Time by) {
  if (fixed_due_ != kNever) fixed_due_ += by;
}

}  // namespace xtcp::internal
