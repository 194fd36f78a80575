#include "conn/task_chain.h"

#include <algorithm>
#include <catch2/catch.hpp>
#include <memory>
#include <string>
#include <utility>

namespace xtcp::internal {
namespace {

// Tasks that write their letter.
struct Tasks {
  void Add(char letter) {
    chain.Append(std::make_unique<TaskChain::Node>(Task([this, letter] { order += letter; })));
  }
  static void Run(TaskChain& chain) {
    while (!chain.empty()) chain.TakeFirst()->task();
  }

  TaskChain chain;
  std::string order;
};

TEST_CASE("tasks come out in the order in which they came in") {
  Tasks tasks;
  CHECK(sizeof(TaskChain) == sizeof(void*));
  CHECK(tasks.chain.empty());
  for (const char letter : {'a', 'b', 'c'}) tasks.Add(letter);
  CHECK_FALSE(tasks.chain.empty());
  Tasks::Run(tasks.chain);
  CHECK(tasks.order == "abc");
}

TEST_CASE("a chain can be split after any of its tasks", "[R9]") {
  for (const std::size_t most : {0u, 1u, 2u, 3u, 9u}) {
    CAPTURE(most);
    Tasks tasks;
    for (const char letter : {'a', 'b', 'c'}) tasks.Add(letter);
    TaskChain first = tasks.chain.Split(most);
    CHECK(first.empty() == (most == 0));
    CHECK(tasks.chain.empty() == (most >= 3));
    Tasks::Run(first);
    tasks.order += '|';
    Tasks::Run(tasks.chain);
    CHECK(tasks.order == std::string("abc").insert(std::min<std::size_t>(most, 3), "|"));
  }
}

TEST_CASE("tasks that came while others were taken come after those that are left") {
  Tasks tasks;
  for (const char letter : {'a', 'b', 'c'}) tasks.Add(letter);
  tasks.chain.TakeFirst()->task();
  tasks.Add('d');
  Tasks::Run(tasks.chain);
  CHECK(tasks.order == "abcd");
}

TEST_CASE("a chain that goes destroys its tasks") {
  const auto held = std::make_shared<int>();
  {
    TaskChain chain;
    for (int i = 0; i < 3; ++i) {
      chain.Append(std::make_unique<TaskChain::Node>(Task([held] {})));
    }
    CHECK(held.use_count() == 4);
    const TaskChain moved = std::move(chain);
    CHECK(held.use_count() == 4);
  }
  CHECK(held.use_count() == 1);
}

}  // namespace
}  // namespace xtcp::internal
