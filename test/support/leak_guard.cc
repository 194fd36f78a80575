#include "support/leak_guard.h"

#include <dirent.h>
#include <unistd.h>

#include <array>
#include <catch2/catch.hpp>
#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>
#include <thread>

#include "support/books.h"
#include "support/deadline.h"
#include "support/random.h"
#include "support/violations.h"

namespace xtcp::test {
namespace {

std::string LinkTarget(const char* name) {
  std::array<char, 256> target{};
  const std::string path = std::string("/proc/self/fd/") + name;
  const ssize_t size = ::readlink(path.c_str(), target.data(), target.size() - 1);
  return size < 0 ? "?" : std::string(target.data(), static_cast<std::size_t>(size));
}

// Calls `visit` with the name of each entry but the directory's own descriptor.
template <typename Visit>
void ForEachEntry(const char* path, Visit visit) {
  DIR* directory = ::opendir(path);
  if (directory == nullptr) return;
  const std::string own = std::to_string(::dirfd(directory));
  while (const dirent* entry = ::readdir(directory)) {
    if (entry->d_name[0] != '.' && own != entry->d_name) visit(entry->d_name);
  }
  ::closedir(directory);
}

class LeakGuard : public Catch::TestEventListenerBase {
 public:
  using Catch::TestEventListenerBase::TestEventListenerBase;

  // The thread sanitizer starts a thread of its own with the program's first one.
  void testRunStarting(const Catch::TestRunInfo&) override {
    std::thread([] {}).join();
  }

  void sectionStarting(const Catch::SectionInfo&) override {
    if (depth_++ > 0) return;
    CompareBooks();
    TakeViolations();
    before_ = Holdings::Now();
  }

  // The outermost section is one run of the test case's body. When it ends here, everything that
  // lived in the body is gone, but the test case is still open, so a failed check counts.
  void sectionEnded(const Catch::SectionStats&) override {
    if (--depth_ > 0) return;
    Holdings after;
    const bool clean = WaitUntil(
        [&] {
          after = Holdings::Now();
          return after.descriptors <= before_.descriptors && after.threads <= before_.threads;
        },
        std::chrono::seconds(2));
    if (!clean) {
      FAIL_CHECK("leak: " << before_.descriptors << " descriptors and " << before_.threads
                          << " threads before, " << after.descriptors << " and " << after.threads
                          << " after\nbefore:\n"
                          << before_.list << "after:\n"
                          << after.list);
    }
    CompareBooks();
    for (const std::string& text : TakeViolations()) FAIL_CHECK("violation: " << text);
  }

  void testCaseEnded(const Catch::TestCaseStats& stats) override {
    if (stats.totals.assertions.failed == 0) return;
    std::fprintf(stderr, "replay: XTCP_SEED=%llu %s \"%s\"\n",
                 static_cast<unsigned long long>(Seed()), program_invocation_name,
                 Catch::NameOf(stats).c_str());
  }

 private:
  int depth_ = 0;
  Holdings before_;
};

CATCH_REGISTER_LISTENER(LeakGuard)

}  // namespace

Holdings Holdings::Now() {
  Holdings now;
  ForEachEntry("/proc/self/fd", [&](const char* name) {
    ++now.descriptors;
    now.list += std::string("  ") + name + " " + LinkTarget(name) + "\n";
  });
  now.threads = ThreadCount();
  return now;
}

std::size_t ThreadCount() {
  std::size_t count = 0;
  ForEachEntry("/proc/self/task", [&](const char*) { ++count; });
  return count;
}

}  // namespace xtcp::test
