#pragma once

#include <stdlib.h>

#include <filesystem>
#include <stdexcept>
#include <string>

namespace xtcp::test {

// A folder for socket files, which goes with all that is in it.
struct TempFolder {
  TempFolder() {
    path = (std::filesystem::temp_directory_path() / "xtcp-XXXXXX").string();
    if (::mkdtemp(path.data()) == nullptr) throw std::runtime_error("no folder for socket files");
  }
  ~TempFolder() { std::filesystem::remove_all(path); }
  TempFolder(const TempFolder&) = delete;
  TempFolder& operator=(const TempFolder&) = delete;

  std::string file() const { return path + "/s"; }
  std::string address() const { return "unix:" + file(); }
  bool empty() const { return std::filesystem::is_empty(path); }

  std::string path;
};

}  // namespace xtcp::test
