// The load generator. It shares no code with the library, and checks every byte that it gets: what
// a connection sends is a function of the connection's number and the position in its stream, so
// that an answer which is late, doubled or another connection's does not pass.
//
//   load echo PORT CONNECTIONS PAYLOAD DEPTH SECONDS THREADS PID
//     Keeps DEPTH frames on their way on each connection. Figures: messages a second, CPU time of
//     the server PID for a message, percentiles of the round trip. The first quarter of the time
//     is not measured; all messages, that quarter's too, are counted for those who count the
//     server's instructions.
//   load churn PORT SECONDS PID
//     Connects, echoes one frame of 64 bytes, closes; 64 connections at a time.
//   load hold PORT CONNECTIONS PAYLOAD [half]
//     Echoes one frame on each connection, with "half" also sends the first half of another, says
//     so, and holds the connections until the server closes them.
//   load drain PORT CONNECTIONS [wait]
//     Reads the messages of 64 bytes that bench::FillMessage (support/message.h) describes, and
//     says how many came in the end. With "wait" it starts to read when it gets a line.
//
// A frame is a 4-byte big-endian length of the payload, then the payload.

#include <cstdio>
#include <cstdlib>
#include <string>
#include <vector>

#include "load/modes.h"

int main(int argc, char** argv) {
  const std::vector<std::string> words(argv, argv + argc);
  const auto number = [&](size_t i) { return std::strtoul(words.at(i).c_str(), nullptr, 10); };
  const auto real = [&](size_t i) { return std::strtod(words.at(i).c_str(), nullptr); };
  const std::string mode = argc > 2 ? words[1] : "";
  const int port = argc > 2 ? static_cast<int>(number(2)) : 0;
  if (mode == "echo" && argc == 9) {
    load::RunEcho(port, number(3), number(4), number(5), real(6), number(7),
                  static_cast<pid_t>(number(8)));
  } else if (mode == "churn" && argc == 5) {
    load::RunChurn(port, real(3), static_cast<pid_t>(number(4)));
  } else if (mode == "hold" && (argc == 5 || (argc == 6 && words[5] == "half"))) {
    load::RunHold(port, number(3), number(4), argc == 6);
  } else if (mode == "drain" && (argc == 4 || (argc == 5 && words[4] == "wait"))) {
    load::RunDrain(port, number(3), argc == 5);
  } else {
    std::fprintf(stderr, "usage: load echo|churn|hold|drain PORT ...; see load.cc\n");
    return 2;
  }
  return 0;
}
