// A daemon's frame around a server: which thread takes the signals, how it stops, and what it
// leaves as its exit status. What it serves is of no matter: every byte goes back.
//
// The first SIGTERM or SIGINT stops it gracefully, a second one immediately. Exits 0 if no
// connection was cut and no byte lost, else 1; 2 for bad arguments.

#include <pthread.h>
#include <signal.h>
#include <xtcp/xtcp.h>

#include <iostream>
#include <memory>
#include <span>
#include <stop_token>
#include <string_view>
#include <system_error>
#include <thread>
#include <utility>

namespace {

// Bytes as they come, in the receive buffer, which is valid until OnEvent returns.
struct Chunk : xtcp::Packet {
  explicit Chunk(std::span<const std::byte> view) : bytes(view) {}
  std::span<const std::byte> bytes;
};

// No frames at all: a packet is whatever is there.
class ChunkProtocol : public xtcp::Protocol {
 public:
  // The handler sends bytes, not packets.
  std::size_t PackSize(const xtcp::Packet&) const override { return 0; }
  std::error_code PackTo(const xtcp::Packet&, xtcp::Writer&) const override {
    return xtcp::Errc::kBadPacket;
  }

  xtcp::UnpackResult Unpack(std::span<const std::byte> buf) const override {
    return {.packet = std::make_unique<Chunk>(buf), .size = buf.size()};
  }
};

class Echo : public xtcp::Handler {
 public:
  void OnEvent(xtcp::EventType event, const xtcp::ConnPtr& conn, xtcp::PacketPtr packet) override {
    if (event != xtcp::EventType::kRecv) return;
    // A peer that sends and does not read fills its queue in the end; it gets what is in there.
    if (conn->Send(static_cast<const Chunk&>(*packet).bytes)) {
      conn->Stop(xtcp::StopMode::kGracefullyButNotWait);
    }
  }
};

// The signals that end the daemon. They are blocked in every thread, so none of them ever runs a
// handler in the middle of something, and one thread takes them at a place of its choice.
sigset_t BlockStopSignals() {
  sigset_t signals;
  sigemptyset(&signals);
  sigaddset(&signals, SIGINT);
  sigaddset(&signals, SIGTERM);
  pthread_sigmask(SIG_BLOCK, &signals, nullptr);
  return signals;
}

void StopOnSignals(std::stop_token done, const sigset_t& signals, xtcp::Server& server) {
  auto mode = xtcp::StopMode::kGracefullyButNotWait;
  for (;;) {
    int signal = 0;
    sigwait(&signals, &signal);
    if (done.stop_requested()) return;

    std::cerr << "daemon: signal " << signal
              << (mode == xtcp::StopMode::kImmediately ? ", stops immediately\n"
                                                       : ", stops gracefully\n");
    // Not `Stop(kGracefullyAndWait)`: this thread must be free for the second signal.
    server.Stop(mode);
    mode = xtcp::StopMode::kImmediately;
  }
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 2 || std::string_view(argv[1]).starts_with('-')) {
    std::cerr << "usage: daemon HOST:PORT\n";
    return 2;
  }
  const sigset_t signals = BlockStopSignals();  // before any thread starts: threads inherit it

  xtcp::Server server(
      {.handler = std::make_shared<Echo>(), .protocol = std::make_shared<ChunkProtocol>()});
  if (const std::error_code error = server.Listen(argv[1])) {
    std::cerr << "daemon: " << argv[1] << ": " << error.message() << '\n';
    return 1;
  }
  std::cerr << "daemon: sends back what comes to " << server.Addresses().front().ToString()
            << "; SIGTERM or Ctrl-C stops it gracefully, a second one immediately\n";

  std::jthread signal_thread(
      [&](std::stop_token done) { StopOnSignals(std::move(done), signals, server); });
  const std::error_code error = server.Serve();
  if (error) std::cerr << "daemon: " << error.message() << '\n';

  // Serving is over, so this does not wait.
  const xtcp::StopReport report = server.Stop(xtcp::StopMode::kGracefullyAndWait);
  signal_thread.request_stop();
  pthread_kill(signal_thread.native_handle(), SIGTERM);  // it is in sigwait: wakes it

  std::cerr << "daemon: connections open at the stop: " << report.connections
            << ", cut: " << report.cut << "; bytes unsent: " << report.unsent_bytes
            << ", unacknowledged: " << report.unacked_bytes << '\n';
  const bool lost = report.cut != 0 || report.unsent_bytes != 0 || report.unacked_bytes != 0;
  return error || lost ? 1 : 0;
}
