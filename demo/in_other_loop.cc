// A server inside somebody else's event loop, on its thread: here one of epoll that also takes
// signals from a signalfd. A GLib or Qt program does the same with its own means. It sends the
// time to everybody who connects, each second, or each so many milliseconds as a second argument
// says.

#include <signal.h>
#include <sys/epoll.h>
#include <sys/signalfd.h>
#include <unistd.h>
#include <xtcp/xtcp.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cstdlib>
#include <ctime>
#include <iostream>
#include <memory>
#include <set>
#include <string>
#include <system_error>

namespace {

// What clients say is skipped.
class NothingProtocol : public xtcp::Protocol {
 public:
  std::size_t PackSize(const xtcp::Packet&) const override { return 0; }  // text is sent
  std::error_code PackTo(const xtcp::Packet&, xtcp::Writer&) const override {
    return xtcp::Errc::kBadPacket;
  }
  xtcp::UnpackResult Unpack(std::span<const std::byte> buf) const override {
    return {.packet = nullptr, .size = buf.size()};
  }
};

class Clock : public xtcp::Handler {
 public:
  void OnEvent(xtcp::EventType event, const xtcp::ConnPtr& conn, xtcp::PacketPtr) override {
    if (event == xtcp::EventType::kAccept) clients_.insert(conn);
    if (event == xtcp::EventType::kClosed) clients_.erase(conn);
  }
  void Strike() {
    const std::string text = std::to_string(std::time(nullptr)) + '\n';
    for (const xtcp::ConnPtr& conn : clients_) {
      if (conn->Send(text)) conn->Stop(xtcp::StopMode::kImmediately);  // it does not read
    }
  }

 private:
  std::set<xtcp::ConnPtr> clients_;
};

// Watches `fd` for input, and knows it by its number.
bool Watch(int epoll_fd, int fd) {
  epoll_event event{};
  event.events = EPOLLIN;
  event.data.fd = fd;
  return epoll_ctl(epoll_fd, EPOLL_CTL_ADD, fd, &event) == 0;
}

constexpr std::chrono::milliseconds kLongest{60'000};  // epoll_wait takes an int

// The other loop. Returns why it ended.
std::error_code Loop(xtcp::LoopGroup& group, int epoll_fd, int signal_fd) {
  for (;;) {
    epoll_event events[16];
    const std::chrono::milliseconds timeout = std::min(group.Timeout(), kLongest);
    const int count = epoll_wait(epoll_fd, events, 16, static_cast<int>(timeout.count()));
    if (count < 0 && errno != EINTR) return {errno, std::system_category()};
    for (int i = 0; i < count; ++i) {
      signalfd_siginfo signal;
      if (events[i].data.fd == signal_fd && read(signal_fd, &signal, sizeof signal) > 0) {
        group.Stop(xtcp::StopMode::kGracefullyButNotWait);
      }
    }
    // One turn that does not wait, whether its descriptor is readable or its timer due.
    if (const std::error_code error = group.RunOnce(std::chrono::milliseconds(0))) return error;
  }
}

}  // namespace

int main(int argc, char** argv) {
  const std::chrono::milliseconds period(argc == 3 ? std::atoi(argv[2]) : 1000);
  if (argc < 2 || argc > 3 || period.count() < 1) {
    std::cerr << "usage: in_other_loop HOST:PORT [MILLISECONDS]\n";
    return 2;
  }
  sigset_t signals;
  sigemptyset(&signals);
  for (const int signal : {SIGINT, SIGTERM}) sigaddset(&signals, signal);
  pthread_sigmask(SIG_BLOCK, &signals, nullptr);
  const int signal_fd = signalfd(-1, &signals, SFD_NONBLOCK | SFD_CLOEXEC);
  const int epoll_fd = epoll_create1(EPOLL_CLOEXEC);

  xtcp::LoopGroup group;
  const auto clock = std::make_shared<Clock>();
  xtcp::Server server({.handler = clock, .protocol = std::make_shared<NothingProtocol>()}, group);
  const xtcp::Timer timer = group[0].RunEvery(period, [clock] { clock->Strike(); });
  std::error_code error = server.Listen(argv[1]);
  if (!error) error = server.Start();
  if (!error && (!Watch(epoll_fd, signal_fd) || !Watch(epoll_fd, group.Descriptor()))) {
    error = {errno, std::system_category()};
  }
  if (error) {
    std::cerr << argv[1] << ": " << error.message() << '\n';
    return 1;
  }
  std::cout << "tells the time on " << server.Addresses().front().ToString() << std::endl;
  error = Loop(group, epoll_fd, signal_fd);
  close(epoll_fd);
  close(signal_fd);
  if (error == xtcp::Errc::kStopped) return 0;
  std::cerr << error.message() << '\n';
  return 1;
}
