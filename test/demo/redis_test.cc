// The Redis demo: its decoder by itself, and the program as clients see it.

#include <xtcp/testing/check_protocol.h>

#include <catch2/catch.hpp>
#include <csignal>
#include <cstddef>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "demo/commands.h"
#include "redis_protocol.h"
#include "support/program.h"
#include "support/raw_peer.h"

namespace xtcp::test {
namespace {

std::string Array(const std::vector<std::string>& words) {
  std::string text = '*' + std::to_string(words.size()) + "\r\n";
  for (const std::string& word : words)
    text += '$' + std::to_string(word.size()) + "\r\n" + word + "\r\n";
  return text;
}

// What is refused, and why.
const std::vector<std::pair<std::string, std::string>> kWrong{
    {"*x\r\n", "invalid multibulk length"},
    {"*\r\n", "invalid multibulk length"},
    {"*1 \r\n", "invalid multibulk length"},
    {"*16385\r\n", "invalid multibulk length"},
    {"*" + std::string(30, '1'), "invalid multibulk length"},
    {"*1\r\n:1\r\n", "expected '$'"},
    {"*1\r\n\r\n", "expected '$'"},
    {"*1\r\n$x\r\n", "invalid bulk length"},
    {"*1\r\n$-1\r\n", "invalid bulk length"},
    {"*1\r\n$8388609\r\n", "invalid bulk length"},
    {"*1\r\n$18446744073709551617\r\n", "invalid bulk length"},
    {"*1\r\n$4\r\nPINGPONG", "expected CRLF after a bulk string"},
    {std::string(70'000, 'x'), "too big inline request"},
};

TEST_CASE("the Redis decoder keeps the rules of protocols") {
  const demo::RedisProtocol protocol;
  const auto same = [](const Packet& a, const Packet& b) {
    return static_cast<const demo::RedisCommand&>(a).words ==
           static_cast<const demo::RedisCommand&>(b).words;
  };
  const std::vector<std::string> nothing;
  CHECK(CheckProtocol(protocol,
                      {Array({"PING"}), Array({"SET", "key", "a\r\nvalue"}), Array({"ECHO", ""}),
                       "PING\r\n", "GET  key \n", "*0\r\n", "*-1\r\nPING\n", "\r\n  \nPING\n",
                       Array(std::vector<std::string>(100, "word"))},
                      same) == nothing);
  std::vector<std::string> wrong;
  for (const auto& [text, why] : kWrong) wrong.push_back(text);
  CHECK(CheckProtocol(protocol, wrong, same, Samples::kAnyBytes) == nothing);
}

TEST_CASE("the Redis decoder asks for what a long word takes, and for nothing beyond its limit") {
  demo::RedisDecoder decoder;
  const auto unpack = [&](std::string_view text) { return decoder.Unpack(AsBytes(text)); };
  const std::string head = "*3\r\n$3\r\nSET\r\n$8388608\r\n";
  UnpackResult result = unpack(head);
  CHECK(result.need == head.size() + 8388608 + 2);
  const std::string word = head + std::string(8388608, 'x') + "\r\n$8388608\r\n";
  result = unpack(word);
  CHECK(result.error == demo::RedisErrc::kTooLarge);
}

// ---- The server.

struct RedisServer {
  RedisServer() : program("redis_server", {"127.0.0.1:0"}), address(program.ReadAddress()) {}
  Program program;
  std::string address;
};

// Sends it, and says whether exactly this is the answer.
void Ask(RawPeer& peer, const std::string& request, const std::string& expected) {
  REQUIRE(peer.SendAll(request));
  std::string answer;
  CHECK(peer.ReadExactly(expected.size(), &answer) == End::kOpen);
  CHECK(answer == expected);
}

TEST_CASE("the Redis server does what its commands say") {
  RedisServer server;
  RawPeer peer(server.address);
  Ask(peer, Array({"PING"}), "+PONG\r\n");
  Ask(peer, "ping\r\n", "+PONG\r\n");
  Ask(peer, "\r\n*0\r\nPING again\n", "$5\r\nagain\r\n");
  Ask(peer, Array({"ECHO", "a\r\nb"}), "$4\r\na\r\nb\r\n");
  Ask(peer, Array({"GET", "key"}), "$-1\r\n");
  Ask(peer, Array({"SET", "key", "value"}), "+OK\r\n");
  Ask(peer, Array({"GET", "key"}), "$5\r\nvalue\r\n");
  Ask(peer, Array({"SET", "key", ""}), "+OK\r\n");
  Ask(peer, Array({"GET", "key"}), "$0\r\n\r\n");
  Ask(peer, Array({"MSET", "a", "1", "b", "2"}), "+OK\r\n");
  Ask(peer, Array({"MGET", "a", "none", "b"}), "*3\r\n$1\r\n1\r\n$-1\r\n$1\r\n2\r\n");
  Ask(peer, Array({"INCR", "a"}), ":2\r\n");
  Ask(peer, Array({"INCR", "new"}), ":1\r\n");
  Ask(peer, Array({"INCR", "key"}), "-ERR value is not an integer or out of range\r\n");
  Ask(peer, Array({"SET", "a", "9223372036854775807"}), "+OK\r\n");
  Ask(peer, Array({"INCR", "a"}), "-ERR increment or decrement would overflow\r\n");
  Ask(peer, Array({"DEL", "a", "none", "b", "a"}), ":2\r\n");
  Ask(peer, Array({"GET", "a"}), "$-1\r\n");
  Ask(peer, Array({"COMMAND", "DOCS"}), "*0\r\n");
  Ask(peer, Array({"GET"}), "-ERR wrong number of arguments for 'get' command\r\n");
  Ask(peer, Array({"GET", "a", "b"}), "-ERR wrong number of arguments for 'get' command\r\n");
  Ask(peer, Array({"MSET", "a", "1", "b"}),
      "-ERR wrong number of arguments for 'mset' command\r\n");
  Ask(peer, Array({"FOO\r\n+OK", "a", "b"}),
      "-ERR unknown command 'FOO  +OK', with args beginning with: 'a' 'b' \r\n");
  Ask(peer, Array({"QUIT"}) + Array({"PING"}), "+OK\r\n");
  std::string rest;
  CHECK(peer.ReadAll(&rest) == End::kEof);
  CHECK(rest == "");
}

TEST_CASE("the Redis server answers many commands that come at once, in any pieces") {
  RedisServer server;
  std::string requests, answers;
  for (int i = 0; i < 100; ++i) {
    const std::string value(static_cast<std::size_t>(i * 7), 'v');
    requests += Array({"SET", "k", value}) + Array({"GET", "k"}) + "INCR n\r\n";
    answers += "+OK\r\n$" + std::to_string(value.size()) + "\r\n" + value +
               "\r\n:" + std::to_string(i + 1) + "\r\n";
  }
  RawPeer peer(server.address);
  Ask(peer, requests, answers);
  RawPeer other(server.address);
  Ask(other, "DEL n\r\n", ":1\r\n");
  REQUIRE(other.Dribble(requests, 1000));
  Ask(other, "", answers);
}

TEST_CASE("the Redis server says what was wrong, and ends the connection") {
  RedisServer server;
  for (const auto& [text, why] : kWrong) {
    INFO(text.substr(0, 30));
    RawPeer peer(server.address);
    REQUIRE(peer.SendAll("PING\r\n" + text));
    std::string all;
    CHECK(peer.ReadAll(&all) == End::kEof);
    CHECK(all == "+PONG\r\n-ERR Protocol error: " + why + "\r\n");
  }
  RawPeer browser(server.address);
  REQUIRE(browser.SendAll("POST / HTTP/1.1\r\nHost: x\r\n\r\nSET a 1\r\n"));
  std::string all;
  browser.ReadAll(&all);
  CHECK(all == "");
}

TEST_CASE("a value of the Redis server does not change for those who have asked for it") {
  constexpr std::size_t kSize = 8 << 20;  // more than sockets hold
  RedisServer server;
  RawPeer reader(server.address, 4096), writer(server.address);
  Ask(writer, Array({"SET", "k", std::string(kSize, 'a')}), "+OK\r\n");
  // An answer to the next command of the reader would wait until it has read.
  REQUIRE(reader.SendAll(Array({"MGET", "k", "k"})));
  std::string head;
  REQUIRE(reader.ReadExactly(4, &head) == End::kOpen);
  CHECK(head == "*2\r\n");
  Ask(writer, Array({"SET", "k", std::string(kSize, 'b')}), "+OK\r\n");
  Ask(writer, Array({"DEL", "k"}), ":1\r\n");
  const std::string one = '$' + std::to_string(kSize) + "\r\n" + std::string(kSize, 'a') + "\r\n";
  std::string got;
  CHECK(reader.ReadExactly(2 * one.size(), &got) == End::kOpen);
  const bool unchanged = got == one + one;  // megabytes, not to be shown
  CHECK(unchanged);
}

TEST_CASE("the Redis server refuses an answer that is larger than its queue") {
  RedisServer server;
  RawPeer peer(server.address);
  Ask(peer, Array({"SET", "k", std::string(8 << 20, 'a')}), "+OK\r\n");
  std::vector<std::string> words(10, "k");
  words[0] = "MGET";
  Ask(peer, Array(words), "-ERR the answer is too large\r\n");
  Ask(peer, "PING\r\n", "+PONG\r\n");
}

// ---- The server and the clients of Redis.

TEST_CASE("the Redis server and redis-cli understand each other") {
  if (!IsInstalled("redis-cli")) return;
  RedisServer server;
  const std::string cli =
      "timeout 60 redis-cli -p " + server.address.substr(server.address.rfind(':') + 1) + ' ';
  CHECK(OutputOf(cli + "PING") == "PONG\n");
  CHECK(OutputOf(cli + "SET a 'two words'") == "OK\n");
  CHECK(OutputOf(cli + "GET a") == "two words\n");
  CHECK(OutputOf("printf 'INCR n\\nINCR n\\n' | " + cli) == "1\n2\n");
  CHECK(OutputOf(cli + "--no-raw MGET a none") == "1) \"two words\"\n2) (nil)\n");
  CHECK(OutputOf(cli + "GET 2>&1").find("wrong number of arguments") != std::string::npos);
  CHECK(OutputOf("seq 1 20000 | sed 's/^/SET key:/; s/$/ value\\r/' | " + cli + "--pipe")
            .find("errors: 0, replies: 20000\n") != std::string::npos);
}

TEST_CASE("the Redis server serves redis-benchmark") {
  if (!IsInstalled("redis-benchmark")) return;
  RedisServer server;
  const std::string output =
      OutputOf("timeout 60 redis-benchmark -q -n 5000 -P 16 -t ping,set,get,incr,mset --csv -p " +
               server.address.substr(server.address.rfind(':') + 1) + " 2>/dev/null");
  for (const std::string test : {"PING_INLINE", "PING_MBULK", "SET", "GET", "INCR", "MSET"}) {
    INFO(test);
    CHECK(output.find('"' + test) != std::string::npos);
  }
}

}  // namespace
}  // namespace xtcp::test
