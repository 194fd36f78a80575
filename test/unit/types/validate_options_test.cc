#include "types/validate_options.h"

#include <xtcp/handler.h>
#include <xtcp/protocol.h>

#include <catch2/catch.hpp>
#include <chrono>
#include <cstdint>
#include <functional>
#include <limits>
#include <memory>
#include <stdexcept>
#include <string>
#include <vector>

namespace xtcp::internal {
namespace {

using std::chrono::milliseconds;

class NullHandler : public Handler {
 public:
  void OnEvent(EventType, const ConnPtr&, PacketPtr) override {}
};

class NullProtocol : public Protocol {
 public:
  std::size_t PackSize(const Packet&) const override { return 0; }
  std::error_code PackTo(const Packet&, Writer&) const override { return {}; }
  UnpackResult Unpack(std::span<const std::byte>) const override { return {}; }
};

Options Good() { return {std::make_shared<NullHandler>(), std::make_shared<NullProtocol>()}; }

// What is wrong with the options, "" for nothing.
std::string Complaint(const Options& options) {
  try {
    ValidateOptions(options);
    return "";
  } catch (const std::invalid_argument& error) {
    return error.what();
  }
}

TEST_CASE("the defaults, and those of Hardened, are possible", "[M39]") {
  CHECK(Complaint(Good()).empty());
  CHECK(Complaint(Good().Hardened()).empty());
}

TEST_CASE("a null handler or protocol is refused by name", "[M39]") {
  Options options = Good();
  options.handler = nullptr;
  CHECK(Complaint(options).find("Options::handler ") != std::string::npos);
  options = Good();
  options.protocol = nullptr;
  CHECK(Complaint(options).find("Options::protocol ") != std::string::npos);
}

template <typename T>
struct Field {
  const char* name;
  T Options::*member;
  std::vector<T> good;
  std::vector<T> bad;
};

template <typename T>
void CheckFields(const std::vector<Field<T>>& fields) {
  for (const Field<T>& field : fields) {
    INFO(field.name);
    for (const T value : field.good) {
      Options options = Good();
      options.*field.member = value;
      CHECK(Complaint(options) == "");
    }
    for (const T value : field.bad) {
      Options options = Good();
      options.*field.member = value;
      const std::string complaint = Complaint(options);
      CHECK(complaint.find(std::string("Options::") + field.name + " ") != std::string::npos);
    }
  }
}

TEST_CASE("impossible numbers are refused by name", "[M39]") {
  constexpr std::size_t kMax = std::numeric_limits<std::size_t>::max();
  CheckFields<std::size_t>({
      {"loops", &Options::loops, {0, 1, 1024}, {1025, kMax}},
      {"recv_buffer_size",
       &Options::recv_buffer_size,
       {1, 3, std::size_t{1} << 30},
       {0, (std::size_t{1} << 30) + 1, kMax}},
      {"max_packet_size", &Options::max_packet_size, {1, kMax}, {0}},
      {"first_packet_size",
       &Options::first_packet_size,
       {0, 1, 16 << 20},
       {(16 << 20) + 1, kMax}},  // max_packet_size is 16 MiB
      {"send_buffer_limit", &Options::send_buffer_limit, {1, kMax}, {0}},
      {"max_connections", &Options::max_connections, {0, 1, kMax}, {}},
  });
  CheckFields<int>({
      {"backlog",
       &Options::backlog,
       {1, std::numeric_limits<int>::max()},
       {0, -1, std::numeric_limits<int>::min()}},
  });
}

TEST_CASE("negative durations and those that overflow the clock are refused by name", "[M39]") {
  using std::chrono::years;
  const milliseconds century = years(100);
  const std::vector<milliseconds> bad = {milliseconds(-1), milliseconds::min(),
                                         century + milliseconds(1), milliseconds::max()};
  const std::vector<milliseconds> good = {milliseconds(0), milliseconds(1), century};
  CheckFields<milliseconds>({
      {"keep_alive_period",
       &Options::keep_alive_period,
       {milliseconds(0), milliseconds(1), milliseconds(32'767'000)},
       {milliseconds(-1), milliseconds(32'767'001), milliseconds::max(), milliseconds::min()}},
      {"user_timeout",
       &Options::user_timeout,
       {milliseconds(0), milliseconds(1), milliseconds(0x7fffffff)},
       {milliseconds(-1), milliseconds(0x80000000), milliseconds::max(), milliseconds::min()}},
      {"read_deadline", &Options::read_deadline, good, bad},
      {"write_deadline", &Options::write_deadline, good, bad},
      {"packet_deadline", &Options::packet_deadline, good, bad},
      {"connect_timeout", &Options::connect_timeout, good, bad},
      {"linger_timeout", &Options::linger_timeout, good, bad},
  });
}

TEST_CASE("a duration that is possible never overflows the clock", "[M39]") {
  // A century after a century of uptime.
  const std::chrono::nanoseconds now = std::chrono::years(100);
  const std::chrono::nanoseconds longest = milliseconds(std::chrono::years(100));
  CHECK(now < std::chrono::nanoseconds::max() - longest);
}

}  // namespace
}  // namespace xtcp::internal
