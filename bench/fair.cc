// What four connections that flood cost another client: its round trip, alone and beside them, with a
// handler that does nothing and with one that takes 2 µs for a packet.
//
// The server has one loop, in a process of its own. The flood is frames of 100 bytes, as fast as the
// server takes them, which it does not answer; the client has one frame of 64 bytes on its way.

#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstdint>
#include <exception>
#include <iostream>
#include <memory>
#include <stdexcept>
#include <string>
#include <system_error>
#include <utility>
#include <vector>

#include "support/client.h"
#include "support/frames.h"
#include "support/process.h"
#include "support/report.h"
#include "support/server.h"

namespace {

using bench::Child;
using bench::Samples;

constexpr int kRounds = 3;
constexpr int kPings = 1000;
constexpr int kFlooders = 4;
constexpr std::size_t kFloodFrame = 100;
constexpr std::size_t kPingFrame = 64;

// Takes its time for each packet, and answers the client only.
class Handler final : public bench::Echo {
 public:
  explicit Handler(double busy_seconds) : busy_(busy_seconds) {}
  void OnEvent(xtcp::EventType event, const xtcp::ConnPtr& conn, xtcp::PacketPtr packet) override {
    if (event != xtcp::EventType::kRecv) return;
    const double end = busy_ > 0 ? bench::Seconds() + busy_ : 0;
    if (static_cast<const bench::Frame&>(*packet).bytes.size() == kPingFrame) {
      Echo::OnEvent(event, conn, std::move(packet));
    }
    while (busy_ > 0 && bench::Seconds() < end) {
    }
  }

 private:
  const double busy_;
};

void Serve(double busy_seconds) {
  xtcp::Server server({.handler = std::make_shared<Handler>(busy_seconds),
                       .protocol = std::make_shared<bench::FrameProtocol>()});
  bench::ServeAndSayWhere(server);
}

// Until it is killed. It leaves the processor to the client whenever that wants it.
void Flood(int port) {
  if (nice(19) == -1) throw std::runtime_error("nice");
  std::string frames;
  while (frames.size() < (64 << 10)) frames += bench::FrameOf(kFloodFrame);
  std::array<pollfd, kFlooders> sockets{};
  std::array<std::size_t, kFlooders> sent{};
  for (pollfd& socket : sockets) socket = {bench::ConnectTo(port), POLLOUT, 0};
  std::cout << "floods" << std::endl;
  while (poll(sockets.data(), sockets.size(), -1) > 0) {
    for (std::size_t i = 0; i < sockets.size(); ++i) {
      if (sockets[i].revents == 0) continue;
      const ssize_t n = send(sockets[i].fd, frames.data() + sent[i], frames.size() - sent[i],
                             MSG_DONTWAIT | MSG_NOSIGNAL);
      if (n < 0 && errno != EAGAIN) return;
      if (n > 0) sent[i] = (sent[i] + static_cast<std::size_t>(n)) % frames.size();
    }
  }
}

// The round trips of a client, in µs, sorted.
Samples Ping(int port) {
  const int fd = bench::ConnectTo(port);
  const std::string frame = bench::FrameOf(kPingFrame);
  std::array<char, kPingFrame> answer;
  Samples times;
  for (int i = 0; i < kPings; ++i) {
    const double begin = bench::Seconds();
    if (send(fd, frame.data(), frame.size(), MSG_NOSIGNAL) != ssize_t{kPingFrame} ||
        recv(fd, answer.data(), answer.size(), MSG_WAITALL) != ssize_t{kPingFrame}) {
      throw std::runtime_error("a client lost its connection");
    }
    times.push_back((bench::Seconds() - begin) * 1e6);
  }
  close(fd);
  std::sort(times.begin(), times.end());
  return times;
}

void Measure(double busy_seconds, const std::string& name, bench::Table& table) {
  Samples median[2], p99[2], ratio;
  for (int round = 0; round < kRounds; ++round) {
    Child server([&] { Serve(busy_seconds); });
    const int port = bench::PortOf(server);
    for (const bool flooded : {false, true}) {
      std::unique_ptr<Child> flood;
      if (flooded) {
        flood = std::make_unique<Child>([&] { Flood(port); });
        flood->ReadLine();
      }
      const Samples times = Ping(port);
      median[flooded].push_back(times[times.size() / 2]);
      p99[flooded].push_back(times[times.size() * 99 / 100]);
    }
    ratio.push_back(p99[1].back() / p99[0].back());
  }
  table.AddRow(name, {median[0], p99[0], median[1], p99[1], ratio});
}

}  // namespace

int main() {
  try {
    bench::Table table(
        "fair", "### A client beside four that flood: its round trip in µs",
        {"handler", "alone, median", "alone, p99", "beside, median", "beside, p99", "p99, ratio"});
    Measure(0, "empty", table);
    Measure(2e-6, "2 µs a packet", table);
    table.Print();
  } catch (const std::exception& failure) {
    std::cerr << "fair: " << failure.what() << '\n';
    return 1;
  }
  return 0;
}
