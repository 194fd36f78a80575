// A loop with two connections of a server and a dialled one that stops in a breakpoint, for
// check_gdb.sh. What they hold by then does not depend on how the threads run.

#include <arpa/inet.h>
#include <sys/socket.h>
#include <unistd.h>
#include <xtcp/xtcp.h>

#include <atomic>
#include <chrono>
#include <cstdint>
#include <cstdlib>
#include <memory>
#include <string>
#include <thread>
#include <utility>

namespace {

// A packet is ten bytes.
struct Ten : xtcp::Protocol {
  std::size_t PackSize(const xtcp::Packet&) const override { return 0; }
  std::error_code PackTo(const xtcp::Packet&, xtcp::Writer&) const override { return {}; }
  xtcp::UnpackResult Unpack(std::span<const std::byte> buf) const override {
    if (buf.size() < 10) return {.need = 10};
    return {std::make_unique<xtcp::Packet>(), 10, {}};
  }
};

}  // namespace

// The breakpoint. `one` is the connection whose packet is delivered, `two` another one of its server,
// `three` a dialled one on the same loop.
extern "C" [[gnu::noinline]] void Stopped(const xtcp::ConnPtr& one, const xtcp::ConnPtr& two,
                                          const xtcp::ConnPtr& three,
                                          const xtcp::Address& address) {
  asm volatile("" ::"r"(&one), "r"(&two), "r"(&three), "r"(&address) : "memory");
}

namespace {

struct Handler : xtcp::Handler {
  void OnEvent(xtcp::EventType event, const xtcp::ConnPtr& conn, xtcp::PacketPtr) override {
    if (event == xtcp::EventType::kAccept) (first == nullptr ? first : second) = conn;
    if (event == xtcp::EventType::kConnected) {
      dialled = conn;
      connected = true;
    }
    if (event == xtcp::EventType::kRecv) {
      // Queued on another connection of this loop, and handed in by another thread.
      static_cast<void>(second->Send("12345"));
      second->PauseRecv();
      std::thread([&] { static_cast<void>(conn->Send("12345678")); }).join();
      conn->Stop(xtcp::StopMode::kGracefullyButNotWait);
      const xtcp::Address address = conn->LocalAddress();
      Stopped(conn, second, dialled, address);
      std::_Exit(0);
    }
  }
  xtcp::ConnPtr first, second, dialled;
  std::atomic<bool> connected{false};
};

int Connect(std::uint16_t port) {
  const int fd = ::socket(AF_INET, SOCK_STREAM, 0);
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_port = htons(port);
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  return ::connect(fd, reinterpret_cast<sockaddr*>(&address), sizeof address) == 0 ? fd : -1;
}

// A listener that never accepts; `*port` is where.
int ListenOnly(std::uint16_t* port) {
  const int fd = ::socket(AF_INET, SOCK_STREAM, 0);
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  socklen_t size = sizeof address;
  if (::bind(fd, reinterpret_cast<sockaddr*>(&address), size) != 0 || ::listen(fd, 1) != 0 ||
      ::getsockname(fd, reinterpret_cast<sockaddr*>(&address), &size) != 0) {
    std::_Exit(1);
  }
  *port = ntohs(address.sin_port);
  return fd;
}

}  // namespace

int main() {
  const auto handler = std::make_shared<Handler>();
  xtcp::Options options{handler, std::make_shared<Ten>()};
  options.packet_deadline = std::chrono::hours(1);
  xtcp::LoopGroup group;
  xtcp::Server server(options, group);
  if (server.Listen("127.0.0.1:0") || server.Start()) return 1;
  const xtcp::ConnPtr conn = xtcp::NewConn(options, group[0]);
  std::thread peers([&] {
    const std::uint16_t port = server.Addresses().front().Port();
    const int one = Connect(port);
    const int two = Connect(port);
    while (server.ConnectionCount() < 2) std::this_thread::yield();
    std::uint16_t listener_port = 0;
    const int listener = ListenOnly(&listener_port);
    if (conn->Dial("127.0.0.1:" + std::to_string(listener_port))) std::_Exit(1);
    while (!handler->connected) std::this_thread::yield();
    // In two reads: the first one leaves the beginning of a packet in the inbound buffer.
    if (::send(one, "abcd", 4, 0) != 4) std::_Exit(1);
    while (server.Stats().received_bytes < 4) std::this_thread::yield();
    if (::send(one, "efghij", 6, 0) != 6) std::_Exit(1);
    ::pause();
    ::close(two);
    ::close(listener);
  });
  peers.detach();
  return group.Run() ? 1 : 0;
}
