// The framed echo that load programs are pointed at: a 4-byte big-endian payload length, then the
// payload; every frame goes back as it came. Written on the public API, as a user would write it
// who cares for speed: a packet is a view of the receive buffer, and nothing is copied but by
// `Send`. It measures nothing itself.

#include <endian.h>
#include <pthread.h>
#include <signal.h>
#include <xtcp/xtcp.h>

#include <charconv>
#include <cstdint>
#include <cstring>
#include <iostream>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <system_error>
#include <thread>

namespace {

// Header and payload, in the receive buffer.
class Frame final : public xtcp::Packet {
 public:
  explicit Frame(std::span<const std::byte> view) : bytes(view) {}
  const std::span<const std::byte> bytes;
};

class FrameProtocol final : public xtcp::Protocol {
 public:
  // The handler sends bytes, not packets.
  std::size_t PackSize(const xtcp::Packet&) const override { return 0; }
  std::error_code PackTo(const xtcp::Packet&, xtcp::Writer&) const override {
    return xtcp::Errc::kBadPacket;
  }

  xtcp::UnpackResult Unpack(std::span<const std::byte> buf) const override {
    std::uint32_t payload_bytes;
    if (buf.size() < sizeof payload_bytes) return {};
    std::memcpy(&payload_bytes, buf.data(), sizeof payload_bytes);
    // In 64 bits the sum cannot overflow; `Options::max_packet_size` ends what never fits.
    const std::size_t frame_bytes = sizeof payload_bytes + std::size_t{be32toh(payload_bytes)};
    if (buf.size() < frame_bytes) return {};
    return {.packet = std::make_unique<Frame>(buf.first(frame_bytes)), .size = frame_bytes};
  }
};

class Echo final : public xtcp::Handler {
 public:
  void OnEvent(xtcp::EventType event, const xtcp::ConnPtr& conn, xtcp::PacketPtr packet) override {
    if (event != xtcp::EventType::kRecv) return;
    if (conn->Send(static_cast<const Frame&>(*packet).bytes)) {
      conn->Stop(xtcp::StopMode::kGracefullyButNotWait);
    }
  }
};

// All of `text` as a number from `low` to `high`.
bool ParseNumber(std::string_view text, unsigned low, unsigned high, unsigned* out) {
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), *out);
  return error == std::errc() && end == text.data() + text.size() && *out >= low && *out <= high;
}

}  // namespace

int main(int argc, char** argv) {
  unsigned port = 0;
  unsigned loops = 1;
  if (argc < 2 || argc > 3 || !ParseNumber(argv[1], 0, 65535, &port) ||
      (argc == 3 && !ParseNumber(argv[2], 0, 1024, &loops))) {
    std::cerr << "usage: echo_server PORT [LOOPS]\n"
                 "Port 0: one of the system's choice. LOOPS 0: as many as processors.\n";
    return 2;
  }

  sigset_t signals;  // blocked before any thread starts, so that only sigwait takes them
  sigemptyset(&signals);
  sigaddset(&signals, SIGINT);
  sigaddset(&signals, SIGTERM);
  pthread_sigmask(SIG_BLOCK, &signals, nullptr);

  xtcp::Server server({.handler = std::make_shared<Echo>(),
                       .protocol = std::make_shared<FrameProtocol>(),
                       .loops = loops});
  if (const std::error_code error = server.Listen("127.0.0.1:" + std::to_string(port))) {
    std::cerr << "127.0.0.1:" << port << ": " << error.message() << '\n';
    return 1;
  }
  std::cout << "echoes frames on " << server.Addresses().front().ToString()
            << "; SIGTERM or Ctrl-C ends it" << std::endl;

  std::jthread stopper([&] {
    int signal = 0;
    sigwait(&signals, &signal);
    server.Stop(xtcp::StopMode::kImmediately);
  });
  const std::error_code error = server.Serve();
  if (error) std::cerr << error.message() << '\n';
  pthread_kill(stopper.native_handle(), SIGTERM);  // it still waits if no signal came
  return error ? 1 : 0;
}
