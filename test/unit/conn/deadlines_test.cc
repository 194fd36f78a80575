#include "conn/deadlines.h"

#include <catch2/catch.hpp>
#include <chrono>

namespace xtcp::internal {
namespace {

using namespace std::chrono_literals;

constexpr Deadlines::Time kNow = 1000s;  // of sys::Now

Options With(std::chrono::milliseconds read, std::chrono::milliseconds write = 0ms) {
  Options options;
  options.read_deadline = read;
  options.write_deadline = write;
  options.linger_timeout = 30s;
  return options;
}

void CheckDue(const Deadlines::Due& due, Deadlines::Time at, CloseReason reason) {
  CHECK(due.at == at);
  CHECK(due.reason == reason);
}

TEST_CASE("without a deadline nothing is ever due", "[R8]") {
  Deadlines deadlines;
  deadlines.NoteActivity(kNow);
  deadlines.NoteOutput(kNow);
  CheckDue(deadlines.Next(With(0ms), Phase::kServing, true), Deadlines::kNever, CloseReason::kNone);
}

TEST_CASE("the read deadline runs from the last byte", "[R8]") {
  Deadlines deadlines;
  deadlines.NoteActivity(kNow);
  CheckDue(deadlines.Next(With(5s), Phase::kServing, false), kNow + 5s, CloseReason::kReadDeadline);
  deadlines.NoteActivity(kNow + 3s);
  CheckDue(deadlines.Next(With(5s), Phase::kServing, false), kNow + 8s, CloseReason::kReadDeadline);
}

TEST_CASE("the time of a callback without traffic is not the peer's silence", "[seen-2]") {
  Deadlines deadlines;
  deadlines.NoteActivity(kNow);
  deadlines.NoteAside(2s);
  CheckDue(deadlines.Next(With(5s), Phase::kServing, false), kNow + 7s, CloseReason::kReadDeadline);
}

TEST_CASE("the write deadline runs while something is queued", "[R8]") {
  Deadlines deadlines;
  deadlines.NoteOutput(kNow);
  CheckDue(deadlines.Next(With(0ms, 4s), Phase::kServing, false), Deadlines::kNever,
           CloseReason::kNone);
  CheckDue(deadlines.Next(With(0ms, 4s), Phase::kServing, true), kNow + 4s,
           CloseReason::kWriteDeadline);
}

TEST_CASE("the packet deadline is not moved by traffic", "[R8][X2]") {
  Deadlines deadlines;
  CHECK_FALSE(deadlines.packet_began());
  deadlines.BeginPacket(kNow + 6s);
  deadlines.NoteActivity(kNow + 5s);
  CHECK(deadlines.packet_began());
  CheckDue(deadlines.Next(With(5s), Phase::kServing, false), kNow + 6s,
           CloseReason::kPacketDeadline);
  deadlines.EndPacket();
  CHECK_FALSE(deadlines.packet_began());
  CheckDue(deadlines.Next(With(5s), Phase::kServing, false), kNow + 10s,
           CloseReason::kReadDeadline);
}

TEST_CASE("of all deadlines the next one counts", "[R8]") {
  Deadlines deadlines;
  deadlines.NoteActivity(kNow);
  deadlines.NoteOutput(kNow + 1s);
  deadlines.BeginPacket(kNow + 3s);
  CheckDue(deadlines.Next(With(2s, 9s), Phase::kServing, true), kNow + 2s,
           CloseReason::kReadDeadline);
  CheckDue(deadlines.Next(With(4s, 9s), Phase::kServing, true), kNow + 3s,
           CloseReason::kPacketDeadline);
  CheckDue(deadlines.Next(With(4s, 1s), Phase::kServing, true), kNow + 2s,
           CloseReason::kWriteDeadline);
}

TEST_CASE("while nothing is read the deadlines of input stand still", "[M18][R8]") {
  Deadlines deadlines;
  deadlines.NoteActivity(kNow);
  deadlines.BeginPacket(kNow + 4s);
  deadlines.StopInputClock(kNow + 1s);
  CHECK(deadlines.input_clock_stopped());
  CheckDue(deadlines.Next(With(5s), Phase::kServing, false), Deadlines::kNever, CloseReason::kNone);
  deadlines.StartInputClock(kNow + 101s);
  CheckDue(deadlines.Next(With(5s), Phase::kServing, false), kNow + 104s,
           CloseReason::kPacketDeadline);
  deadlines.EndPacket();
  CheckDue(deadlines.Next(With(5s), Phase::kServing, false), kNow + 105s,
           CloseReason::kReadDeadline);
}

TEST_CASE("what is written while nothing is read counts when reading begins again", "[M18][R8]") {
  Deadlines deadlines;
  deadlines.NoteActivity(kNow);
  deadlines.StopInputClock(kNow + 3s);
  deadlines.NoteAside(1s);
  deadlines.NoteActivity(kNow + 50s);
  deadlines.StartInputClock(kNow + 60s);
  CheckDue(deadlines.Next(With(5s), Phase::kServing, false), kNow + 65s,
           CloseReason::kReadDeadline);
}

TEST_CASE("while input is held the packet's clock stands still, and the peer's silence counts",
          "[M60][R8]") {
  Deadlines deadlines;
  deadlines.NoteActivity(kNow);
  deadlines.BeginPacket(kNow + 4s);
  deadlines.StopPacketClock(kNow + 1s);
  CHECK(deadlines.packet_clock_stopped());
  CheckDue(deadlines.Next(With(9s), Phase::kServing, false), kNow + 9s, CloseReason::kReadDeadline);
  deadlines.StartPacketClock(kNow + 3s);
  CheckDue(deadlines.Next(With(9s), Phase::kServing, false), kNow + 6s,
           CloseReason::kPacketDeadline);
}

TEST_CASE("a packet's clock that is stopped for two reasons runs when both are over",
          "[M18][M60]") {
  const bool pause_ends_first = GENERATE(false, true);
  CAPTURE(pause_ends_first);
  Deadlines deadlines;
  deadlines.NoteActivity(kNow);
  deadlines.BeginPacket(kNow + 4s);
  deadlines.StopPacketClock(kNow + 1s);
  deadlines.StopInputClock(kNow + 2s);
  if (pause_ends_first) {
    deadlines.StartInputClock(kNow + 10s);
  } else {
    deadlines.StartPacketClock(kNow + 10s);
  }
  CHECK(deadlines.Next(With(0ms), Phase::kServing, false).at == Deadlines::kNever);
  if (pause_ends_first) {
    deadlines.StartPacketClock(kNow + 20s);
  } else {
    deadlines.StartInputClock(kNow + 20s);
  }
  // One of its four seconds had passed.
  CheckDue(deadlines.Next(With(0ms), Phase::kServing, false), kNow + 23s,
           CloseReason::kPacketDeadline);
}

TEST_CASE("a packet that is complete while its clock is stopped has no deadline afterwards",
          "[M60][R8]") {
  Deadlines deadlines;
  deadlines.BeginPacket(kNow + 4s);
  deadlines.StopPacketClock(kNow + 1s);
  deadlines.EndPacket();
  deadlines.StartPacketClock(kNow + 2s);
  CHECK_FALSE(deadlines.packet_began());
  CHECK(deadlines.Next(With(0ms), Phase::kServing, false).at == Deadlines::kNever);
}

TEST_CASE("a clock that stops without a packet gives none a deadline", "[M18][M60]") {
  Deadlines deadlines;
  deadlines.StopInputClock(kNow);
  deadlines.StopPacketClock(kNow);
  deadlines.StartInputClock(kNow + 5s);
  deadlines.StartPacketClock(kNow + 5s);
  CHECK_FALSE(deadlines.packet_began());
}

TEST_CASE("after the peer's end no deadline of input counts", "[M16][R8]") {
  Deadlines deadlines;
  deadlines.NoteActivity(kNow);
  deadlines.NoteOutput(kNow + 100s);
  deadlines.BeginPacket(kNow + 1s);
  CheckDue(deadlines.Next(With(1s), Phase::kFlushing, false), kNow + 130s,
           CloseReason::kLingerTimeout);
}

TEST_CASE("after the peer's end the linger runs from the last byte taken", "[M17][R8]") {
  Deadlines deadlines;
  deadlines.NoteOutput(kNow);
  CheckDue(deadlines.Next(With(1s), Phase::kFlushing, true), kNow + 30s,
           CloseReason::kLingerTimeout);
  CheckDue(deadlines.Next(With(1s, 2s), Phase::kFlushing, true), kNow + 2s,
           CloseReason::kWriteDeadline);
}

TEST_CASE("a stop has its own time, which nothing moves", "[M19][S3][S7]") {
  Deadlines deadlines;
  deadlines.BeginLinger(kNow + 30s);
  deadlines.NoteActivity(kNow + 20s);
  deadlines.NoteOutput(kNow + 20s);
  for (const Phase phase : {Phase::kStopping, Phase::kLingering}) {
    CheckDue(deadlines.Next(With(1s, 1s), phase, true), kNow + 30s, CloseReason::kLingerTimeout);
  }
}

}  // namespace
}  // namespace xtcp::internal
