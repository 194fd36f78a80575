#include "support/fake_names.h"

#include <mutex>
#include <utility>

namespace xtcp::test {
namespace {

std::mutex mutex;
std::vector<std::string> names;  // guarded by mutex
int last_flags = 0;              // likewise

}  // namespace

FakeNames::FakeNames(std::vector<std::string> hosts) {
  std::lock_guard lock(mutex);
  names = std::move(hosts);
}

FakeNames::~FakeNames() {
  std::lock_guard lock(mutex);
  names.clear();
}

int FakeNames::flags() const {
  std::lock_guard lock(mutex);
  return last_flags;
}

bool FakeNames::Answer(const addrinfo& hints, addrinfo** list) {
  std::lock_guard lock(mutex);
  if (names.empty() || (hints.ai_flags & AI_NUMERICHOST) != 0) return false;
  last_flags = hints.ai_flags;
  addrinfo numbers = hints;
  numbers.ai_flags = AI_NUMERICHOST;
  // freeaddrinfo(3) frees the entries one by one, so lists may be joined.
  for (const std::string& name : names) {
    if (::getaddrinfo(name.c_str(), nullptr, &numbers, list) != 0) return false;
    while (*list != nullptr) list = &(*list)->ai_next;
  }
  return true;
}

}  // namespace xtcp::test
