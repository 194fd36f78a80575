// What it costs to send from other threads than the loop's.
//
// First: 1, 4 and 16 producers that call `Send` with messages of 64 bytes, each on all of 1 or 64
// connections in turn, as fast as the queues (256 KiB a connection) have room. Beside it the same
// by hand (peers/send_floor.cc), and on other libraries where they are installed. A program beside
// us reads the messages and checks every byte and their order. Counted: messages a second from the
// first `Send` until the last byte was taken and the server has stopped, CPU time of all threads,
// and writes to the eventfd.
//
// Then: how long it takes from `Send` on another thread until the loop, which sleeps, makes its
// system call; beside it two threads that do nothing but wake each other with eventfds.

#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cstdint>
#include <exception>
#include <iostream>
#include <map>
#include <memory>
#include <span>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

#include "support/message.h"
#include "support/process.h"
#include "support/report.h"
#include "support/rounds.h"
#include "support/sends.h"
#include "support/server.h"

// The library calls write(2) for its eventfd only, and sendmsg(2) for what other threads queued.
// This program has its own of both, which count, or tell when they were called; the library's seam
// ends up here.
namespace {
std::atomic<std::uint64_t> eventfd_writes{0};
std::atomic<int> answer_fd{-1};  // an eventfd that is to be written when the loop sends
std::atomic<double> awake_at{0};
constexpr std::uint64_t kOne = 1;
}  // namespace

extern "C" ssize_t write(int fd, const void* bytes, std::size_t n) {
  eventfd_writes.fetch_add(1, std::memory_order_relaxed);
  return syscall(SYS_write, fd, bytes, n);
}

extern "C" ssize_t sendmsg(int fd, const msghdr* message, int flags) {
  const int answer = answer_fd.load(std::memory_order_relaxed);
  if (answer >= 0) {
    awake_at = bench::Seconds();
    syscall(SYS_write, answer, &kOne, sizeof kOne);
  }
  return syscall(SYS_sendmsg, fd, message, flags);
}

namespace {

using bench::Figures;
using bench::Samples;

constexpr int kRounds = 5;
constexpr int kWakes = 2000;

// Lets producers wait for room.
class Room : public bench::Collector {
 public:
  void OnSendReady(const xtcp::ConnPtr&) override {
    turns_.fetch_add(1);
    turns_.notify_all();
  }

  // Sends, when there is room. A refusal is followed by OnSendReady; whoever looked at `turns_`
  // before the refusal misses none.
  void Send(xtcp::Conn& conn, std::span<const std::byte> bytes) {
    for (;;) {
      const std::uint32_t turns = turns_.load();
      const std::error_code error = conn.Send(bytes);
      if (!error) return;
      if (error != xtcp::Errc::kFull) throw std::system_error(error);
      turns_.wait(turns);
    }
  }

 private:
  std::atomic<std::uint32_t> turns_{0};
};

xtcp::Options OptionsWith(std::shared_ptr<xtcp::Handler> handler) {
  xtcp::Options options{std::move(handler), std::make_shared<bench::FrameProtocol>()};
  options.send_buffer_limit = 256 << 10;
  return options;
}

std::unique_ptr<bench::Child> StartDrain(const bench::RunningServer& server,
                                         const bench::Collector& collector, std::size_t count) {
  auto drain = std::make_unique<bench::Child>(std::vector<std::string>{
      bench::Sibling("load/load"), "drain", server.Port(), std::to_string(count)});
  drain->ReadLine();
  bench::WaitUntil([&] { return collector.conns().size() == count; });
  return drain;
}

// --- Many producers ------------------------------------------------------------------------------

void CheckDrain(bench::Child& drain, double sent) {
  if (drain.ReadFigures().at("messages") != sent) throw std::runtime_error("messages are missing");
}

void MeasureOurs(std::size_t producers, std::size_t connections) {
  const auto room = std::make_shared<Room>();
  bench::RunningServer server(OptionsWith(room));
  const auto drain = StartDrain(server, *room, connections);
  const std::vector<xtcp::ConnPtr> conns = room->conns();
  const std::uint64_t writes_before = eventfd_writes;
  const auto sent = static_cast<double>(bench::MeasureSends(
      producers, connections,
      [&](std::size_t index, bench::MessageBytes bytes) { room->Send(*conns[index], bytes); },
      [&] { server.Stop(xtcp::StopMode::kGracefullyAndWait); }));
  const auto writes = static_cast<double>(eventfd_writes - writes_before);
  CheckDrain(*drain, sent);
  bench::Print("writes_per_1000", writes / sent * 1000);
}

Figures MeasurePeer(const std::string& name, const std::string& producers,
                    const std::string& connections) {
  bench::Child peer({bench::Sibling("peers/send_" + name), producers, connections});
  const std::string port = std::to_string(bench::PortOf(peer));
  bench::Child drain({bench::Sibling("load/load"), "drain", port, connections});
  drain.ReadLine();
  Figures figures = peer.ReadFigures();
  CheckDrain(drain, figures.at("messages"));
  return figures;
}

void ReportProducers() {
  struct Case {
    std::size_t producers;
    std::size_t connections;
  };
  std::vector<std::string> names = bench::Peers("send", {"floor", "libuv", "asio"});
  names.push_back("xtcp");
  const std::string first = "producers to connections";
  bench::Table rate("senders", "### Sends of 64 bytes from other threads; messages a second",
                    bench::Columns(first, names));
  bench::Table cpu("senders_cpu", "### The same; CPU ns/message", bench::Columns(first, names));
  bench::Table wakes("senders_wakes", "### The same; how often `Send` wakes the loop",
                     {first, "eventfd writes/1000 sends"});
  for (const auto& [producers, connections] :
       {Case{1, 1}, {4, 1}, {16, 1}, {1, 64}, {4, 64}, {16, 64}}) {
    const bench::Rounds all = bench::MeasureInRounds(kRounds, names, [&](const std::string& name) {
      return name == "xtcp"
                 ? bench::Run([&] { MeasureOurs(producers, connections); })
                 : MeasurePeer(name, std::to_string(producers), std::to_string(connections));
    });
    const std::string row = std::to_string(producers) + " to " + std::to_string(connections);
    bench::AddRow(row, names, all, "messages_per_s", &rate);
    bench::AddRow(row, names, all, "cpu_ns", &cpu);
    wakes.AddRow(row, {bench::Values(all.at("xtcp"), "writes_per_1000")});
  }
  for (const bench::Table* table : {&rate, &cpu, &wakes}) table->Print();
}

// --- Wake-ups ------------------------------------------------------------------------------------

void PrintLatencies(const std::string& name, Samples* seconds) {
  std::sort(seconds->begin(), seconds->end());
  const auto at = [&](double share) {
    return (*seconds)[static_cast<std::size_t>(share * static_cast<double>(seconds->size()))] * 1e6;
  };
  bench::Print(name + "_p50", at(0.5));
  bench::Print(name + "_p99", at(0.99));
}

std::uint64_t WaitFor(int fd) {
  std::uint64_t value = 0;
  if (read(fd, &value, sizeof value) != sizeof value) throw std::runtime_error("eventfd");
  return value;
}

// From `wake` on this thread to `awake_at` on the other, which then answers on `fd`.
template <typename Wake>
Samples MeasureWakes(int fd, const Wake& wake) {
  Samples samples;
  for (int i = 0; i < kWakes; ++i) {
    const double begin = bench::Seconds();
    wake();
    WaitFor(fd);
    samples.push_back(awake_at - begin);
  }
  return samples;
}

Samples MeasureSends(int fd) {
  const auto collector = std::make_shared<bench::Collector>();
  bench::RunningServer server(OptionsWith(collector));
  const auto drain = StartDrain(server, *collector, 1);
  const xtcp::ConnPtr conn = collector->conns().front();
  std::uint64_t number = 0;
  answer_fd = fd;
  Samples samples = MeasureWakes(fd, [&] {
    bench::Message message;
    bench::FillMessage(&message, 0, number++);
    if (conn->Send(std::as_bytes(std::span(message.words)))) throw std::runtime_error("refused");
  });
  answer_fd = -1;
  server.Stop(xtcp::StopMode::kGracefullyAndWait);
  if (drain->ReadFigures().at("messages") != kWakes) throw std::runtime_error("messages missing");
  return samples;
}

// The other thread waits with epoll, as a loop does.
Samples MeasureBareWakes(int fd) {
  const int wake_fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
  const int epoll_fd = epoll_create1(EPOLL_CLOEXEC);
  epoll_event event{};
  event.events = EPOLLIN | EPOLLET;
  epoll_ctl(epoll_fd, EPOLL_CTL_ADD, wake_fd, &event);
  std::jthread other([&] {
    for (int i = 0; i < kWakes; ++i) {
      epoll_event got;
      while (epoll_wait(epoll_fd, &got, 1, -1) != 1) {
      }
      awake_at = bench::Seconds();
      syscall(SYS_write, fd, &kOne, sizeof kOne);
    }
  });
  Samples samples = MeasureWakes(fd, [&] { syscall(SYS_write, wake_fd, &kOne, sizeof kOne); });
  other.join();
  close(epoll_fd);
  close(wake_fd);
  return samples;
}

void ReportWakes() {
  Samples send_p50, send_p99, bare_p50, bare_p99;
  for (int round = 0; round < 5; ++round) {
    const Figures figures = bench::Run([] {
      const int fd = eventfd(0, EFD_CLOEXEC);
      Samples sends = MeasureSends(fd);
      Samples bare = MeasureBareWakes(fd);
      PrintLatencies("send", &sends);
      PrintLatencies("bare", &bare);
    });
    send_p50.push_back(figures.at("send_p50"));
    send_p99.push_back(figures.at("send_p99"));
    bare_p50.push_back(figures.at("bare_p50"));
    bare_p99.push_back(figures.at("bare_p99"));
  }
  bench::Table table("wake", "### Waking a sleeping loop from another thread, in microseconds",
                     {"what", "p50", "p99"});
  table.AddRow("Send until the loop's sendmsg(2)", {send_p50, send_p99});
  table.AddRow("eventfd alone", {bare_p50, bare_p99});
  table.Print();
}

}  // namespace

int main() {
  try {
    ReportProducers();
    ReportWakes();
  } catch (const std::exception& failure) {
    std::cerr << "threads: " << failure.what() << '\n';
    return 1;
  }
  return 0;
}
