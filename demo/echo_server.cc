// The smallest useful program: sends every line back. Try it with: nc 127.0.0.1 7000
#include <xtcp/daemon.h>
#include <xtcp/xtcp.h>

#include <iostream>

struct Echo : xtcp::Handler {
  void OnEvent(xtcp::EventType, const xtcp::ConnPtr& conn, xtcp::PacketPtr packet) override {
    if (packet && conn->SendPacket(*packet))
      conn->Stop(xtcp::StopMode::kGracefullyButNotWait);  // it does not read what it asked for
  }
};

int main(int argc, char** argv) {
  xtcp::Server server({std::make_shared<Echo>(), std::make_shared<xtcp::LineProtocol>()});
  std::error_code error = server.Listen(argc == 2 ? argv[1] : "");
  if (!error) {
    std::cout << "echoes lines; Ctrl-C or SIGTERM stops it gracefully" << std::endl;
    error = xtcp::ServeUntilSignal(server);
  }
  if (error) std::cerr << error.message() << "\nusage: echo_server HOST:PORT\n";
  return error ? 2 : 0;
}
