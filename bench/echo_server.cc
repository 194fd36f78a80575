// The framed echo that load programs are pointed at. It measures nothing itself. With one loop the
// process has one thread, as the servers that it is compared with; a signal ends it.

#include <xtcp/xtcp.h>

#include <charconv>
#include <iostream>
#include <memory>
#include <string>
#include <string_view>
#include <system_error>

#include "support/frames.h"

namespace {

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
  xtcp::Server server({.handler = std::make_shared<bench::Echo>(),
                       .protocol = std::make_shared<bench::FrameProtocol>(),
                       .loops = loops});
  if (const std::error_code error = server.Listen("127.0.0.1:" + std::to_string(port))) {
    std::cerr << "127.0.0.1:" << port << ": " << error.message() << '\n';
    return 1;
  }
  std::cout << "echoes frames on " << server.Addresses().front().ToString()
            << "; SIGTERM or Ctrl-C ends it" << std::endl;
  const std::error_code error = server.Serve();
  std::cerr << error.message() << '\n';
  return 1;
}
