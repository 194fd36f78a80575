// A handler that answers and looks at no error, and a client that sends much and reads late.
//
// The server echoes, with the two limits of `Hardened()`: `pause_recv_above` 256 KiB and
// `send_buffer_limit` 1 MiB. The client sends 1 GiB as fast as it can and reads nothing for 5
// seconds, then everything, and looks at every byte of it. No send is refused, and the server's
// process does not grow.

#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdint>
#include <cstring>
#include <exception>
#include <fstream>
#include <iostream>
#include <memory>
#include <stdexcept>
#include <string>
#include <system_error>
#include <vector>

#include "support/client.h"
#include "support/frames.h"
#include "support/process.h"
#include "support/report.h"
#include "support/server.h"

namespace {

using bench::Child;
using bench::Figures;

constexpr std::size_t kBytes = std::size_t{1} << 30;
constexpr double kSilence = 5;     // seconds
constexpr double kDeadline = 300;  // for all of it, on a busy machine

// --- The server ----------------------------------------------------------------------------------

// All that an application writes.
class Answers : public xtcp::Handler {
 public:
  void OnEvent(xtcp::EventType, const xtcp::ConnPtr& conn, xtcp::PacketPtr packet) override {
    if (packet == nullptr) return;
    static_cast<void>(conn->Send(static_cast<const bench::Frame&>(*packet).bytes));
  }
};

// The most memory that this process has ever had, in bytes; proc(5).
double PeakBytes() {
  std::ifstream lines("/proc/self/status");
  std::string word;
  double kilobytes = -1;
  while (lines >> word) {
    if (word == "VmHWM:" && lines >> kilobytes) return kilobytes * 1024;
  }
  throw std::runtime_error("no memory figures of a process");
}

// It, and what is to be known afterwards.
class Watched final : public Answers {
 public:
  void OnEvent(xtcp::EventType event, const xtcp::ConnPtr& conn, xtcp::PacketPtr packet) override {
    Answers::OnEvent(event, conn, std::move(packet));
    most_queued_ = std::max(most_queued_, conn->Stats().unsent_bytes());
    if (event == xtcp::EventType::kAccept) at_first_ = PeakBytes();
    if (event != xtcp::EventType::kClosed) return;
    bench::Print("refused", static_cast<double>(conn->Stats().refused_sends));
    bench::Print("queued", static_cast<double>(most_queued_));
    bench::Print("at_first", at_first_);
    bench::Print("peak", PeakBytes());
    server->Stop(xtcp::StopMode::kGracefullyButNotWait);
  }

  xtcp::Server* server = nullptr;

 private:
  std::uint64_t most_queued_ = 0;
  double at_first_ = 0;
};

void Serve() {
  const xtcp::Options limits = xtcp::Options().Hardened();
  const auto handler = std::make_shared<Watched>();
  xtcp::Server server({.handler = handler,
                       .protocol = std::make_shared<bench::FrameProtocol>(),
                       .send_buffer_limit = limits.send_buffer_limit,
                       .pause_recv_above = limits.pause_recv_above});
  handler->server = &server;
  bench::ServeAndSayWhere(server);
}

// --- The client ----------------------------------------------------------------------------------

[[noreturn]] void Fail(const char* what) {
  throw std::system_error(errno, std::generic_category(), what);
}

// A stream of frames, each of which begins with its number.
class Frames {
 public:
  explicit Frames(std::size_t size) : frame_(bench::FrameOf(size)) {}

  // From `at` to the end of that frame, at most.
  std::string_view From(std::size_t at) {
    const std::uint64_t number = at / frame_.size();
    std::memcpy(frame_.data() + kHeader, &number, sizeof number);
    return std::string_view(frame_).substr(at % frame_.size());
  }

  // What of the stream begins at `at`, up to the end of a frame, at least `least` bytes.
  std::string Several(std::size_t at, std::size_t least) {
    std::string all;
    while (all.size() < least) all += From(at + all.size());
    return all;
  }

 private:
  static constexpr std::size_t kHeader = 4;
  std::string frame_;
};

class Client {
 public:
  Client(int port, std::size_t frame)
      : fd_(bench::ConnectTo(port)), frames_(frame), bytes_(kBytes / frame * frame) {}
  ~Client() { close(fd_); }
  Client(const Client&) = delete;
  Client& operator=(const Client&) = delete;

  // Returns how much was sent before anything was read.
  std::size_t Run() {
    const double begin = bench::Seconds();
    std::size_t sent_first = 0;
    while (received_ < bytes_) {
      const double passed = bench::Seconds() - begin;
      if (passed > kDeadline) throw std::runtime_error("it stands still");
      const bool reads = passed > kSilence;
      if (!reads) sent_first = sent_;
      const short events = short((reads ? POLLIN : 0) | (sent_ < bytes_ ? POLLOUT : 0));
      pollfd socket{fd_, events, 0};
      poll(&socket, 1, 100);
      if ((socket.revents & (POLLERR | POLLHUP)) != 0) throw std::runtime_error("it was closed");
      if ((socket.revents & POLLOUT) != 0) Send();
      if ((socket.revents & POLLIN) != 0) Receive();
    }
    return sent_first;
  }

  std::size_t received() const { return received_; }

 private:
  static constexpr std::size_t kAtOnce = 64 << 10;

  void Send() {
    if (unsent_.empty()) {
      waiting_ = frames_.Several(sent_, std::min(kAtOnce, bytes_ - sent_));
      unsent_ = waiting_;
    }
    const ssize_t n = send(fd_, unsent_.data(), unsent_.size(), MSG_NOSIGNAL | MSG_DONTWAIT);
    if (n < 0 && errno != EAGAIN) Fail("send");
    if (n <= 0) return;
    unsent_.remove_prefix(static_cast<std::size_t>(n));
    sent_ += static_cast<std::size_t>(n);
  }

  void Receive() {
    const ssize_t n = recv(fd_, room_.data(), room_.size(), MSG_DONTWAIT);
    if (n <= 0) Fail("recv");
    std::string_view got(room_.data(), static_cast<std::size_t>(n));
    while (!got.empty()) {
      const std::string_view expected = frames_.From(received_).substr(0, got.size());
      if (!got.starts_with(expected)) throw std::runtime_error("a wrong answer");
      got.remove_prefix(expected.size());
      received_ += expected.size();
    }
  }

  const int fd_;
  Frames frames_;
  const std::size_t bytes_;
  std::string waiting_;
  std::string_view unsent_;
  std::vector<char> room_ = std::vector<char>(256 << 10);
  std::size_t sent_ = 0, received_ = 0;
};

void Measure(std::size_t frame, bench::Table& table) {
  Child server(Serve, bench::ServerCpu());
  std::size_t sent_first, received;
  const double begin = bench::Seconds();
  {
    Client client(bench::PortOf(server), frame);
    sent_first = client.Run();
    received = client.received();
  }
  const double seconds = bench::Seconds() - begin;
  Figures figures = server.ReadFigures();
  table.AddCounts(std::to_string(frame),
                  {double(sent_first), double(received), figures["refused"], figures["queued"],
                   figures["at_first"], figures["peak"], seconds});
}

}  // namespace

int main() {
  try {
    bench::Table table("pressure", "### A client that sends 1 GiB and reads nothing for 5 s",
                       {"frame", "taken in the 5 s", "received, all right", "refused sends",
                        "most queued", "VmHWM at first", "VmHWM", "seconds"});
    for (const std::size_t frame : {1'000u, 64'000u}) Measure(frame, table);
    table.Print();
  } catch (const std::exception& failure) {
    std::cerr << "pressure: " << failure.what() << '\n';
    return 1;
  }
  return 0;
}
