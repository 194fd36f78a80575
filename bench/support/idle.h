#pragma once

#include <memory>
#include <string>
#include <vector>

#include "support/process.h"

namespace bench {

// What each of so many connections that have echoed one frame of 4 KiB and rest costs the server
// that `command` starts, in a process that served nothing else.
inline double IdleBytes(std::vector<std::string> command, int connections) {
  command.push_back("0");
  Child child(command);
  const std::string port = std::to_string(PortOf(child));
  const auto hold = [&](int count) {
    auto holder = std::make_unique<Child>(std::vector<std::string>{
        Sibling("load/load"), "hold", port, std::to_string(count), "4096"});
    holder->ReadLine();
    Sleep(0.2);
    return holder;
  };
  const auto warm = hold(100);
  const double before = PrivateBytes(child.pid());
  const auto idle = hold(connections);
  return (PrivateBytes(child.pid()) - before) / connections;
}

}  // namespace bench
