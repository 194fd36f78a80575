// The smallest useful program: sends every line back. Try it with: nc 127.0.0.1 7000
#include <signal.h>
#include <xtcp/xtcp.h>

#include <iostream>
#include <thread>

struct Line : xtcp::Packet {
  explicit Line(std::span<const std::byte> view) : bytes(view) {}
  std::span<const std::byte> bytes;  // of the receive buffer: valid until OnEvent returns
};

struct LineProtocol : xtcp::Protocol {
  std::size_t PackSize(const xtcp::Packet&) const override { return 0; }  // Echo sends bytes
  std::error_code PackTo(const xtcp::Packet&, xtcp::Writer&) const override { return {}; }
  xtcp::UnpackResult Unpack(std::span<const std::byte> buf) const override {
    const std::size_t size = xtcp::Reader(buf).Text(buf.size()).find('\n') + 1;
    if (size == 0) return {};  // no line end yet: more bytes are needed
    return {std::make_unique<Line>(buf.first(size)), size, {}};
  }
};

struct Echo : xtcp::Handler {
  void OnEvent(xtcp::EventType, const xtcp::ConnPtr& conn, xtcp::PacketPtr packet) override {
    if (packet && conn->Send(static_cast<Line&>(*packet).bytes))
      conn->Stop(xtcp::StopMode::kGracefullyButNotWait);  // it does not read what it asked for
  }
};

int main(int argc, char** argv) {
  sigset_t signals;  // blocked before any thread starts, so that only sigwait takes them
  sigemptyset(&signals);
  for (const int signal : {SIGINT, SIGTERM}) sigaddset(&signals, signal);
  pthread_sigmask(SIG_BLOCK, &signals, nullptr);
  xtcp::Server server({std::make_shared<Echo>(), std::make_shared<LineProtocol>()});
  std::jthread stopper([&, signal = 0]() mutable {
    sigwait(&signals, &signal);
    server.Stop(xtcp::StopMode::kGracefullyButNotWait);
  });
  std::cout << "echoes lines; Ctrl-C or SIGTERM stops it gracefully" << std::endl;
  const std::error_code error = server.ListenAndServe(argc == 2 ? argv[1] : "");
  if (error) std::cerr << error.message() << "\nusage: echo_server HOST:PORT\n";
  pthread_kill(stopper.native_handle(), SIGTERM);  // it still waits if no signal came
  return error ? 2 : 0;
}
