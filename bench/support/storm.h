#pragma once

#include <string>

namespace bench {

// Clients that connect, ask once, read the answer and close, again and again, each as fast as it
// can. One that was refused, or lost its connection, waits 5 ms before it tries again.
struct StormPlan {
  std::string host;
  int port = 0;
  std::string ask;
  std::string answer;   // or the beginning of it
  int report_each = 0;  // answers from one line of the output to the next
  int clients = 200;
};

// The body of a `Child`. Each time that so many clients more were answered it prints a figure
// "answered". After a line on its input it begins nothing new, waits at most five seconds for those
// who are under way, and prints what became of all:
//
//   answered
//   refused     their connect was refused
//   reset       their connect had succeeded, and no answer came before the end of the connection
//   unanswered  nothing came at all
//   slowest_ms  the longest time from the call of connect(2) to an answer
void Storm(const StormPlan& plan);

}  // namespace bench
