#pragma once

#include <netdb.h>

#include <string>
#include <vector>

namespace xtcp::test {

// While one lives every name stands for these hosts, which are numbers ("127.0.0.1", "::1"), in
// this order. Only in the programs that link fault_syscalls.cc. One at a time.
//
// Thread safety: any thread.
class FakeNames {
 public:
  explicit FakeNames(std::vector<std::string> hosts);
  ~FakeNames();
  FakeNames(const FakeNames&) = delete;
  FakeNames& operator=(const FakeNames&) = delete;

  // The flags with which a name was asked for last (getaddrinfo(3), ai_flags).
  int flags() const;

  // For the seam. False when there are none, or `hints` asks for no name.
  static bool Answer(const addrinfo& hints, addrinfo** list);
};

}  // namespace xtcp::test
