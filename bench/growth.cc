// What grows with the number of connections: CPU time a message, memory, the time to accept and to
// stop. And what a second loop gives.
//
// The clients are in another process, so that each side has 20,000 descriptors of its own.

#include <malloc.h>
#include <sys/socket.h>
#include <unistd.h>

#include <array>
#include <exception>
#include <iostream>
#include <memory>
#include <stdexcept>
#include <string>
#include <vector>

#include "support/message.h"
#include "support/process.h"
#include "support/report.h"
#include "support/server.h"

namespace {

using bench::Child;
using bench::Figures;
using bench::Samples;

constexpr int kRounds = 3;
constexpr int kMany = 10'000;
const std::string kSeconds = "0.6";

// A server in a process of its own.
struct Server {
  explicit Server(const std::vector<std::string>& command, int cpu = Child::kAnyCpu)
      : child(command, cpu), port(std::to_string(bench::PortOf(child))) {}

  std::string pid() const { return std::to_string(child.pid()); }

  Child child;
  const std::string port;
};

std::string Load() { return bench::Sibling("load/load"); }
std::vector<std::string> Xtcp(const std::string& loops = "1") {
  return {bench::Sibling("echo_server"), "0", loops};
}
std::vector<std::string> Floor() { return {bench::Sibling("peers/floor"), "0"}; }

// The two that a round compares; another is first each time.
std::array<bool, 2> Turns(int round) { return {round % 2 == 0, round % 2 != 0}; }

// --- Active connections --------------------------------------------------------------------------

void ReportActive() {
  const std::vector<std::string> sizes{"100", "1000", "8000"};
  const Server xtcp(Xtcp(), bench::ServerCpu());
  const Server floor(Floor(), bench::ServerCpu());
  const auto cpu_ns = [](const Server& server, const std::string& connections) {
    return bench::Run({Load(), "echo", server.port, connections, "64", "1", "1", "1", server.pid()},
                      bench::LoadCpu())
        .at("cpu_ns");
  };
  std::vector<Samples> ours(sizes.size()), theirs(sizes.size());
  for (int round = 0; round < kRounds; ++round) {
    for (std::size_t i = 0; i < sizes.size(); ++i) {
      for (const bool us : Turns(round)) {
        (us ? ours : theirs)[i].push_back(cpu_ns(us ? xtcp : floor, sizes[i]));
      }
    }
  }
  const auto ratios = [](const Samples& a, const Samples& b) {
    Samples all;
    for (std::size_t i = 0; i < a.size(); ++i) all.push_back(a[i] / b[i]);
    return all;
  };
  bench::Table table(
      "active", "### Active connections: CPU ns/message, one frame of 64 bytes on its way on each",
      {"connections", "xtcp", "floor", "xtcp/floor", "xtcp against 100", "floor against 100"});
  for (std::size_t i = 0; i < sizes.size(); ++i) {
    table.AddRow(sizes[i], {ours[i], theirs[i], ratios(ours[i], theirs[i]),
                            ratios(ours[i], ours[0]), ratios(theirs[i], theirs[0])});
  }
  table.Print();
}

// --- Memory --------------------------------------------------------------------------------------

// Connections that have echoed one frame of 4 KiB, with "half" also hold the first half of another.
double HeldBytes(const std::vector<std::string>& mode) {
  const Server server(Xtcp());
  const auto hold = [&](int connections) {
    std::vector<std::string> command{Load(), "hold", server.port, std::to_string(connections),
                                     "4096"};
    command.insert(command.end(), mode.begin(), mode.end());
    auto holder = std::make_unique<Child>(command);
    holder->ReadLine();
    bench::Sleep(0.2);
    return holder;
  };
  const auto warm = hold(100);
  const double before = bench::PrivateBytes(server.child.pid());
  const auto held = hold(kMany);
  return (bench::PrivateBytes(server.child.pid()) - before) / kMany;
}

// Small buffers in the kernel, so that what is sent is queued by the library.
class SmallSocket : public bench::Collector {
 public:
  void OnEvent(xtcp::EventType event, const xtcp::ConnPtr& conn, xtcp::PacketPtr packet) override {
    const int bytes = 32 << 10;
    if (event == xtcp::EventType::kAccept) {
      setsockopt(conn->Descriptor(), SOL_SOCKET, SO_SNDBUF, &bytes, sizeof bytes);
    }
    bench::Collector::OnEvent(event, conn, std::move(packet));
  }
};

// Queues 1 MiB on each of 100 connections whose peers do not read, then lets them.
void MeasureQueues() {
  constexpr std::size_t kConnections = 100;
  constexpr std::uint64_t kQueued = 1 << 20;
  const auto handler = std::make_shared<SmallSocket>();
  bench::RunningServer server({handler, std::make_shared<bench::FrameProtocol>()});
  Child drain({Load(), "drain", server.Port(), std::to_string(kConnections), "wait"});
  drain.ReadLine();
  bench::WaitUntil([&] { return handler->conns().size() == kConnections; });
  const std::vector<xtcp::ConnPtr> conns = handler->conns();
  bench::Sleep(0.2);
  const double idle = bench::PrivateBytes(getpid());

  std::vector<std::uint64_t> numbers(kConnections);
  const auto queued = [&] {
    bool all = true;
    for (std::size_t i = 0; i < kConnections; ++i) {
      if (conns[i]->Stats().unsent_bytes() >= kQueued) continue;
      all = false;
      std::vector<bench::Message> messages(64);
      for (bench::Message& message : messages) bench::FillMessage(&message, 0, numbers[i]++);
      if (conns[i]->Send(std::as_bytes(std::span(messages)))) throw std::runtime_error("refused");
    }
    return all;
  };
  do {
    while (!queued()) {
    }
    bench::Sleep(0.1);  // the kernel may still take some
  } while (!queued());
  bench::Print("queued", (bench::PrivateBytes(getpid()) - idle) / kConnections);

  drain.WriteLine("go");
  bench::WaitUntil([&] {
    for (const xtcp::ConnPtr& conn : conns) {
      if (conn->Stats().unsent_bytes() != 0) return false;
    }
    return true;
  });
  bench::Sleep(0.2);
  bench::Print("drained", (bench::PrivateBytes(getpid()) - idle) / kConnections);
  malloc_trim(0);  // what is left now is the library's, the rest was the allocator's
  bench::Print("trimmed", (bench::PrivateBytes(getpid()) - idle) / kConnections);

  server.Stop(xtcp::StopMode::kGracefullyAndWait);
  double sent = 0;
  for (const std::uint64_t number : numbers) sent += static_cast<double>(number);
  if (drain.ReadFigures().at("messages") != sent) throw std::runtime_error("messages are missing");
}

void ReportMemory() {
  bench::Table table("memory", "### Memory of a connection, in bytes", {"state", "bytes"});
  table.AddRow("idle", {{HeldBytes({})}});
  table.AddRow("half a packet of 4 KiB waits", {{HeldBytes({"half"})}});
  const Figures queues = bench::Run(MeasureQueues);
  table.AddRow("beyond idle: 1 MiB is queued", {{queues.at("queued")}});
  table.AddRow("beyond idle: 1 MiB was queued and is drained", {{queues.at("drained")}});
  table.AddRow("the same after malloc_trim(3)", {{queues.at("trimmed")}});
  table.Print();
}

// --- Accepting and stopping ----------------------------------------------------------------------

void ReportAccepts() {
  const Server xtcp(Xtcp(), bench::ServerCpu());
  const Server floor(Floor(), bench::ServerCpu());
  Samples rate[2], cpu[2];
  for (int round = 0; round < kRounds; ++round) {
    for (const bool ours : Turns(round)) {
      const Server& server = ours ? xtcp : floor;
      const Figures figures =
          bench::Run({Load(), "churn", server.port, kSeconds, server.pid()}, bench::LoadCpu());
      rate[ours].push_back(figures.at("connections_per_s"));
      cpu[ours].push_back(figures.at("cpu_ns"));
    }
  }
  bench::Table table("accepts", "### Connections accepted, one frame echoed, and closed",
                     {"server", "connections/s", "CPU ns/connection"});
  table.AddRow("xtcp", {rate[true], cpu[true]});
  table.AddRow("floor", {rate[false], cpu[false]});
  table.Print();
}

void MeasureStop(xtcp::StopMode mode) {
  bench::RunningServer server(
      {std::make_shared<bench::Echo>(), std::make_shared<bench::FrameProtocol>()});
  Child hold({Load(), "hold", server.Port(), std::to_string(kMany), "64"});
  hold.ReadLine();
  if (server.ConnectionCount() != kMany) throw std::runtime_error("connections are missing");
  const double begin = bench::Seconds();
  const double cpu_before = bench::CpuSeconds();
  server.Stop(mode);
  bench::Print("ms", (bench::Seconds() - begin) * 1e3);
  bench::Print("cpu_ms", (bench::CpuSeconds() - cpu_before) * 1e3);
}

void ReportStops() {
  Samples ms[2], cpu[2];
  for (int round = 0; round < kRounds; ++round) {
    for (const bool graceful : Turns(round)) {
      const Figures figures = bench::Run([&] {
        MeasureStop(graceful ? xtcp::StopMode::kGracefullyAndWait : xtcp::StopMode::kImmediately);
      });
      ms[graceful].push_back(figures.at("ms"));
      cpu[graceful].push_back(figures.at("cpu_ms"));
    }
  }
  bench::Table table("stop", "### Stopping 10,000 connections, until Serve has returned",
                     {"mode", "ms", "CPU ms"});
  table.AddRow("kImmediately", {ms[false], cpu[false]});
  table.AddRow("kGracefullyAndWait", {ms[true], cpu[true]});
  table.Print();
}

// --- Loops ---------------------------------------------------------------------------------------

void ReportLoops() {
  const Server one(Xtcp("1"));
  const Server two(Xtcp("2"));
  Samples rate[2], cpu[2], busy[2];
  for (int round = 0; round < kRounds; ++round) {
    for (const bool second : Turns(round)) {
      const Server& server = second ? two : one;
      const Figures figures =
          bench::Run({Load(), "echo", server.port, "100", "64", "64", kSeconds, "2", server.pid()});
      rate[second].push_back(figures.at("messages_per_s"));
      cpu[second].push_back(figures.at("cpu_ns"));
      busy[second].push_back(figures.at("cpu_share"));
    }
  }
  bench::Table table("loops",
                     "### Two loops beside one: pipe-64B, two threads of load, no fixed places",
                     {"loops", "messages/s", "CPU ns/message", "processors busy with the server"});
  table.AddRow("1", {rate[false], cpu[false], busy[false]});
  table.AddRow("2", {rate[true], cpu[true], busy[true]});
  table.Print();
}

}  // namespace

int main() {
  try {
    bench::RaiseDescriptorLimit();
    ReportActive();
    ReportMemory();
    ReportAccepts();
    ReportStops();
    ReportLoops();
  } catch (const std::exception& failure) {
    std::cerr << "growth: " << failure.what() << '\n';
    return 1;
  }
  return 0;
}
