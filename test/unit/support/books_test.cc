#include "support/books.h"

#include <catch2/catch.hpp>

#include "support/violations.h"

namespace xtcp::test {
namespace {

constexpr char kServer[] = "127.0.0.1:80";
constexpr char kClient[] = "127.0.0.1:40000";

Books Writer(std::uint64_t written, std::uint64_t unacked) {
  return {.own = kServer,
          .peer = kClient,
          .wrote_by_library = true,
          .written = written,
          .unacked = unacked};
}

Books Reader(std::uint64_t received, bool saw_end) {
  return {.own = kClient, .peer = kServer, .received = received, .saw_end = saw_end};
}

// How many complaints about these two there are, in one test's time.
std::size_t Complaints(const Books& writer, const Books& reader) {
  EnterBooks(reader);
  EnterBooks(writer);
  REQUIRE(CompareBooks() == 1);
  return TakeViolations().size();
}

TEST_CASE("the books of two ends are held against each other", "[B1]") {
  REQUIRE(Complaints(Writer(10, 0), Reader(10, true)) == 0);
  REQUIRE(Complaints(Writer(10, 3), Reader(7, true)) == 0);
  REQUIRE(Complaints(Writer(10, 3), Reader(10, true)) == 0);
  REQUIRE(Complaints(Writer(10, 3), Reader(6, true)) == 1);
  REQUIRE(Complaints(Writer(10, 0), Reader(6, false)) == 0);  // it did not read on
  REQUIRE(Complaints(Writer(10, 10), Reader(11, false)) == 1);
}

TEST_CASE("books that no other end matches are left alone", "[B1]") {
  EnterBooks(Reader(10, true));
  REQUIRE(CompareBooks() == 0);
  EnterBooks(Writer(10, 0));
  REQUIRE(CompareBooks() == 0);  // the first comparison forgot the other one

  EnterBooks(Writer(10, 0));
  EnterBooks(Reader(5, true));
  EnterBooks(Reader(5, true));
  REQUIRE(CompareBooks() == 0);  // a port that was given out twice

  EnterBooks({.own = "unix:/s", .peer = "unix:", .wrote_by_library = true});
  EnterBooks({.own = "unix:", .peer = "unix:/s", .received = 5});
  REQUIRE(CompareBooks() == 0);  // any client of a Unix socket
  REQUIRE(TakeViolations().empty());
}

}  // namespace
}  // namespace xtcp::test
