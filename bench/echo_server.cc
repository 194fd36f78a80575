// The framed echo that load programs are pointed at. It measures nothing itself.

#include <pthread.h>
#include <signal.h>
#include <xtcp/xtcp.h>

#include <charconv>
#include <iostream>
#include <memory>
#include <string>
#include <string_view>
#include <system_error>
#include <thread>

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

  sigset_t signals;  // blocked before any thread starts, so that only sigwait takes them
  sigemptyset(&signals);
  sigaddset(&signals, SIGINT);
  sigaddset(&signals, SIGTERM);
  pthread_sigmask(SIG_BLOCK, &signals, nullptr);

  xtcp::Server server({.handler = std::make_shared<bench::Echo>(),
                       .protocol = std::make_shared<bench::FrameProtocol>(),
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
