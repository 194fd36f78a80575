// The proxy that load programs are pointed at: for each client it dials the target on the client's
// loop, and passes bytes on, with back-pressure both ways. demo/proxy.cc without its idle time. It
// measures nothing itself; a signal ends it.

#include <xtcp/xtcp.h>

#include <algorithm>
#include <any>
#include <cstddef>
#include <iostream>
#include <memory>
#include <span>
#include <string>
#include <system_error>
#include <vector>

namespace {

struct Chunk final : xtcp::Packet {
  explicit Chunk(std::span<const std::byte> view) : bytes(view) {}
  const std::span<const std::byte> bytes;
};

class ChunkProtocol final : public xtcp::Protocol {
 public:
  std::size_t PackSize(const xtcp::Packet&) const override { return 0; }
  std::error_code PackTo(const xtcp::Packet&, xtcp::Writer&) const override {
    return xtcp::Errc::kBadPacket;
  }
  xtcp::UnpackResult Unpack(std::span<const std::byte> buf) const override {
    return {.packet = std::make_unique<Chunk>(buf), .size = buf.size()};
  }
};

struct End {
  xtcp::ConnPtr other;
  std::vector<std::byte> waiting;  // came from the other one, and did not fit
};
End& EndOf(const xtcp::ConnPtr& conn) { return std::any_cast<End&>(conn->UserData()); }

class Proxy final : public xtcp::Handler, public std::enable_shared_from_this<Proxy> {
 public:
  explicit Proxy(std::string target) : target_(std::move(target)) {}

  xtcp::Options OptionsOfEnd() {
    return {.handler = shared_from_this(), .protocol = protocol_, .send_buffer_limit = 1 << 20};
  }

  void OnEvent(xtcp::EventType event, const xtcp::ConnPtr& conn, xtcp::PacketPtr packet) override {
    switch (event) {
      case xtcp::EventType::kAccept: {
        const xtcp::ConnPtr target = xtcp::NewConn(OptionsOfEnd(), conn->loop());
        conn->UserData() = End{.other = target, .waiting = {}};
        target->UserData() = End{.other = conn, .waiting = {}};
        conn->PauseRecv();
        if (target->Dial(target_)) conn->Stop(xtcp::StopMode::kImmediately);
        return;
      }
      case xtcp::EventType::kConnected:
        return EndOf(conn).other->ResumeRecv();
      case xtcp::EventType::kRecv: {
        const std::span<const std::byte> bytes = static_cast<const Chunk&>(*packet).bytes;
        const xtcp::ConnPtr& to = EndOf(conn).other;
        if (to->Send(bytes) != xtcp::Errc::kFull) return;
        EndOf(to).waiting.assign(bytes.begin(), bytes.end());
        conn->PauseRecv();
        return;
      }
      case xtcp::EventType::kClosed:
        EndOf(conn).other->Stop(xtcp::StopMode::kGracefullyButNotWait);
        return;
    }
  }
  void OnDialFailed(const xtcp::ConnPtr& conn, std::error_code) override {
    EndOf(conn).other->Stop(xtcp::StopMode::kImmediately);
  }
  void OnSendReady(const xtcp::ConnPtr& conn) override {
    End& end = EndOf(conn);
    if (conn->Send(end.waiting)) return;
    end.waiting.clear();
    end.other->ResumeRecv();
  }

 private:
  const std::shared_ptr<ChunkProtocol> protocol_ = std::make_shared<ChunkProtocol>();
  const std::string target_;
};

}  // namespace

int main(int argc, char** argv) {
  if (argc != 3) {
    std::cerr << "usage: proxy TARGET_PORT PORT\n";
    return 2;
  }
  xtcp::LoopGroup group;
  const auto proxy = std::make_shared<Proxy>(std::string("127.0.0.1:") + argv[1]);
  xtcp::Server server(proxy->OptionsOfEnd(), group);
  std::error_code error = server.Listen(std::string("127.0.0.1:") + argv[2]);
  if (!error) error = server.Start();
  if (!error) {
    std::cout << "passes on what comes to " << server.Addresses().front().ToString() << std::endl;
    error = group.Run();
  }
  std::cerr << error.message() << '\n';
  return 1;
}
