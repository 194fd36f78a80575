#pragma once

#include <string>

// Linking leak_guard.cc into a program is all it takes: it registers a Catch2 listener, which fails
// a test case
//  - that leaves a descriptor or a thread behind (polled for up to two seconds), or
//  - in which the books of the two ends of a connection do not fit (books.h), or
//  - during which `AddViolation` was called,
// and prints the line that replays a failed test case.
namespace xtcp::test {

// What this process holds, to be compared with what it held before.
struct Holdings {
  std::size_t descriptors = 0;
  std::size_t threads = 0;
  std::string list;  // the descriptors and what they are, one a line

  static Holdings Now();
};

// Threads of this process.
std::size_t ThreadCount();

}  // namespace xtcp::test
