// The demo programs as a user runs them, each as a process of its own.

#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <catch2/catch.hpp>
#include <chrono>
#include <csignal>
#include <cstddef>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "support/deadline.h"
#include "support/program.h"
#include "support/raw_peer.h"

namespace xtcp::test {
namespace {

using namespace std::chrono_literals;

// Reads a line with its end; "" when none came.
std::string ReadLine(RawPeer& peer) {
  std::string line, byte;
  while (!line.ends_with('\n')) {
    if (peer.ReadExactly(1, &byte) != End::kOpen) return "";
    line += byte;
  }
  return line;
}

// ---- proxy

// A proxy between one peer and a listener, and the two ends of a session.
struct Session {
  explicit Session(std::vector<std::string> more = {}, int receive_buffer = 0)
      : proxy("proxy", Arguments(more)) {
    if (receive_buffer != 0) {  // the target's, too
      ::setsockopt(listener.fd(), SOL_SOCKET, SO_RCVBUF, &receive_buffer, sizeof receive_buffer);
    }
    client = RawPeer(proxy.ReadAddress(), receive_buffer);
    target = listener.Accept();
    REQUIRE(client.connected());
    REQUIRE(target.connected());
  }
  std::vector<std::string> Arguments(const std::vector<std::string>& more) const {
    std::vector<std::string> all{"127.0.0.1:0", listener.address()};
    all.insert(all.end(), more.begin(), more.end());
    return all;
  }

  RawListener listener;
  Program proxy;
  RawPeer client, target;
};

TEST_CASE("the proxy passes both streams on, and the end of each") {
  const bool client_ends = GENERATE(true, false);
  Session s;
  RawPeer& one = client_ends ? s.client : s.target;
  RawPeer& other = client_ends ? s.target : s.client;
  std::string got;
  REQUIRE(other.SendAll("an answer"));
  REQUIRE(one.ReadExactly(9, &got) == End::kOpen);
  CHECK(got == "an answer");
  REQUIRE(one.SendAll("last words"));
  one.HalfClose();
  got.clear();
  CHECK(other.ReadAll(&got) == End::kEof);
  CHECK(got == "last words");
  other.Close();
  CHECK(one.ReadAll() == End::kEof);
  s.proxy.Signal(SIGTERM);
  CHECK(s.proxy.WaitForExit() == 0);
}

TEST_CASE("the proxy loses nothing that was sent before its target took the connection") {
  RawListener listener;
  Program proxy("proxy", {"127.0.0.1:0", listener.address()});
  RawPeer client(proxy.ReadAddress());
  REQUIRE(client.SendAll("early"));
  client.HalfClose();
  RawPeer target = listener.Accept();
  std::string got;
  CHECK(target.ReadAll(&got) == End::kEof);
  CHECK(got == "early");
}

constexpr std::size_t kTooMuch = 64 << 20;  // more than the sockets of a session may hold

// Sends until there is no room for a while, and returns how much that was.
std::size_t SendUntilFull(RawPeer& peer) {
  const std::string piece(64 << 10, 'x');
  std::size_t sent = 0;
  pollfd writable{peer.fd(), POLLOUT, 0};
  while (sent < kTooMuch && ::poll(&writable, 1, 300) == 1) {
    const ssize_t n = ::send(peer.fd(), piece.data(), piece.size(), MSG_DONTWAIT | MSG_NOSIGNAL);
    if (n > 0) sent += static_cast<std::size_t>(n);
  }
  return sent;
}

TEST_CASE("the proxy reads no faster than the other end, and goes on when that reads again") {
  const bool client_sends = GENERATE(true, false);
  Session s;
  RawPeer& sender = client_sends ? s.client : s.target;
  RawPeer& receiver = client_sends ? s.target : s.client;
  const std::size_t sent = SendUntilFull(sender);
  CHECK(sent < kTooMuch);
  sender.HalfClose();
  std::string got;
  CHECK(receiver.ReadAll(&got) == End::kEof);
  const bool all_came = got == std::string(sent, 'x');  // megabytes, not to be shown
  CHECK(all_came);
}

TEST_CASE("the proxy passes on an answer to one who has ended its stream") {
  const bool client_ends = GENERATE(true, false);
  Session s({}, 16 << 10);  // the proxy takes faster than this reads
  RawPeer& one = client_ends ? s.client : s.target;
  RawPeer& other = client_ends ? s.target : s.client;
  REQUIRE(one.SendAll("a question"));
  one.HalfClose();
  std::string got;
  CHECK(other.ReadAll(&got) == End::kEof);
  CHECK(got == "a question");
  // Both streams have ended when the last of the answer waits in a queue.
  const std::size_t sent = SendUntilFull(other);
  other.HalfClose();
  got.clear();
  CHECK(one.ReadAll(&got) == End::kEof);
  const bool all_came = got == std::string(sent, 'x');  // megabytes, not to be shown
  CHECK(all_came);
}

TEST_CASE("the proxy ends a session that is idle, and only that") {
  using Clock = std::chrono::steady_clock;
  constexpr std::chrono::milliseconds kIdle = 1s;
  Session s({"1"});
  const auto begin = Clock::now();
  auto last = begin;
  while (last < begin + kIdle + 200ms) {
    if (Clock::now() - last > kIdle / 2) {
      WARN("this machine is too slow to tell an idle session from a slow one");
      return;
    }
    std::string byte;
    REQUIRE(s.client.SendAll("x"));
    REQUIRE(s.target.ReadExactly(1, &byte) == End::kOpen);
    CHECK(byte == "x");
    last = Clock::now();
    std::this_thread::sleep_for(kIdle / 10);
  }
  CHECK(s.client.ReadAll() == End::kEof);
  CHECK(s.target.ReadAll() == End::kEof);
}

TEST_CASE("the proxy closes a client whose target is not there") {
  const std::string nobody = [] { return RawListener().address(); }();
  Program proxy("proxy", {"127.0.0.1:0", nobody});
  RawPeer client(proxy.ReadAddress());
  CHECK(client.ReadAll() != End::kTimeout);
}

// ---- broker

TEST_CASE("the broker tells its subscribers what is published, and nobody else") {
  Program broker("broker", {"127.0.0.1:0"});
  const std::string address = broker.ReadAddress();
  RawPeer reader(address), other(address), writer(address);
  REQUIRE(reader.SendAll("SUB news\r\nSUB weather\n"));
  CHECK(ReadLine(reader) == "OK\n");
  CHECK(ReadLine(reader) == "OK\n");
  REQUIRE(other.SendAll("SUB news\nUNSUB news\nSUB sports\n"));
  for (int i = 0; i < 3; ++i) CHECK(ReadLine(other) == "OK\n");
  REQUIRE(writer.SendAll("PUB news it works\nPUB sports 1 : 0\nPUB cooking\nPUB\nSING\n"));
  CHECK(ReadLine(writer) == "OK 1\n");
  CHECK(ReadLine(writer) == "OK 1\n");
  CHECK(ReadLine(writer) == "OK 0\n");
  CHECK(ReadLine(writer) == "ERR no such command\n");
  CHECK(ReadLine(writer) == "ERR no such command\n");
  CHECK(ReadLine(reader) == "MSG news it works\n");
  CHECK(ReadLine(other) == "MSG sports 1 : 0\n");

  // A subscriber that has gone is told nothing.
  reader.Close();
  CHECK(WaitUntil([&] { return writer.SendAll("PUB news\n") && ReadLine(writer) == "OK 0\n"; }));
  broker.Signal(SIGTERM);
  CHECK(other.ReadAll() == End::kEof);
  CHECK(writer.ReadAll() == End::kEof);
  other.Close();
  writer.Close();
  CHECK(broker.WaitForExit() == 0);
}

TEST_CASE("the broker asks who is silent, and cuts who does not answer") {
  Program broker("broker", {"127.0.0.1:0", "0.5"});
  const std::string address = broker.ReadAddress();
  RawPeer dead(address), alive(address);
  for (int i = 0; i < 3; ++i) {
    CHECK(ReadLine(alive) == "PING\n");
    REQUIRE(alive.SendAll("PONG\n"));
  }
  CHECK(ReadLine(dead) == "PING\n");
  std::string rest;
  CHECK(dead.ReadAll(&rest) == End::kEof);
  CHECK(rest == "");
}

// ---- pool_client

TEST_CASE("the pool client loses no line over a server's restart") {
  const std::string address = "unix:@xtcp-pool-" + std::to_string(::getpid());
  auto listener = std::make_unique<RawListener>(address);
  Program client("pool_client", {address});
  REQUIRE(client.Write("one\ntwo\nthree\n"));
  RawPeer server = listener->Accept();
  CHECK(ReadLine(server) == "one\n");
  CHECK(ReadLine(server) == "two\n");
  CHECK(ReadLine(server) == "three\n");
  REQUIRE(server.SendAll("1\n"));  // "two" and "three" may have been lost with the server
  server.HalfClose();              // so that the acknowledgement comes before the end
  CHECK(server.ReadAll() == End::kEof);
  server.Close();
  listener.reset();

  REQUIRE(client.Write("four\n"));
  client.CloseInput();
  listener = std::make_unique<RawListener>(address);
  server = listener->Accept();
  CHECK(ReadLine(server) == "two\n");
  CHECK(ReadLine(server) == "three\n");
  CHECK(ReadLine(server) == "four\n");
  REQUIRE(server.SendAll("2\n3\n4\n"));
  CHECK(server.ReadAll() == End::kEof);
  server.Close();
  CHECK(client.WaitForExit() == 0);
}

TEST_CASE("the pool client waits for acknowledgements when it keeps as many lines as it may") {
  constexpr int kMost = 1000;
  RawListener listener;
  Program client("pool_client", {listener.address()});
  std::string all;
  for (int i = 0; i < 2 * kMost; ++i) all += std::to_string(i) + '\n';
  REQUIRE(client.Write(all));
  client.CloseInput();
  RawPeer server = listener.Accept();
  for (int i = 0; i < kMost; ++i) REQUIRE(ReadLine(server) == std::to_string(i) + '\n');
  std::string more;
  CHECK(server.ReadExactly(1, &more, 100ms) == End::kTimeout);
  for (int i = 0; i < kMost; ++i) {
    REQUIRE(server.SendAll("ok\n"));
    REQUIRE(ReadLine(server) == std::to_string(kMost + i) + '\n');
  }
  for (int i = 0; i < kMost; ++i) REQUIRE(server.SendAll("ok\n"));
  CHECK(server.ReadAll() == End::kEof);
  server.Close();
  CHECK(client.WaitForExit() == 0);
}

// ---- in_other_loop

TEST_CASE("a server inside another loop serves, keeps time and stops") {
  Program program("in_other_loop", {"127.0.0.1:0", "20"});
  const std::string address = program.ReadAddress();
  RawPeer one(address), other(address);
  REQUIRE(one.SendAll("this is skipped"));
  for (int i = 0; i < 3; ++i) {
    CHECK(ReadLine(one) != "");
    CHECK(ReadLine(other) != "");
  }
  program.Signal(SIGTERM);
  CHECK(one.ReadAll() == End::kEof);
  CHECK(other.ReadAll() == End::kEof);
  one.Close();
  other.Close();
  CHECK(program.WaitForExit() == 0);
}

}  // namespace
}  // namespace xtcp::test
