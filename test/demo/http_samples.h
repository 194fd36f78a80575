#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace xtcp::test {

inline const std::string kHost = "Host: x\r\n";
inline const std::string kPost = "POST /echo HTTP/1.1\r\n" + kHost;
inline const std::string kChunked = kPost + "Transfer-Encoding: chunked\r\n\r\n";
inline const std::string kGet = "GET / HTTP/1.1\r\n" + kHost + "\r\n";

// What has to be refused, and with which status.
struct Wrong {
  std::string what, request;
  int status;
};

// Whether there is a body in it.
inline bool HasParts(std::string_view request) { return request.find("hello") != request.npos; }

inline std::vector<Wrong> AllWrong() {
  const auto get = [](const std::string& field) {
    return "GET / HTTP/1.1\r\n" + kHost + field + "\r\n\r\n";
  };
  const std::string length = "Content-Length: 5\r\n";
  return {
      {"no version", "GET /\r\n\r\n", 400},
      {"two spaces", "GET  / HTTP/1.1\r\nHost: x\r\n\r\n", 400},
      {"a tab for a space", "GET\t/ HTTP/1.1\r\nHost: x\r\n\r\n", 400},
      {"a space at the end", "GET / HTTP/1.1 \r\nHost: x\r\n\r\n", 400},
      {"no method", " / HTTP/1.1\r\nHost: x\r\n\r\n", 400},
      {"a method that is no token", "G(T / HTTP/1.1\r\nHost: x\r\n\r\n", 400},
      {"a relative target", "GET x HTTP/1.1\r\nHost: x\r\n\r\n", 400},
      {"a target of other bytes", "GET /\xe4 HTTP/1.1\r\nHost: x\r\n\r\n", 400},
      {"no host in the target", "GET http:/// HTTP/1.1\r\nHost: x\r\n\r\n", 400},
      {"a user in the target", "GET http://a@b/ HTTP/1.1\r\nHost: x\r\n\r\n", 400},
      {"two lines before the request", "\r\n\r\n" + kGet, 400},
      {"another protocol", "GET / HTTQ/1.1\r\nHost: x\r\n\r\n", 400},
      {"a version without a dot", "GET / HTTP/11\r\nHost: x\r\n\r\n", 400},
      {"HTTP/2", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505},
      {"HTTP/0.9", "GET / HTTP/0.9\r\n\r\n", 505},
      {"no Host", "GET / HTTP/1.1\r\n\r\n", 400},
      {"two Hosts", get("Host: x"), 400},
      {"a bad Host", "GET / HTTP/1.1\r\nHost: a/b\r\n\r\n", 400},
      {"no colon", get("Accept"), 400},
      {"no name", get(": x"), 400},
      {"a space before the colon", get("Content-Length : 5"), 400},
      {"a line that goes on", get("Accept: x\r\n y"), 400},
      {"a tab at its beginning", get("Accept: x\r\n\ty: z"), 400},
      {"a space before the first field", "GET / HTTP/1.1\r\n Host: x\r\n\r\n", 400},
      {"a CR in a value", get("Accept: x\ry"), 400},
      {"a CR before the end", get("Accept: x\r"), 400},
      {"a NUL", get("Accept: x" + std::string(1, '\0')), 400},
      {"a line feed alone", "GET / HTTP/1.1\nHost: x\n\n", 400},
      {"one inside of a head", "GET / HTTP/1.1\r\nHost: x\nAccept: y\r\n\r\n", 400},
      {"a CR at the end of the request line", "GET / HTTP/1.1\r\r\nHost: x\r\n\r\n", 400},
      {"two lengths", get(length + "Content-Length: 6"), 400},
      {"the same length twice", get(length + "Content-Length: 5"), 400},
      {"a list of lengths", get("Content-Length: 5, 5"), 400},
      {"a sign", get("Content-Length: +5"), 400},
      {"a negative length", get("Content-Length: -5"), 400},
      {"no length", get("Content-Length:"), 400},
      {"a hexadecimal length", get("Content-Length: 0x5"), 400},
      {"a length of 2^64", get("Content-Length: 18446744073709551616"), 400},
      {"both", kPost + length + "Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400},
      {"both, the other way", kPost + "Transfer-Encoding: chunked\r\n" + length + "\r\n", 400},
      {"chunks twice", get("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked"), 400},
      {"chunks in 1.0", "POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400},
      {"another coding", get("Transfer-Encoding: gzip, chunked"), 501},
      {"what looks like chunks", get("Transfer-Encoding: xchunked"), 501},
      {"chunks in quotes", get("Transfer-Encoding: \"chunked\""), 501},
      {"no coding", get("Transfer-Encoding:"), 501},
      {"another expectation", get("Expect: money"), 417},
      {"no chunk size", kChunked + "\r\n", 400},
      {"a chunk size with a prefix", kChunked + "0x5\r\n", 400},
      {"a negative chunk", kChunked + "-5\r\n", 400},
      {"a space before the size", kChunked + " 5\r\n", 400},
      {"a space after the size", kChunked + "5 \r\n", 400},
      {"a chunk of 2^64", kChunked + "10000000000000000\r\n", 400},
      {"a line feed alone after the size", kChunked + "5\nhello\r\n", 400},
      {"a CR in an extension", kChunked + "5;a\rb\r\nhello\r\n", 400},
      {"a chunk that is longer", kChunked + "5\r\nhello!\r\n", 400},
      {"a line feed alone after a chunk", kChunked + "5\r\nhello\n0\r\n\r\n", 400},
      {"a bad trailer", kChunked + "0\r\nx y\r\n\r\n", 400},
      {"an endless chunk line", kChunked + "5;" + std::string(2000, 'x'), 400},
      {"an endless target", "GET /" + std::string(20'000, 'x'), 414},
      {"an endless field", "GET / HTTP/1.1\r\nAccept: " + std::string(20'000, 'x'), 431},
      {"an endless trailer", kChunked + "0\r\nx: " + std::string(20'000, 'x'), 431},
  };
}

}  // namespace xtcp::test
