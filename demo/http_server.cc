// An HTTP/1.1 server. Bodies come to it in parts, so one of any length takes no memory.
//
//   http_server 127.0.0.1:8080
//
//   curl http://127.0.0.1:8080/                           GET, HEAD: a short text
//   curl --data-binary @file http://127.0.0.1:8080/count  POST, PUT: what `cksum <file` prints
//   curl --data-binary @file http://127.0.0.1:8080/echo   POST, PUT: sends the body back meanwhile
//
// A body may have 16 GiB, or as many bytes as a second argument says. SIGTERM or Ctrl-C drains for
// five seconds: who asks in that time is answered, and told that the connection ends. The decoder
// and this file are there to be copied; there is no TLS in them, and no names of virtual hosts.

#include <xtcp/daemon.h>
#include <xtcp/xtcp.h>

#include <array>
#include <chrono>
#include <cstdint>
#include <ctime>
#include <iostream>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <system_error>

#include "http_decoder.h"

using namespace std::chrono_literals;

namespace {

// The checksum of cksum(1): a CRC-32 over the bytes, and then over their number.
class Checksum {
 public:
  void Add(std::string_view bytes) {
    for (const char byte : bytes) Add(static_cast<std::uint8_t>(byte));
    count_ += bytes.size();
  }

  std::string ToString() const {
    Checksum all = *this;
    for (std::uint64_t rest = count_; rest != 0; rest >>= 8)
      all.Add(static_cast<std::uint8_t>(rest));
    return std::to_string(~all.crc_) + ' ' + std::to_string(count_) + '\n';
  }

 private:
  static constexpr std::array<std::uint32_t, 256> kTable = [] {
    std::array<std::uint32_t, 256> table{};
    for (std::uint32_t i = 0; i < table.size(); ++i) {
      table[i] = i << 24;
      for (int bit = 0; bit < 8; ++bit)
        table[i] = (table[i] << 1) ^ (table[i] >> 31 != 0 ? 0x04c11db7u : 0u);
    }
    return table;
  }();

  void Add(std::uint8_t byte) { crc_ = (crc_ << 8) ^ kTable[(crc_ >> 24) ^ byte]; }

  std::uint32_t crc_ = 0;
  std::uint64_t count_ = 0;
};

std::string_view Phrase(int status) {
  switch (status) {
    case 200:
      return "OK";
    case 404:
      return "Not Found";
    case 405:
      return "Method Not Allowed";
    case 413:
      return "Content Too Large";
    case 414:
      return "URI Too Long";
    case 417:
      return "Expectation Failed";
    case 431:
      return "Request Header Fields Too Large";
    case 501:
      return "Not Implemented";
    case 505:
      return "HTTP Version Not Supported";
    default:
      return "Bad Request";
  }
}

// RFC 9110, 5.6.7.
std::string Now() {
  const std::time_t now = std::time(nullptr);
  std::tm parts;
  char text[64];
  return {text,
          std::strftime(text, sizeof text, "%a, %d %b %Y %H:%M:%S GMT", ::gmtime_r(&now, &parts))};
}

// What a connection keeps: the request that it is about.
struct Request {
  enum class Route { kText, kCount, kEcho, kNotFound, kNotAllowed } route{};
  bool has_no_content = false;  // the answer to HEAD
  bool keep_alive = false;      // the client wants it
  std::string framing{};        // of an echo: the field that says how long it is
  std::string allowed{};        // methods, where this one is not
  bool chunked = false;
  bool answered = false;  // the head of the answer was sent
  Checksum checksum{};
};
struct Client {
  Request request{};
  bool draining = false;
};

class Site : public xtcp::Handler {
 public:
  void OnEvent(xtcp::EventType event, const xtcp::ConnPtr& conn, xtcp::PacketPtr packet) override {
    if (event == xtcp::EventType::kAccept) conn->EmplaceData<Client>();
    if (event != xtcp::EventType::kRecv) return;
    Client& client = *conn->Data<Client>();
    const auto& http = static_cast<const demo::HttpPacket&>(*packet);
    if (http.head) Begin(conn, client, *http.head);
    if (!http.part.empty()) Take(conn, client, http.part);
    if (http.last) Finish(conn, client);
  }

  // Nothing after this request can be understood. An answer that has begun stays unfinished: then
  // `Answer` sends nothing. A graceful stop reads on for a while: a client that still sends would
  // otherwise be reset, and lose the answer (RFC 9112, 9.6).
  void OnUnpackError(const xtcp::ConnPtr& conn, std::span<const std::byte>,
                     std::error_code error) override {
    Client& client = *conn->Data<Client>();
    client.request.keep_alive = false;
    Answer(conn, client, error.value());
    conn->Stop(xtcp::StopMode::kGracefullyButNotWait);
  }

  void OnDrain(const xtcp::ConnPtr& conn) override { conn->Data<Client>()->draining = true; }

 private:
  static Request::Route RouteOf(const demo::HttpHead& head, std::string_view path) {
    const bool reads = head.method == "GET" || head.method == "HEAD";
    const bool writes = head.method == "POST" || head.method == "PUT";
    if (path == "/") return reads ? Request::Route::kText : Request::Route::kNotAllowed;
    if (path != "/count" && path != "/echo") return Request::Route::kNotFound;
    if (!writes) return Request::Route::kNotAllowed;
    return path == "/count" ? Request::Route::kCount : Request::Route::kEcho;
  }

  // A body that nobody wants is read to its end, unless the client waits to be told to send it.
  static void Begin(const xtcp::ConnPtr& conn, Client& client, const demo::HttpHead& head) {
    const std::string_view path = head.target.substr(0, head.target.find('?'));
    Request& request = client.request = {.route = RouteOf(head, path)};
    request.has_no_content = head.method == "HEAD";
    request.keep_alive = head.keep_alive;
    request.chunked = head.chunked;
    request.allowed = path == "/" ? "GET, HEAD" : "POST, PUT";
    request.framing = head.chunked
                          ? "Transfer-Encoding: chunked\r\n"
                          : "Content-Length: " + std::to_string(head.length.value_or(0)) + "\r\n";
    if (!head.expects_continue) return;
    if (request.route == Request::Route::kNotFound ||
        request.route == Request::Route::kNotAllowed) {
      request.keep_alive = false;
      Finish(conn, client);
    } else {
      Send(conn, {"HTTP/1.1 100 Continue\r\n\r\n"});
    }
  }

  static void Take(const xtcp::ConnPtr& conn, Client& client, std::string_view part) {
    Request& request = client.request;
    if (request.route == Request::Route::kCount) request.checksum.Add(part);
    if (request.route != Request::Route::kEcho) return;
    SendHead(conn, client, 200, request.framing);
    if (!request.chunked) return Send(conn, {part});
    std::array<std::byte, 16> digits;
    xtcp::Writer size(digits);
    size.Number(part.size(), 16);
    Send(conn, {std::span<const std::byte>(digits).first(size.written()), "\r\n", part, "\r\n"});
  }

  static void Finish(const xtcp::ConnPtr& conn, Client& client) {
    Request& request = client.request;
    switch (request.route) {
      case Request::Route::kText:
        Answer(conn, client, 200, "POST to /count or to /echo\n");
        break;
      case Request::Route::kCount:
        Answer(conn, client, 200, request.checksum.ToString());
        break;
      case Request::Route::kEcho:
        SendHead(conn, client, 200, request.framing);
        if (request.chunked) Send(conn, {"0\r\n\r\n"});
        break;
      case Request::Route::kNotFound:
        Answer(conn, client, 404);
        break;
      case Request::Route::kNotAllowed:
        Answer(conn, client, 405);
        break;
    }
    // What was asked after a request that was the last one is not answered.
    if (!request.keep_alive) conn->Stop(xtcp::StopMode::kGracefullyButNotWait);
    request = {};
  }

  // Without a text it is the phrase.
  static void Answer(const xtcp::ConnPtr& conn, Client& client, int status,
                     std::string_view text = {}) {
    const std::string content =
        text.empty() ? std::string(Phrase(status)) + '\n' : std::string(text);
    std::string fields = "Content-Type: text/plain\r\n";
    if (status == 405) fields += "Allow: " + client.request.allowed + "\r\n";
    SendHead(conn, client, status,
             fields + "Content-Length: " + std::to_string(content.size()) + "\r\n", content);
  }

  // Sends the head of the answer, unless it was sent, and with it `content`.
  static void SendHead(const xtcp::ConnPtr& conn, Client& client, int status,
                       std::string_view fields, std::string_view content = {}) {
    Request& request = client.request;
    if (request.answered) return;
    request.answered = true;
    request.keep_alive = request.keep_alive && !client.draining;
    std::string head = "HTTP/1.1 " + std::to_string(status) + ' ' + std::string(Phrase(status));
    head += "\r\nDate: " + Now() + "\r\n";
    head += request.keep_alive ? "Connection: keep-alive\r\n" : "Connection: close\r\n";
    head += std::string(fields) + "\r\n";
    Send(conn, {std::string_view(head), request.has_no_content ? "" : content});
  }

  // There is room: nothing is delivered while much is queued (Options::pause_recv_above). What is
  // refused is refused because the connection ends.
  static void Send(const xtcp::ConnPtr& conn, std::initializer_list<xtcp::Part> parts) {
    if (conn->SendParts(parts)) conn->Stop(xtcp::StopMode::kImmediately);
  }
};

}  // namespace

int main(int argc, char** argv) {
  std::uint64_t body_max = std::uint64_t{16} << 30;
  xtcp::Reader number(argc == 3 ? argv[2] : "");
  if (argc == 3) body_max = number.Number<std::uint64_t>();
  if (argc < 2 || argc > 3 || !number.done()) {
    std::cerr << "usage: http_server HOST:PORT [BODY_BYTES_MAX]\n";
    return 2;
  }
  xtcp::Options options = xtcp::Options{.handler = std::make_shared<Site>(),
                                        .protocol = std::make_shared<demo::HttpProtocol>(body_max)}
                              .Hardened();
  options.loops = 0;  // one for each processor
  options.first_packet_size = demo::HttpDecoder::kHeadBytesMax;
  options.max_packet_size = 64 << 10;  // the longest part of a body
  options.read_deadline = 60s;         // between requests, and between parts of a body
  xtcp::Server server(options);
  std::error_code error = server.Listen(argv[1]);
  if (!error) {
    std::cout << "serves HTTP on " << server.Addresses().front().ToString() << std::endl;
    error = xtcp::ServeUntilSignal(server, {.drain = 5s});
  }
  if (error) std::cerr << argv[1] << ": " << error.message() << '\n';
  return error ? 1 : 0;
}
