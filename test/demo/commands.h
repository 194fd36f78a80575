#pragma once

#include <cstdio>
#include <iostream>
#include <string>

namespace xtcp::test {

// What a command prints.
inline std::string OutputOf(const std::string& command) {
  std::FILE* const pipe = ::popen(command.c_str(), "r");
  if (pipe == nullptr) return "";
  std::string output;
  for (int byte; (byte = std::fgetc(pipe)) != EOF;) output += static_cast<char>(byte);
  ::pclose(pipe);
  return output;
}

// Whether there is such a program. test/run.sh shows what is said where there is none.
inline bool IsInstalled(const std::string& program) {
  if (!OutputOf("command -v " + program).empty()) return true;
  std::cout << "left out: " << program << " is not installed\n";
  return false;
}

}  // namespace xtcp::test
