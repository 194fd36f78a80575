#include "conn/phase.h"

#include <array>
#include <catch2/catch.hpp>
#include <cstddef>

#include "conn/age.h"

namespace xtcp::internal {
namespace {

using namespace std::chrono_literals;

TEST_CASE("a connection's phase only goes on", "[E2][S5]") {
  constexpr std::array kAll = {Phase::kServing, Phase::kFlushing, Phase::kStopping,
                               Phase::kLingering, Phase::kClosed};
  for (std::size_t from = 0; from < kAll.size(); ++from) {
    for (std::size_t to = 0; to <= from; ++to) CHECK_FALSE(MayFollow(kAll.at(from), kAll.at(to)));
    if (kAll.at(from) != Phase::kClosed) CHECK(MayFollow(kAll.at(from), Phase::kClosed));
  }
  CHECK(MayFollow(Phase::kFlushing, Phase::kStopping));
  CHECK_FALSE(MayFollow(Phase::kServing, Phase::kLingering));  // what was accepted goes first
}

TEST_CASE("what senders know of a connection only goes on", "[M10][E2]") {
  constexpr std::array kAll = {SendState::kNew,  SendState::kResolving, SendState::kDialing,
                               SendState::kOpen, SendState::kRefusing,  SendState::kClosed};
  for (std::size_t from = 0; from < kAll.size(); ++from) {
    for (std::size_t to = 0; to <= from; ++to) CHECK_FALSE(MayFollow(kAll.at(from), kAll.at(to)));
    if (kAll.at(from) != SendState::kClosed) CHECK(MayFollow(kAll.at(from), SendState::kClosed));
  }
  CHECK_FALSE(MayFollow(SendState::kResolving, SendState::kOpen));
}

TEST_CASE("a connection has no age before it is established", "[E5]") {
  const Age age;
  CHECK(age.At(5s) == 0s);
}

TEST_CASE("an age grows up to the end of the connection", "[E5]") {
  Age age;
  age.Begin(10s);
  CHECK(age.At(13s) == 3s);
  CHECK(age.At(9s) == 0s);  // the clock was read before it began
  age.End(15s);
  CHECK(age.At(99s) == 5s);
  age.End(50s);  // once
  CHECK(age.At(99s) == 5s);
}

TEST_CASE("a connection that is never established ends without an age", "[E5]") {
  Age age;
  age.End(7s);
  CHECK(age.At(9s) == 0s);
}

TEST_CASE("a connection that begins at time zero has an age all the same", "[E5]") {
  Age age;
  age.Begin(0s);
  CHECK(age.At(2s) > 1s);
}

}  // namespace
}  // namespace xtcp::internal
