#include "base/ref.h"

#include <catch2/catch.hpp>
#include <memory>
#include <stdexcept>
#include <thread>
#include <utility>
#include <vector>

namespace xtcp::internal {
namespace {

struct Counted : RefCounted {
  explicit Counted(int* counter) : alive(counter) { ++*alive; }
  ~Counted() { --*alive; }
  int* const alive;
};

TEST_CASE("a counted object lives as long as one of its handles, and no longer") {
  static_assert(sizeof(Ref<Counted>) == sizeof(void*));
  int alive = 0;
  {
    auto first = std::make_unique<Ref<Counted>>(Ref<Counted>::Make(&alive));
    const Ref<Counted> second = *first;
    CHECK((*first)->alive == &alive);
    CHECK(&**first == &*second);
    const Ref<Counted> moved = std::move(*first);
    first.reset();  // it holds nothing any more
    CHECK(&*moved == &*second);
    CHECK(alive == 1);
  }
  CHECK(alive == 0);
}

TEST_CASE("a counted object whose constructor throws is gone") {
  struct Throws : RefCounted {
    Throws() { throw std::runtime_error("no"); }
  };
  CHECK_THROWS_AS(Ref<Throws>::Make(), std::runtime_error);
}

TEST_CASE("handles of one object may be copied and dropped on all threads") {
  int alive = 0;
  {
    const Ref<Counted> kept = Ref<Counted>::Make(&alive);
    std::vector<std::thread> threads;
    for (int i = 0; i < 4; ++i) {
      threads.emplace_back([mine = kept] {
        for (int k = 0; k < 10'000; ++k) const Ref<Counted> copy = mine;
      });
    }
    for (std::thread& thread : threads) thread.join();
    CHECK(alive == 1);
  }
  CHECK(alive == 0);
}

}  // namespace
}  // namespace xtcp::internal
