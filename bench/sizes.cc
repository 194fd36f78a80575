// What a GiB costs by the size of its packets, both ways: CPU time of the server's process, in user and
// in kernel mode. In: packets are received and dropped. Out: each answers a request of a few bytes.

#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cstdint>
#include <exception>
#include <iostream>
#include <memory>
#include <stdexcept>
#include <string>
#include <system_error>
#include <thread>
#include <vector>

#include "support/client.h"
#include "support/frames.h"
#include "support/process.h"
#include "support/report.h"

namespace {

using bench::Figures;
using bench::Samples;

constexpr int kRounds = 3;
constexpr double kGiB = 1 << 30;
constexpr double kBytes = 512 << 20;  // measured each time

// Drops long packets, and answers short ones with `size` bytes.
class Handler final : public xtcp::Handler {
 public:
  explicit Handler(std::size_t size) : answer_(size, 'x') {}
  void OnEvent(xtcp::EventType, const xtcp::ConnPtr& conn, xtcp::PacketPtr packet) override {
    if (packet == nullptr || static_cast<const bench::Frame&>(*packet).bytes.size() > 5) return;
    if (conn->Send(answer_)) conn->Stop(xtcp::StopMode::kImmediately);
  }

 private:
  const std::string answer_;
};

// Serves one connection to its end, and says what it cost.
void Serve(std::size_t size) {
  xtcp::Options options{std::make_shared<Handler>(size), std::make_shared<bench::FrameProtocol>()};
  xtcp::Server server(options);
  if (const auto error = server.Listen("127.0.0.1:0")) throw std::system_error(error);
  std::cout << "on " << server.Addresses().front().ToString() << std::endl;
  std::thread watch([&] {
    bench::WaitUntil([&] { return server.Stats().closed > 0; });
    server.Stop(xtcp::StopMode::kGracefullyButNotWait);
  });
  if (const auto error = server.Serve()) throw std::system_error(error);
  rusage usage{};
  getrusage(RUSAGE_THREAD, &usage);  // the loop's, which is this one
  watch.join();
  const auto seconds = [](const timeval& t) { return double(t.tv_sec) + double(t.tv_usec) / 1e6; };
  bench::Print("user", seconds(usage.ru_utime));
  bench::Print("system", seconds(usage.ru_stime));
}

void SendAll(int fd, const std::string& bytes) {
  for (std::size_t at = 0; at < bytes.size();) {
    const ssize_t n = send(fd, bytes.data() + at, bytes.size() - at, MSG_NOSIGNAL);
    if (n <= 0) throw std::runtime_error("the server takes no more");
    at += static_cast<std::size_t>(n);
  }
}

// The peer of one measurement, which closes when all is done.
void Exchange(int port, std::size_t size, bool out) {
  const int fd = bench::ConnectTo(port);
  const std::string frame = bench::FrameOf(out ? 5 : size);
  std::vector<char> room(out ? std::min<std::size_t>(size, 1 << 20) : 0);
  for (double done = 0; done < kBytes; done += static_cast<double>(size)) {
    SendAll(fd, frame);
    for (std::size_t left = out ? size : 0; left > 0;) {
      const ssize_t n = recv(fd, room.data(), std::min(left, room.size()), 0);
      if (n <= 0) throw std::runtime_error("the server sends no more");
      left -= static_cast<std::size_t>(n);
    }
  }
  close(fd);
}

}  // namespace

int main() {
  try {
    bench::Table table("sizes",
                       "### What a GiB costs by the size of its packets, in seconds of CPU",
                       {"packet", "in, user", "in, system", "out, user", "out, system"});
    for (const std::size_t size :
         {60'000u, 200'000u, 400'000u, 1'000'000u, 4'000'000u, 8'000'000u}) {
      std::vector<Samples> cells(4);
      for (int round = 0; round < kRounds; ++round) {
        for (const bool out : {false, true}) {
          bench::Child server([&] { Serve(size); });
          Exchange(bench::PortOf(server), size, out);
          const Figures figures = server.ReadFigures();
          cells[out ? 2 : 0].push_back(figures.at("user") * kGiB / kBytes);
          cells[out ? 3 : 1].push_back(figures.at("system") * kGiB / kBytes);
        }
      }
      table.AddRow(std::to_string(size), cells);
    }
    table.Print();
  } catch (const std::exception& failure) {
    std::cerr << "sizes: " << failure.what() << '\n';
    return 1;
  }
  return 0;
}
