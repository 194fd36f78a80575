#include "support/violations.h"

#include <catch2/catch.hpp>
#include <cstdio>
#include <cstdlib>
#include <mutex>
#include <utility>

#include "support/random.h"

namespace xtcp::test {
namespace {

struct Store {
  std::mutex mutex;
  std::vector<std::string> texts;
};

Store& TheStore() {
  static Store store;
  return store;
}

}  // namespace

void AddViolation(std::string text) {
  Store& store = TheStore();
  std::lock_guard lock(store.mutex);
  store.texts.push_back(std::move(text));
}

std::vector<std::string> TakeViolations() {
  Store& store = TheStore();
  std::lock_guard lock(store.mutex);
  return std::exchange(store.texts, {});
}

void Die(const std::string& text) {
  const std::string test = Catch::getResultCapture().getCurrentTestName();
  std::fprintf(stderr, "hang: %s (in \"%s\", XTCP_SEED=%llu)\n", text.c_str(), test.c_str(),
               static_cast<unsigned long long>(Seed()));
  std::abort();
}

}  // namespace xtcp::test
