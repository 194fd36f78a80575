// The HTTP demo's decoder by itself. Every view is a heap block of its exact size, so that the
// address sanitizer sees a read past its end.

#include "http_decoder.h"

#include <xtcp/testing/check_protocol.h>

#include <algorithm>
#include <catch2/catch.hpp>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "demo/http_samples.h"

namespace xtcp::test {
namespace {

constexpr std::uint64_t kBodyMax = 1000;

// What a decoder says of a stream that comes in pieces of `step` bytes. The parts of a body are put
// together.
std::string Trace(const std::string& stream, std::size_t step) {
  demo::HttpDecoder decoder(kBodyMax);
  std::string trace;
  std::size_t begin = 0;
  for (std::size_t end = std::min(step, stream.size());;
       end = std::min(end + step, stream.size())) {
    while (begin < end) {
      const std::vector<char> exactly(stream.begin() + static_cast<std::ptrdiff_t>(begin),
                                      stream.begin() + static_cast<std::ptrdiff_t>(end));
      const UnpackResult result = decoder.Unpack(std::as_bytes(std::span(exactly)));
      if (result.error) return trace + "error " + std::to_string(result.error.value());
      if (result.size == 0) break;
      begin += result.size;
      if (result.packet == nullptr) continue;
      const auto& packet = static_cast<const demo::HttpPacket&>(*result.packet);
      if (packet.head) {
        const demo::HttpHead& head = *packet.head;
        trace += std::string(head.method) + ' ' + std::string(head.target) + " 1." +
                 std::to_string(head.minor_version) + (head.keep_alive ? " keep" : " close") +
                 (head.expects_continue ? " expects" : "") + (head.chunked ? " chunked" : "") +
                 (head.length ? " " + std::to_string(*head.length) : "") + ": ";
      }
      trace += packet.part;
      if (packet.last) trace += "|";
    }
    if (end == stream.size()) return trace;
  }
}

struct Right {
  std::string request, trace;
};
std::vector<Right> AllRight() {
  const std::string old = "GET / HTTP/1.0\r\n";
  return {
      {kGet, "GET / 1.1 keep: |"},
      {"\r\n" + kGet, "GET / 1.1 keep: |"},
      {kGet + kGet, "GET / 1.1 keep: |GET / 1.1 keep: |"},
      {"GET /a?b HTTP/1.7\r\nhOST:\tx:80 \r\n\r\n", "GET /a?b 1.1 keep: |"},
      {"GET http://a:1/b HTTP/1.1\r\n" + kHost + "\r\n", "GET /b 1.1 keep: |"},
      {"GET HTTP://a HTTP/1.1\r\n" + kHost + "\r\n", "GET / 1.1 keep: |"},
      {"OPTIONS * HTTP/1.1\r\n" + kHost + "\r\n", "OPTIONS * 1.1 keep: |"},
      {"GET / HTTP/1.1\r\nHost:\r\nConnection: a, Close ,b\r\n\r\n", "GET / 1.1 close: |"},
      {old + "\r\n", "GET / 1.0 close: |"},
      {old + "Connection: keep-alive\r\nExpect: money\r\n\r\n", "GET / 1.0 keep: |"},
      {old + "Connection: keep-alive, close\r\n\r\n", "GET / 1.0 close: |"},
      {kPost + "Content-Length: 5\r\n\r\nhello" + kGet,
       "POST /echo 1.1 keep 5: hello|GET / 1.1 keep: |"},
      {kPost + "Content-Length: 0\r\nExpect: 100-continue\r\n\r\n", "POST /echo 1.1 keep 0: |"},
      {kPost + "Content-Length: 0005\r\nExpect: 100-Continue\r\n\r\nhello",
       "POST /echo 1.1 keep expects 5: hello|"},
      {kChunked + "5\r\nhello\r\n00a ;x=\"y\"\r\n, \r\nworld!\r\n000\r\n\r\n" + kGet,
       "POST /echo 1.1 keep chunked: hello, \r\nworld!|GET / 1.1 keep: |"},
      {kChunked + "0\r\nA: b\r\nC:\r\n\r\n" + kGet,
       "POST /echo 1.1 keep chunked: |GET / 1.1 keep: |"},
      {kPost + "Content-Length: 1001\r\n\r\n", "error 413"},
      {kChunked + "3E8\r\n" + std::string(1000, 'x') + "\r\n1\r\n",
       "POST /echo 1.1 keep chunked: " + std::string(1000, 'x') + "error 413"},
      {kChunked + "ffffffffffffffff\r\n", "POST /echo 1.1 keep chunked: error 413"},
  };
}

TEST_CASE("the HTTP decoder understands a request however it is cut") {
  for (const auto& [request, trace] : AllRight()) {
    for (std::size_t step = 1; step < request.size(); step += step < 300 ? 1 : 100) {
      INFO(request << " in steps of " << step);
      REQUIRE(Trace(request, step) == trace);
    }
    CHECK(Trace(request, request.size()) == trace);
  }
}

TEST_CASE("the HTTP decoder refuses what can be understood in two ways") {
  for (const Wrong& wrong : AllWrong()) {
    INFO(wrong.what);
    const std::string error = "error " + std::to_string(wrong.status);
    const std::string trace = Trace(wrong.request, wrong.request.size());
    CHECK(trace.substr(trace.size() - std::min(trace.size(), error.size())) == error);
    CHECK(Trace(wrong.request, 1) == trace);
    CHECK(Trace(wrong.request, 7) == trace);
  }
}

TEST_CASE("the HTTP decoder keeps the rules of protocols") {
  const demo::HttpProtocol protocol(kBodyMax);
  std::vector<std::string> whole, cut, wrong;
  for (const auto& [request, trace] : AllRight()) {
    if (trace.find("error") == trace.npos) (HasParts(request) ? cut : whole).push_back(request);
  }
  for (const Wrong& one : AllWrong()) {
    if (!HasParts(one.request)) wrong.push_back(one.request);
  }
  const auto same = [](const Packet& a, const Packet& b) {
    const auto& first = static_cast<const demo::HttpPacket&>(a);
    const auto& second = static_cast<const demo::HttpPacket&>(b);
    return first.last == second.last && first.head.has_value() == second.head.has_value() &&
           (!first.head || first.head->target == second.head->target);
  };
  const std::vector<std::string> nothing;
  CHECK(CheckProtocol(protocol, whole, same) == nothing);
  CHECK(CheckProtocol(protocol, cut, same, Samples::kParts) == nothing);
  CHECK(CheckProtocol(protocol, wrong, same, Samples::kAnyBytes) == nothing);
}

}  // namespace
}  // namespace xtcp::test
