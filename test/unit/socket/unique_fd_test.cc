#include "socket/unique_fd.h"

#include <fcntl.h>
#include <unistd.h>

#include <array>
#include <catch2/catch.hpp>
#include <type_traits>
#include <utility>

namespace xtcp::internal {
namespace {

bool IsOpen(int fd) { return ::fcntl(fd, F_GETFD) >= 0; }

int NewFd() { return ::dup(STDIN_FILENO); }

static_assert(!std::is_copy_constructible_v<UniqueFd>);
static_assert(!std::is_copy_assignable_v<UniqueFd>);
static_assert(std::is_nothrow_move_constructible_v<UniqueFd>);
static_assert(std::is_nothrow_move_assignable_v<UniqueFd>);
static_assert(sizeof(UniqueFd) == sizeof(int));

TEST_CASE("a descriptor is closed with its owner", "[R5]") {
  const int raw = NewFd();
  REQUIRE(raw >= 0);
  {
    const UniqueFd fd(raw);
    CHECK(fd.valid());
    CHECK(fd.get() == raw);
    CHECK(IsOpen(raw));
  }
  CHECK_FALSE(IsOpen(raw));
}

TEST_CASE("an empty owner closes nothing", "[R5]") {
  UniqueFd fd;
  CHECK_FALSE(fd.valid());
  CHECK(fd.get() == -1);
  fd.Reset();
  CHECK(fd.Release() == -1);
}

TEST_CASE("Reset closes the old descriptor and takes the new one", "[R5]") {
  const int first = NewFd();
  const int second = NewFd();
  UniqueFd fd(first);
  fd.Reset(second);
  CHECK_FALSE(IsOpen(first));
  CHECK(IsOpen(second));
  CHECK(fd.get() == second);
  fd.Reset();
  CHECK_FALSE(IsOpen(second));
  CHECK_FALSE(fd.valid());
}

TEST_CASE("Release gives the descriptor up", "[R5]") {
  const int raw = NewFd();
  {
    UniqueFd fd(raw);
    CHECK(fd.Release() == raw);
    CHECK_FALSE(fd.valid());
  }
  CHECK(IsOpen(raw));
  ::close(raw);
}

TEST_CASE("a descriptor moves, and has one owner at any time", "[R5]") {
  const int raw = NewFd();
  UniqueFd first(raw);
  UniqueFd second(std::move(first));
  CHECK_FALSE(first.valid());
  CHECK(second.get() == raw);

  const int other = NewFd();
  UniqueFd third(other);
  third = std::move(second);
  CHECK_FALSE(IsOpen(other));
  CHECK(IsOpen(raw));
  CHECK(third.get() == raw);

  UniqueFd& alias = third;
  third = std::move(alias);
  CHECK(third.get() == raw);
  CHECK(IsOpen(raw));
}

}  // namespace
}  // namespace xtcp::internal
