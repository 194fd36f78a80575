#include "types/validate_options.h"

#include <chrono>
#include <limits>
#include <stdexcept>
#include <string>

namespace xtcp::internal {
namespace {

using std::chrono::milliseconds;

// The monotonic clock counts nanoseconds since the start of the system in 64 bits, which last for
// 292 years. A deadline that is at most this far away never overflows it.
constexpr milliseconds kLongest = std::chrono::years(100);

constexpr milliseconds kLongestKeepAlive = std::chrono::seconds(32767);  // MAX_TCP_KEEPIDLE
constexpr milliseconds kLongestUserTimeout{std::numeric_limits<int>::max()};
constexpr std::size_t kMostLoops = 1024;
constexpr std::size_t kLargestFirstBuffer = std::size_t{1} << 30;

void Require(bool holds, const char* field, const char* rule, const char* of = "Options") {
  if (!holds) throw std::invalid_argument(std::string("xtcp::") + of + "::" + field + " " + rule);
}

void RequireDuration(milliseconds value, milliseconds longest, const char* field) {
  Require(value >= milliseconds::zero(), field, "must not be negative");
  Require(value <= longest, field, "is too long");
}

}  // namespace

void ValidateOptions(const Options& options) {
  Require(options.handler != nullptr, "handler", "must not be null");
  Require(options.protocol != nullptr, "protocol", "must not be null");
  Require(options.loops <= kMostLoops, "loops", "must be at most 1024");
  Require(options.recv_buffer_size >= 1 && options.recv_buffer_size <= kLargestFirstBuffer,
          "recv_buffer_size", "must be from 1 to 1 GiB");
  Require(options.max_packet_size >= 1, "max_packet_size", "must be at least 1");
  Require(options.first_packet_size <= options.max_packet_size, "first_packet_size",
          "must not exceed max_packet_size");
  Require(options.send_buffer_limit >= 1, "send_buffer_limit", "must be at least 1");
  Require(options.pause_recv_above < options.send_buffer_limit, "pause_recv_above",
          "must be less than send_buffer_limit");
  RequireDuration(options.drain_grace, kLongest, "drain_grace");
  RequireDuration(options.keep_alive_period, kLongestKeepAlive, "keep_alive_period");
  RequireDuration(options.user_timeout, kLongestUserTimeout, "user_timeout");
  RequireDuration(options.read_deadline, kLongest, "read_deadline");
  RequireDuration(options.write_deadline, kLongest, "write_deadline");
  RequireDuration(options.packet_deadline, kLongest, "packet_deadline");
  RequireDuration(options.connect_timeout, kLongest, "connect_timeout");
  RequireDuration(options.linger_timeout, kLongest, "linger_timeout");
  Require(options.backlog >= 1, "backlog", "must be at least 1");
}

void ValidateBackoff(const Backoff& backoff) {
  Require(backoff.first >= milliseconds(1), "first", "must be at least 1 ms", "Backoff");
  Require(backoff.most >= backoff.first, "most", "must not be less than first", "Backoff");
  Require(backoff.most <= kLongest, "most", "is too long", "Backoff");
  // Each so that a NaN is refused.
  Require(backoff.factor >= 1, "factor", "must be at least 1", "Backoff");
  Require(backoff.jitter >= 0 && backoff.jitter <= 1, "jitter", "must be from 0 to 1", "Backoff");
}

}  // namespace xtcp::internal
