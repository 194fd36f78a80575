// Loads a plug-in, runs it and unloads it, many times, in turn on the main thread and on one that
// ends: load_plugin FILE TIMES. It must leave no descriptor, thread or mapping behind.

#include <dirent.h>
#include <dlfcn.h>

#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <string>
#include <thread>

namespace {

int Entries(const char* folder) {
  int count = 0;
  DIR* const directory = ::opendir(folder);
  while (::readdir(directory) != nullptr) ++count;
  ::closedir(directory);
  return count;
}

int Mappings() {
  std::ifstream maps("/proc/self/maps");
  int count = 0;
  for (std::string line; std::getline(maps, line);) ++count;
  return count;
}

bool RunOnce(const char* file) {
  void* const plugin = ::dlopen(file, RTLD_NOW | RTLD_LOCAL);
  if (plugin == nullptr) {
    std::puts(::dlerror());
    return false;
  }
  const auto run = reinterpret_cast<int (*)()>(::dlsym(plugin, "EchoItself"));
  const bool good = run != nullptr && run() == 0;
  return ::dlclose(plugin) == 0 && good;
}

}  // namespace

int main(int, char** argv) {
  const int times = std::atoi(argv[2]);
  int mappings = 0;
  int descriptors = 0;
  for (int i = 0; i < times; ++i) {
    bool good = false;
    if (i % 2 == 0) {
      good = RunOnce(argv[1]);
    } else {
      std::thread([&] { good = RunOnce(argv[1]); }).join();
    }
    if (!good) return std::printf("run %d failed\n", i), 1;
    if (i == times / 2) {  // by now the C library has made what it keeps
      mappings = Mappings();
      descriptors = Entries("/proc/self/fd");
    }
  }
  const int threads = Entries("/proc/self/task") - 2;  // less "." and ".."
  if (threads != 1 || Entries("/proc/self/fd") != descriptors || Mappings() > mappings + 8) {
    std::printf("left behind: %d threads; descriptors %d, then %d; mappings %d, then %d\n", threads,
                descriptors, Entries("/proc/self/fd"), mappings, Mappings());
    return 1;
  }
  std::printf("%d times\n", times);
}
