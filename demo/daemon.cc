// A daemon's frame around a server: how signals stop it, and what it leaves as its exit status. What
// it serves is of no matter: every byte goes back.
//
// The first SIGTERM or SIGINT stops it gracefully, a second one immediately. Exits 0 if no
// connection was cut and no byte lost, else 1; 2 for bad arguments.

#include <xtcp/daemon.h>
#include <xtcp/xtcp.h>

#include <iostream>
#include <memory>
#include <string_view>
#include <system_error>

namespace {

class Echo : public xtcp::Handler {
 public:
  void OnEvent(xtcp::EventType event, const xtcp::ConnPtr& conn, xtcp::PacketPtr packet) override {
    if (event != xtcp::EventType::kRecv) return;
    // A peer that sends and does not read fills its queue in the end; it gets what is in there.
    if (conn->SendPacket(*packet)) conn->Stop(xtcp::StopMode::kGracefullyButNotWait);
  }
};

}  // namespace

int main(int argc, char** argv) {
  if (argc != 2 || std::string_view(argv[1]).starts_with('-')) {
    std::cerr << "usage: daemon HOST:PORT\n";
    return 2;
  }
  xtcp::Server server(
      {.handler = std::make_shared<Echo>(), .protocol = std::make_shared<xtcp::RawProtocol>()});
  if (const std::error_code error = server.Listen(argv[1])) {
    std::cerr << "daemon: " << argv[1] << ": " << error.message() << '\n';
    return 1;
  }
  std::cerr << "daemon: sends back what comes to " << server.Addresses().front().ToString()
            << "; SIGTERM or Ctrl-C stops it gracefully, a second one immediately\n";

  xtcp::StopReport report;
  const std::error_code error = xtcp::ServeUntilSignal(server, {}, &report);
  if (error) std::cerr << "daemon: " << error.message() << '\n';

  std::cerr << "daemon: connections open at the stop: " << report.connections
            << ", cut: " << report.cut << "; bytes unsent: " << report.unsent_bytes
            << ", unacknowledged: " << report.unacked_bytes << '\n';
  const bool lost = report.cut != 0 || report.unsent_bytes != 0 || report.unacked_bytes != 0;
  return error || lost ? 1 : 0;
}
