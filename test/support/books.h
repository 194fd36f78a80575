#pragma once

#include <cstdint>
#include <string>

// The books of both ends of each connection, held against each other at the end of each test (B1 of
// the guarantees): a peer gets no byte that was not written, and what was written is at the peer or
// among the unacknowledged.
//
// `RawPeer` and `EventRecorder` enter what they saw, under the names of the two ends; the leak
// guard compares. Unix sockets have no names to match, and an end that was entered twice (the
// system gave its port out again) is left alone.
//
// Thread safety: any thread.
namespace xtcp::test {

// What one end counted by the time it closed.
struct Books {
  std::string own;   // "127.0.0.1:80"; "" without a name
  std::string peer;  // the other end
  std::uint64_t received = 0;
  bool saw_end = false;  // read up to the other side's FIN
  bool wrote_by_library = false;
  std::uint64_t written = 0;  // these two only with `wrote_by_library`
  std::uint64_t unacked = 0;
};

void EnterBooks(Books books);

// Adds a violation for each pair that does not fit, and forgets all. How many pairs there were.
std::size_t CompareBooks();

}  // namespace xtcp::test
