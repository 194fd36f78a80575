#include <xtcp/part.h>

#include <array>
#include <catch2/catch.hpp>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "base/scope.h"
#include "buffer/outbound_buffer.h"
#include "support/alloc_hook.h"

namespace xtcp::internal {
namespace {

using Text = std::shared_ptr<std::string>;

Text Shared(std::size_t size, char of = 'x') { return std::make_shared<std::string>(size, of); }

// A buffer of parts.
struct Parts {
  ~Parts() {
    buffer.Clear(pool);
    released.Clear(pool);
  }
  bool Append(const std::vector<Part>& parts) { return buffer.AppendParts(parts, pool); }
  void Consume(std::size_t n) { buffer.Consume(n, pool, released); }
  std::vector<iovec> Gather() const {
    std::vector<iovec> parts(100);
    parts.resize(static_cast<std::size_t>(buffer.Gather(parts.data(), 100)));
    return parts;
  }
  std::string All() const {
    std::string all;
    for (const iovec& part : Gather()) {
      all.append(static_cast<const char*>(part.iov_base), part.iov_len);
    }
    return all;
  }

  BlockPool pool;
  OutboundBuffer buffer;
  OutboundBuffer released;
};

TEST_CASE("a part with an owner is referred to, a small one is copied and let go", "[M61]") {
  Parts p;
  const Text large = Shared(513);
  const Text small = Shared(512);
  REQUIRE(p.Append({Part(large), Part(small)}));
  CHECK(large.use_count() == 2);
  CHECK(small.use_count() == 1);
  const std::vector<iovec> parts = p.Gather();
  REQUIRE(parts.size() == 2);
  CHECK(parts[0].iov_base == large->data());
  CHECK(parts[1].iov_base != small->data());
}

TEST_CASE("parts of all kinds come in order, and empty ones are nothing", "[M61][B4]") {
  Parts p;
  const Text large = Shared(1000, 'b');
  const Text none;
  REQUIRE(p.Append({"aa", Part(), Part(large), Part(none), "", "cc", Part(Shared(3, 'd'))}));
  CHECK(p.All() == "aa" + *large + "ccddd");
  Parts empty;
  REQUIRE(empty.Append({Part(), "", Part(none)}));
  CHECK(empty.buffer.empty());
}

TEST_CASE("the head of a shared body lies in the block of its reference", "[M61][R1]") {
  const Text body = Shared(1000);
  const auto allocations = [&](std::size_t head) {
    Parts p;
    const std::string text(head, 'h');
    const std::vector<Part> parts{std::string_view(text), Part(body)};
    const std::uint64_t before = test::Allocations();
    const bool appended = p.buffer.AppendParts(parts, p.pool);
    const std::uint64_t made = test::Allocations() - before;
    REQUIRE(appended);
    REQUIRE(p.All() == text + *body);
    return made;
  };
  CHECK(allocations(4) == 1);
  CHECK(allocations(OutboundBuffer::kLargestHead) == 1);
  CHECK(allocations(OutboundBuffer::kLargestHead + 1) == 2);
}

TEST_CASE("a head and the body after it are offered and taken to the byte", "[M61][B4]") {
  const Text body = Shared(1000);
  for (const std::size_t taken : {1, 2, 3, 4, 999, 1001}) {
    CAPTURE(taken);
    Parts p;
    REQUIRE(p.Append({"abc", Part(body)}));
    const std::string all = "abc" + *body;
    iovec first{};
    REQUIRE(p.buffer.Gather(&first, 1) == 1);
    CHECK(first.iov_len == 3);
    p.Consume(taken);
    CHECK(p.All() == all.substr(taken));
    CHECK(p.released.empty());
    CHECK(p.Gather().size() == (taken < 3 ? 2 : 1));
    p.Consume(all.size() - taken);
    CHECK(p.buffer.empty());
    CHECK_FALSE(p.released.empty());
  }
}

TEST_CASE("nothing is ever copied after a part that is referred to into its bytes", "[M61][B7]") {
  Parts p;
  const Text large = Shared(1000);
  const std::string before = *large;
  REQUIRE(p.Append({"a", Part(large)}));
  CHECK(p.buffer.room() == 0);
  REQUIRE(p.Append({"after"}));
  CHECK(*large == before);
  CHECK(p.All() == "a" + before + "after");
}

TEST_CASE("an owner goes to the released after the last of its bytes, not before", "[M61]") {
  Parts p;
  const Text large = Shared(1000);
  REQUIRE(p.Append({"aa", Part(large), "cc"}));
  p.Consume(2);
  p.Consume(999);
  CHECK(p.released.empty());
  CHECK(p.All() == "xcc");
  p.Consume(1);
  CHECK_FALSE(p.released.empty());
  CHECK(large.use_count() == 2);
  p.released.Clear(p.pool);
  CHECK(large.use_count() == 1);
  p.Consume(2);
  CHECK(p.released.empty());
}

TEST_CASE("one owner in many parts is held once for each, and wholly let go", "[M61]") {
  Parts p;
  const Text large = Shared(1000);
  REQUIRE(p.Append({Part(large), Part(large), Part(large)}));
  CHECK(large.use_count() == 4);
  p.Consume(1500);
  p.released.Clear(p.pool);
  CHECK(large.use_count() == 3);
  p.buffer.Clear(p.pool);
  CHECK(large.use_count() == 1);
}

TEST_CASE("a part that is longer than a reference can say is several, with the same bytes",
          "[M61][X4]") {
  constexpr std::size_t kMost = std::size_t{1} << 30;
  constexpr std::size_t kSize = 5 * (kMost / 2) + 1;
  Parts p;
  // The bytes are never looked at.
  const auto owner = std::make_shared<std::byte>();
  REQUIRE(p.Append({Part(std::span<const std::byte>(owner.get(), kSize), owner)}));
  const std::vector<iovec> parts = p.Gather();
  REQUIRE(parts.size() == 3);
  std::size_t size = 0;
  for (const iovec& part : parts) {
    CHECK(part.iov_base == owner.get() + size);
    size += part.iov_len;
  }
  CHECK(size == kSize);
  p.Consume(kSize - 1);
  CHECK(p.Gather().at(0).iov_len == 1);
}

TEST_CASE("whichever allocation fails, no part was put and every owner is let go", "[M61][F4]") {
  const Text large = Shared(1000);
  const std::string text(20'000, 'y');
  const std::vector<Part> parts{std::string_view(text), Part(large), "cc", Part(large)};
  bool succeeded = false;
  for (std::uint64_t which = 1; which < 20 && !succeeded; ++which) {
    CAPTURE(which);
    Parts p;
    REQUIRE(p.Append({"before"}));
    const long held = large.use_count();
    {
      const test::FailAllocations fail(which);
      succeeded = p.buffer.AppendParts(parts, p.pool);
    }
    if (succeeded) continue;
    CHECK(large.use_count() == held);
    CHECK(p.All() == "before");
    REQUIRE(p.Append(parts));
    CHECK(p.All() == "before" + text + *large + "cc" + *large);
  }
  CHECK(succeeded);
}

TEST_CASE("an owner's destructor finds the buffer empty that is being cleared", "[M61]") {
  Parts p;
  bool was_empty = false;
  bool appended = false;
  auto at_end = [&] {
    was_empty = p.buffer.empty();
    appended = p.Append({"from the end"});
  };
  {
    const auto owner = std::make_shared<AtScopeEnd<decltype(at_end)>>(at_end);
    const Text bytes = Shared(1000);
    REQUIRE(p.Append({Part(std::as_bytes(std::span(*bytes)), owner), "after"}));
  }
  p.buffer.Clear(p.pool);
  CHECK(was_empty);
  CHECK(appended);
  CHECK(p.All() == "from the end");
}

}  // namespace
}  // namespace xtcp::internal
