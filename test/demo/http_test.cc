// The HTTP demo as its clients see it.

#include <poll.h>
#include <sched.h>
#include <sys/socket.h>

#include <algorithm>
#include <catch2/catch.hpp>
#include <csignal>
#include <cstddef>
#include <fstream>
#include <string>
#include <string_view>
#include <utility>

#include "demo/commands.h"
#include "demo/http_samples.h"
#include "support/deadline.h"
#include "support/program.h"
#include "support/raw_peer.h"
#include "support/temp_folder.h"

namespace xtcp::test {
namespace {

struct Answer {
  int status = 0;  // 0: none came
  std::string head, content;
  bool Has(std::string_view text) const { return head.find(text) != head.npos; }
};

std::string ReadUntil(RawPeer& peer, std::string_view end) {
  std::string text, byte;
  while (!text.ends_with(end) && peer.ReadExactly(1, &byte) == End::kOpen) {
    text += byte;
  }
  return text;
}

Answer ReadAnswer(RawPeer& peer, bool to_head = false) {
  Answer answer;
  answer.head = ReadUntil(peer, "\r\n\r\n");
  if (!answer.head.starts_with("HTTP/1.1 ")) return answer;
  answer.status = std::stoi(answer.head.substr(9));
  const std::string counted = "Content-Length: ";
  if (to_head || answer.status == 100) return answer;
  if (const auto at = answer.head.find(counted); at != std::string::npos) {
    peer.ReadExactly(std::stoul(answer.head.substr(at + counted.size())), &answer.content);
  } else if (answer.Has("Transfer-Encoding: chunked\r\n")) {
    for (std::size_t size = 1; size != 0;) {
      const std::string line = ReadUntil(peer, "\r\n");
      if (line.empty()) return {};
      size = std::stoul(line, nullptr, 16);
      std::string chunk;
      peer.ReadExactly(size, &chunk);
      answer.content += chunk;
      if (ReadUntil(peer, "\r\n") != "\r\n") return {};
    }
  }
  return answer;
}

struct HttpServer {
  explicit HttpServer(const std::string& body_max = "17179869184")
      : program("http_server", {"127.0.0.1:0", body_max}), address(program.ReadAddress()) {}

  // The most memory that it has had.
  std::size_t PeakKiB() const {
    std::ifstream status("/proc/" + std::to_string(program.pid()) + "/status");
    std::string word;
    while (status >> word && word != "VmHWM:") {
    }
    std::size_t size = 0;
    status >> size;
    return size;
  }

  Program program;
  std::string address;
};

TEST_CASE("the HTTP server answers requests in order, and keeps the connection") {
  HttpServer server;
  RawPeer peer(server.address);
  const std::string many =
      kGet + "HEAD /?q HTTP/1.1\r\n" + kHost + "\r\n" + kPost + "Content-Length: 5\r\n\r\nhello" +
      kChunked + "5\r\nhello\r\n7\r\n, world\r\n0\r\n\r\n" + "PUT /count HTTP/1.1\r\n" + kHost +
      "Content-Length: 3\r\n\r\nabc" + "POST / HTTP/1.1\r\n" + kHost +
      "Content-Length: 3\r\n\r\nabc" + "GET /echo HTTP/1.1\r\n" + kHost + "\r\n" +
      "POST /where HTTP/1.1\r\n" + kHost + "Content-Length: 3\r\n\r\nabc" + kPost + "\r\n";
  const bool dribbled = GENERATE(false, true);
  REQUIRE((dribbled ? peer.Dribble(many, 7) : peer.SendAll(many)));
  Answer answer = ReadAnswer(peer);
  CHECK(answer.status == 200);
  CHECK(answer.Has("\r\nDate: "));
  CHECK(answer.Has("Connection: keep-alive\r\n"));
  CHECK(answer.content == "POST to /count or to /echo\n");
  answer = ReadAnswer(peer, true);
  CHECK(answer.status == 200);
  CHECK(answer.Has("Content-Length: 27\r\n"));
  answer = ReadAnswer(peer);
  CHECK(answer.content == "hello");
  answer = ReadAnswer(peer);
  CHECK(answer.Has("Transfer-Encoding: chunked\r\n"));
  CHECK(answer.content == "hello, world");
  CHECK(ReadAnswer(peer).content == "1219131554 3\n");  // of cksum(1)
  answer = ReadAnswer(peer);
  CHECK(answer.status == 405);
  CHECK(answer.Has("Allow: GET, HEAD\r\n"));
  answer = ReadAnswer(peer);
  CHECK(answer.status == 405);
  CHECK(answer.Has("Allow: POST, PUT\r\n"));
  CHECK(ReadAnswer(peer).status == 404);
  answer = ReadAnswer(peer);
  CHECK(answer.status == 200);
  CHECK(answer.content == "");

  // It has not answered more than was asked.
  REQUIRE(peer.SendAll("GET /last HTTP/1.1\r\nConnection: close\r\n" + kHost + "\r\n" + kGet));
  answer = ReadAnswer(peer);
  CHECK(answer.status == 404);
  CHECK(answer.Has("Connection: close\r\n"));
  std::string rest;
  CHECK(peer.ReadAll(&rest) == End::kEof);
  CHECK(rest == "");
}

TEST_CASE("the HTTP server ends the connection of an HTTP/1.0 client, unless it asks") {
  HttpServer server;
  RawPeer peer(server.address);
  REQUIRE(peer.SendAll("GET / HTTP/1.0\r\nConnection: Keep-Alive\r\n\r\n"));
  CHECK(ReadAnswer(peer).Has("Connection: keep-alive\r\n"));
  REQUIRE(peer.SendAll("POST /echo HTTP/1.0\r\nContent-Length: 5\r\n\r\nhello"));
  const Answer answer = ReadAnswer(peer);
  CHECK(answer.Has("Connection: close\r\n"));
  CHECK(answer.content == "hello");
  CHECK(peer.ReadAll() == End::kEof);

  RawPeer ended(server.address);  // its end of stream comes with the request
  REQUIRE(ended.SendAll(kGet));
  ended.HalfClose();
  CHECK(ReadAnswer(ended).status == 200);
  CHECK(ended.ReadAll() == End::kEof);
}

TEST_CASE("the HTTP server says 100 Continue before the body, where it wants that") {
  HttpServer server("1000");
  const std::string expects = "Expect: 100-continue\r\nContent-Length: 5\r\n\r\n";
  RawPeer peer(server.address);
  for (int i = 0; i < 2; ++i) {
    REQUIRE(peer.SendAll(kPost + expects));
    CHECK(ReadAnswer(peer).status == 100);
    REQUIRE(peer.SendAll("hello"));
    CHECK(ReadAnswer(peer).content == "hello");
  }
  const auto [request, status] =
      GENERATE(as<std::pair<std::string, int>>{},
               std::pair{"POST /nowhere HTTP/1.1\r\n" + kHost + "Expect: 100-continue\r\n", 404},
               std::pair{"POST / HTTP/1.1\r\n" + kHost + "Expect: 100-continue\r\n", 405});
  REQUIRE(peer.SendAll(request + "Content-Length: 5\r\n\r\n"));
  const Answer answer = ReadAnswer(peer);
  CHECK(answer.status == status);
  CHECK(answer.Has("Connection: close\r\n"));  // whether the client sends the body is not known
  CHECK(peer.ReadAll() == End::kEof);

  RawPeer large(server.address);
  REQUIRE(large.SendAll(kPost + "Expect: 100-continue\r\nContent-Length: 1001\r\n\r\n"));
  CHECK(ReadAnswer(large).status == 413);
  CHECK(large.ReadAll() == End::kEof);
}

TEST_CASE("the HTTP server says what was wrong, and ends the connection") {
  HttpServer server;
  for (const Wrong& wrong : AllWrong()) {
    INFO(wrong.what);
    if (HasParts(wrong.request)) continue;  // see below
    RawPeer peer(server.address);
    REQUIRE(peer.SendAll(kGet + wrong.request));
    CHECK(ReadAnswer(peer).status == 200);
    const Answer answer = ReadAnswer(peer);
    CHECK(answer.status == wrong.status);
    CHECK(answer.Has("Connection: close\r\n"));
    std::string rest;
    CHECK(peer.ReadAll(&rest) == End::kEof);
    CHECK(rest == "");
  }
}

TEST_CASE("the HTTP server leaves an echo that goes wrong without an end") {
  HttpServer server;
  RawPeer peer(server.address);
  REQUIRE(peer.SendAll(kChunked + "5\r\nhello\r\nnonsense\r\n"));
  std::string all;
  CHECK(peer.ReadAll(&all) == End::kEof);
  CHECK(all.find("HTTP/1.1 200 ") == 0);
  CHECK(all.ends_with("\r\n\r\n5\r\nhello\r\n"));
}

TEST_CASE("the HTTP server's last words reach a client that still sends") {
  HttpServer server("1000");
  const std::string body(1 << 20, 'x');
  const std::string request = GENERATE(as<std::string>{}, kPost + "Content-Length: 1048576\r\n\r\n",
                                       kChunked + "100000\r\n", "GET / HTTP/1.1\r\nAccept: ");
  RawPeer peer(server.address);
  REQUIRE(peer.SendAll(request + body));
  const Answer answer = ReadAnswer(peer);
  CHECK(answer.status == (request.starts_with("GET") ? 431 : 413));
  CHECK(peer.ReadAll() == End::kEof);
}

TEST_CASE("the HTTP server's memory does not depend on the length of a body") {
  constexpr std::size_t kKiBMax = 1024;  // beyond what it takes for a request without one
  HttpServer server;
  RawPeer peer(server.address);
  REQUIRE(peer.SendAll(kGet));
  CHECK(ReadAnswer(peer).status == 200);
  const std::size_t before = server.PeakKiB();
  REQUIRE(before > 0);
  const std::string piece(1 << 20, 'x');
  REQUIRE(peer.SendAll("POST /count HTTP/1.1\r\n" + kHost + "Content-Length: 67108864\r\n\r\n"));
  for (int i = 0; i < 64; ++i) REQUIRE(peer.SendAll(piece));
  CHECK(ReadAnswer(peer).content.ends_with(" 67108864\n"));
  CHECK(server.PeakKiB() < before + kKiBMax);
}

TEST_CASE("the HTTP server does not read from a client that does not read") {
  constexpr std::size_t kTooMuch = 64 << 20;  // more than the sockets may hold
  constexpr std::size_t kKiBMax = 2048;
  HttpServer server;
  RawPeer peer(server.address);
  REQUIRE(peer.SendAll(kGet));
  CHECK(ReadAnswer(peer).status == 200);
  const std::size_t before = server.PeakKiB();
  REQUIRE(peer.SendAll(kPost + "Content-Length: 67108864\r\n\r\n"));
  const std::string piece(64 << 10, 'x');
  std::size_t sent = 0;
  pollfd writable{peer.fd(), POLLOUT, 0};
  while (sent < kTooMuch && ::poll(&writable, 1, 300) == 1) {
    const std::size_t size = std::min(piece.size(), kTooMuch - sent);
    const ssize_t n = ::send(peer.fd(), piece.data(), size, MSG_DONTWAIT | MSG_NOSIGNAL);
    if (n > 0) sent += static_cast<std::size_t>(n);
  }
  CHECK(sent < kTooMuch);
  CHECK(server.PeakKiB() < before + kKiBMax);
  const std::string head = ReadUntil(peer, "\r\n\r\n");
  CHECK(head.find("Content-Length: 67108864\r\n") != head.npos);
  std::string echo;
  CHECK(peer.ReadExactly(sent, &echo) == End::kOpen);
  const bool same = echo == std::string(sent, 'x');  // megabytes, not to be shown
  CHECK(same);
}

// While one lives, programs that start see one processor, and so have one loop.
struct OneProcessor {
  OneProcessor() {
    ::sched_getaffinity(0, sizeof before, &before);
    cpu_set_t one;
    CPU_ZERO(&one);
    CPU_SET(static_cast<std::size_t>(::sched_getcpu()), &one);
    ::sched_setaffinity(0, sizeof one, &one);
  }
  ~OneProcessor() { ::sched_setaffinity(0, sizeof before, &before); }
  cpu_set_t before{};
};

TEST_CASE("the HTTP server drains: it answers, and says that the connection ends") {
  // Both connections learn of the drain at the same time.
  const OneProcessor one_loop;
  HttpServer server;
  RawPeer peer(server.address), half(server.address);
  REQUIRE(peer.SendAll(kGet));
  CHECK(ReadAnswer(peer).Has("Connection: keep-alive\r\n"));
  REQUIRE(half.SendAll(kPost + "Content-Length: 5\r\n\r\n"));
  server.program.Signal(SIGTERM);
  CHECK(WaitUntil([&] { return !RawPeer(server.address).connected(); }));
  Answer answer;
  CHECK(WaitUntil([&] {
    if (!peer.SendAll(kGet)) return true;
    answer = ReadAnswer(peer);
    return answer.status != 200 || answer.Has("Connection: close\r\n");
  }));
  CHECK(answer.status == 200);
  CHECK(peer.ReadAll() == End::kEof);
  peer.Close();
  REQUIRE(half.SendAll("hello"));
  answer = ReadAnswer(half);
  CHECK(answer.content == "hello");
  CHECK(answer.Has("Connection: close\r\n"));
  CHECK(half.ReadAll() == End::kEof);
  half.Close();
  CHECK(server.program.WaitForExit() == 0);
}

// ---- The server and curl.

TEST_CASE("the HTTP server and curl understand each other") {
  if (!IsInstalled("curl")) return;
  HttpServer server;
  const TempFolder folder;
  const std::string file = folder.path + "/body", url = " http://" + server.address;
  {
    std::ofstream body(file);
    for (int i = 0; i < 300'000; ++i) body << i;
  }
  const std::string curl = "curl --silent --show-error --noproxy '*' --max-time 60 ";
  CHECK(OutputOf(curl + url + "/") == "POST to /count or to /echo\n");
  CHECK(OutputOf(curl + "--head" + url + "/").starts_with("HTTP/1.1 200 OK\r\n"));
  CHECK(OutputOf(curl + url + "/x" + url + "/ --write-out '%{http_code} %{num_connects}\n'") ==
        "Not Found\n404 1\nPOST to /count or to /echo\n200 0\n");  // on one connection
  const std::string sum = OutputOf("cksum <" + file);
  const std::string chunked = "--header 'Transfer-Encoding: chunked' ";
  const std::string expects = "--header 'Expect: 100-continue' ";
  for (const std::string& how : {std::string{}, chunked, expects, std::string("--http1.0 ")}) {
    INFO(how);
    const std::string post = curl + how + "--data-binary @" + file;
    CHECK(OutputOf(post + url + "/count") == sum);
    if (how != "--http1.0 ") CHECK(OutputOf(post + url + "/echo | cksum") == sum);
  }
  CHECK(OutputOf("cat " + file + " | " + curl + "--upload-file -" + url + "/echo | cksum") == sum);
  CHECK(OutputOf(curl + expects + "--data-binary @" + file + url + "/x") == "Not Found\n");
}

}  // namespace
}  // namespace xtcp::test
