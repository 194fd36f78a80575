// A server and a client in one process. It is the body of the programs of this folder, and a plug-in
// that ../load_plugin.cc loads.

#include <xtcp/xtcp.h>

#include <cstdio>
#include <memory>
#include <string>
#include <thread>

namespace {

// A packet is one byte.
struct Byte : xtcp::Packet {};

struct ByteProtocol : xtcp::Protocol {
  std::size_t PackSize(const xtcp::Packet&) const override { return 1; }
  std::error_code PackTo(const xtcp::Packet&, xtcp::Writer& writer) const override {
    writer.U8('x');
    return {};
  }
  xtcp::UnpackResult Unpack(std::span<const std::byte>) const override {
    return {std::make_unique<Byte>(), 1, {}};
  }
};

struct Echo : xtcp::Handler {
  void OnEvent(xtcp::EventType, const xtcp::ConnPtr& conn, xtcp::PacketPtr packet) override {
    if (packet && conn->SendPacket(*packet)) conn->Stop(xtcp::StopMode::kImmediately);
  }
};

// Sends a byte for each that comes back, 100 times, then stops.
struct Client : xtcp::Handler {
  void OnEvent(xtcp::EventType event, const xtcp::ConnPtr& conn, xtcp::PacketPtr packet) override {
    if (packet && ++answers == 100) {
      conn->Stop(xtcp::StopMode::kGracefullyButNotWait);
    } else if (event != xtcp::EventType::kClosed && conn->SendPacket(Byte())) {
      conn->Stop(xtcp::StopMode::kImmediately);
    }
  }
  int answers = 0;
};

}  // namespace

// 0 if all went well.
extern "C" XTCP_API int EchoItself() {
  const auto protocol = std::make_shared<ByteProtocol>();
  xtcp::Options options{std::make_shared<Echo>(), protocol};
  options.loops = 2;
  xtcp::Server server(options);
  if (server.Listen("127.0.0.1:0")) return 1;
  std::error_code served;
  std::thread thread([&] { served = server.Serve(); });
  const auto handler = std::make_shared<Client>();
  const std::error_code dialed =
      xtcp::NewConn({handler, protocol})
          ->DialAndServe("127.0.0.1:" + std::to_string(server.Addresses().front().Port()));
  const xtcp::StopReport report = server.Stop(xtcp::StopMode::kGracefullyAndWait);
  thread.join();
  if (!dialed && !served && handler->answers == 100 && report.unsent_bytes == 0) return 0;
  std::printf("dialled: %s, served: %s, %d answers\n", dialed.message().c_str(),
              served.message().c_str(), handler->answers);
  return 1;
}
