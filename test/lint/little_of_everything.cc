// What check_clang.sh runs, with a library that was compiled for clang's undefined-behaviour sanitizer: a
// little of everything that the library does, and wakes that come together with bytes.

#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>
#include <xtcp/xtcp.h>

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <system_error>
#include <thread>
#include <utility>

namespace {

using namespace std::chrono_literals;

struct Text : xtcp::Packet {
  explicit Text(std::string_view t) : text(t) {}
  std::string text;
};

struct TextProtocol : xtcp::Protocol {
  std::size_t PackSize(const xtcp::Packet& packet) const override {
    return 4 + static_cast<const Text&>(packet).text.size();
  }
  std::error_code PackTo(const xtcp::Packet& packet, xtcp::Writer& writer) const override {
    const std::string& text = static_cast<const Text&>(packet).text;
    writer.U32Be(static_cast<std::uint32_t>(text.size()));
    writer.Write(text);
    return {};
  }
  xtcp::UnpackResult Unpack(std::span<const std::byte> all) const override {
    xtcp::Reader in(all);
    const std::size_t size = in.U32Be();
    if (in.failed()) return {.need = 4};
    const std::string_view text = in.Text(size);
    if (in.failed()) return {.need = 4 + size};
    return {.packet = std::make_unique<Text>(text), .size = in.consumed()};
  }
};

struct Echo : xtcp::Handler {
  void OnEvent(xtcp::EventType event, const xtcp::ConnPtr& conn, xtcp::PacketPtr packet) override {
    if (event == xtcp::EventType::kAccept) last = conn;
    if (packet != nullptr && conn->SendPacket(*packet)) conn->Stop(xtcp::StopMode::kImmediately);
  }
  void OnSendReady(const xtcp::ConnPtr&) override {}
  xtcp::ConnPtr last;
};

// Sends growing texts, each when the one before is back.
struct Client : xtcp::Handler {
  void OnEvent(xtcp::EventType event, const xtcp::ConnPtr& conn, xtcp::PacketPtr packet) override {
    if (event == xtcp::EventType::kClosed) return;
    size = packet == nullptr ? 1 : 3 * size;
    conn->SetTimer(1min);
    if (size > 2'000'000) {
      conn->Stop(xtcp::StopMode::kGracefullyButNotWait);
    } else if (conn->SendPacket(Text(std::string(size, 'x')))) {
      conn->Stop(xtcp::StopMode::kImmediately);
    }
  }
  std::size_t size = 0;
};

// Before each turn of a loop it gets bytes from a peer and a Send from elsewhere, so that one batch of
// events has both: a socket's, then the wake's.
bool WakeTogetherWithBytes(const std::shared_ptr<const xtcp::Protocol>& protocol) {
  const auto echo = std::make_shared<Echo>();
  xtcp::LoopGroup group;
  xtcp::Server server({echo, protocol}, group);
  if (server.Listen("127.0.0.1:0") || server.Start()) return false;
  const int peer = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  address.sin_port = htons(server.Addresses()[0].Port());
  bool good = ::connect(peer, reinterpret_cast<sockaddr*>(&address), sizeof address) == 0;
  while (good && echo->last == nullptr) good = !group.RunOnce(1s);
  for (int i = 0; good && i < 100; ++i) {
    good = ::send(peer, "\0\0\0\1x", 5, MSG_NOSIGNAL) == 5 && !echo->last->Send("y") &&
           !group.RunOnce(1s);
  }
  ::close(peer);
  return good;
}

}  // namespace

int main() {
  const auto protocol = std::make_shared<TextProtocol>();
  const auto echo = std::make_shared<Echo>();
  xtcp::Options options{echo, protocol};
  options.read_deadline = options.write_deadline = options.packet_deadline = 1min;
  xtcp::Server server(options);
  if (server.Listen("127.0.0.1:0")) return 2;
  const std::string address = server.Addresses()[0].ToString();
  std::thread serving([&] { static_cast<void>(server.Serve()); });

  xtcp::LoopGroup group(2);
  for (std::size_t i = 0; i < 8; ++i) {
    const xtcp::ConnPtr conn = xtcp::NewConn({std::make_shared<Client>(), protocol}, group[i % 2]);
    if (conn->Dial(address)) return 2;
  }
  xtcp::Timer timer = group[0].RunEvery(1ms, [&, left = 1000]() mutable {
    if (--left == 0 || server.ConnectionCount() == 0) {
      group.Stop(xtcp::StopMode::kGracefullyButNotWait);
    }
  });
  if (group[1].Post([] {}) || group.Run()) return 2;

  server.Stop(xtcp::StopMode::kImmediately);
  serving.join();
  return WakeTogetherWithBytes(protocol) ? 0 : 3;
}
