#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

namespace xtcp::test {

// What scripted_kernel.cc gives to the library in place of the kernel: one listener, and one client,
// whose doings are a script. One thread.
struct ScriptedKernel {
  // What reads and writes do, one after the other, and then from the beginning: so many bytes at most;
  // 0: EAGAIN. Empty: as much as they can.
  std::vector<std::uint8_t> reads;
  std::vector<std::uint8_t> writes;

  std::span<const std::byte> stream;  // what the client sends
  bool resets = false;                // it ends with a reset, not with its FIN

  std::string sent;    // what it was sent
  bool stuck = false;  // the loop sleeps, and nothing will ever wake it
};

extern ScriptedKernel scripted_kernel;

}  // namespace xtcp::test
