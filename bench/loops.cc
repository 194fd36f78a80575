// What loops cost that servers, dialled connections, timers and tasks share: tasks from other
// threads, timers that each packet sets anew, thousands of dialled connections, a proxy. Beside
// xtcp, as ratios, the same on libuv, asio and libevent, where they are installed and can do it.
//
//   loops [posts|timers|dialled|proxy]...

#include <sys/resource.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cstddef>
#include <exception>
#include <functional>
#include <iostream>
#include <map>
#include <memory>
#include <stdexcept>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "support/frames.h"
#include "support/idle.h"
#include "support/posts.h"
#include "support/process.h"
#include "support/report.h"
#include "support/rounds.h"

namespace {

using bench::Child;
using bench::Figures;
using bench::Samples;

constexpr int kRounds = 7;
constexpr double kSeconds = 0.6;

// A group of one loop, which runs on a thread of its own.
struct RunningGroup {
  ~RunningGroup() { group.Stop(xtcp::StopMode::kImmediately); }
  xtcp::LoopGroup group;
  std::jthread thread{[this] {
    if (const std::error_code error = group.Run()) std::cerr << error.message() << std::endl;
  }};
};

// --- Tasks ---------------------------------------------------------------------------------------

Figures MeasurePosts(const std::string& name, std::vector<std::string> words) {
  if (name != "xtcp") {
    words.insert(words.begin(), bench::Sibling("peers/post_" + name));
    return bench::Run(words);
  }
  return bench::Run([&] {
    RunningGroup running;
    const xtcp::Loop loop = running.group[0];
    bench::MeasureAsTold(words, [&](auto task) {
      if (loop.Post(std::move(task))) throw std::runtime_error("a task is refused");
    });
  });
}

void ReportPosts() {
  std::vector<std::string> names = bench::Peers("post", {"libuv", "asio", "libevent"});
  names.push_back("xtcp");
  bench::Table rate("posts", "### Tasks a second from other threads; more is better",
                    bench::Columns("threads", names));
  bench::Table cpu("posts_cpu", "### The loop's CPU ns/task; less is better",
                   bench::Columns("threads", names));
  for (const std::string threads : {"1", "4", "16"}) {
    const auto all = bench::MeasureInRounds(kRounds, names, [&](const std::string& name) {
      return MeasurePosts(name, {"rate", threads});
    });
    bench::AddRow(threads, names, all, "tasks_per_s", &rate);
    bench::AddRow(threads, names, all, "loop_cpu_ns", &cpu);
  }
  bench::Table delay("posts_delay", "### From Post until the task runs, in microseconds",
                     {"library", "asleep p50", "asleep p99", "busy p50", "busy p99"});
  const auto all = bench::MeasureInRounds(
      kRounds, names, [&](const std::string& name) { return MeasurePosts(name, {"delay"}); });
  for (const std::string& name : names) {
    std::vector<Samples> cells;
    for (const char* figure : {"asleep_p50", "asleep_p99", "busy_p50", "busy_p99"}) {
      cells.push_back(bench::Values(all.at(name), figure));
    }
    delay.AddRow(name, cells);
  }
  for (const bench::Table* table : {&rate, &cpu, &delay}) table->Print();
}

// --- Timers --------------------------------------------------------------------------------------

class TimerEcho final : public bench::Echo {
 public:
  void OnEvent(xtcp::EventType event, const xtcp::ConnPtr& conn, xtcp::PacketPtr packet) override {
    if (event == xtcp::EventType::kRecv) conn->SetTimer(std::chrono::seconds(30));
    bench::Echo::OnEvent(event, conn, std::move(packet));
  }
};

// An echo server on a loop with `armed` timers beside it, which runs for good.
void ServeWithTimers(std::shared_ptr<xtcp::Handler> handler, int armed) {
  xtcp::LoopGroup group;
  std::vector<xtcp::Timer> timers;
  for (int i = 0; i < armed; ++i) {
    timers.push_back(
        group[0].RunAfter(std::chrono::hours(1) + std::chrono::milliseconds(i), [] {}));
  }
  xtcp::Server server({std::move(handler), std::make_shared<bench::FrameProtocol>()}, group);
  std::error_code error = server.Listen("127.0.0.1:0");
  if (!error) error = server.Start();
  if (!error) {
    std::cout << "echoes on " << server.Addresses().front().ToString() << std::endl;
    error = group.Run();
  }
  throw std::system_error(error);
}

void ReportTimers() {
  const std::string none = "no timers", set = "SetTimer(30s) in each kRecv",
                    beside = "the same, 100,000 armed beside";
  const std::map<std::string, std::function<void()>> bodies{
      {none, [] { ServeWithTimers(std::make_shared<bench::Echo>(), 0); }},
      {set, [] { ServeWithTimers(std::make_shared<TimerEcho>(), 0); }},
      {beside, [] { ServeWithTimers(std::make_shared<TimerEcho>(), 100'000); }}};
  std::map<std::string, std::unique_ptr<Child>> children;
  std::map<std::string, std::string> ports;
  for (const auto& [name, body] : bodies) {
    children[name] = std::make_unique<Child>(body, bench::ServerCpu());
    ports[name] = std::to_string(bench::PortOf(*children[name]));
  }
  const auto all =
      bench::MeasureInRounds(kRounds, {none, set, beside}, [&](const std::string& name) {
        return bench::Run({bench::Sibling("load/load"), "echo", ports[name], "64", "64", "64",
                           std::to_string(kSeconds), "1", std::to_string(children[name]->pid())},
                          bench::LoadCpu());
      });
  bench::Table table("timers", "### Timers set anew with each packet: pipe-64B, 64 connections",
                     {"server", "messages/s", "ratio", "CPU ns/message", "ratio"});
  for (const auto& [name, base] : {std::pair{none, none}, {set, none}, {beside, set}}) {
    table.AddRow(name, {bench::Values(all.at(name), "messages_per_s"),
                        bench::Ratios(all.at(name), all.at(base), "messages_per_s"),
                        bench::Values(all.at(name), "cpu_ns"),
                        bench::Ratios(all.at(name), all.at(base), "cpu_ns")});
  }
  table.Print();
  std::cout << "\nThe ratios of the last line are to the line above it.\n";
}

// --- Dialled connections -------------------------------------------------------------------------

// Sends one frame of 4 KiB, and gets it back, as `load hold` does.
class Asker final : public xtcp::Handler {
 public:
  void OnEvent(xtcp::EventType event, const xtcp::ConnPtr& conn, xtcp::PacketPtr) override {
    std::vector<std::byte> frame(4 + 4096);
    frame[2] = std::byte{4096 >> 8};
    if (event == xtcp::EventType::kConnected && conn->Send(frame)) std::terminate();
    if (event == xtcp::EventType::kRecv) ++answered;
  }
  std::atomic<int> answered{0};
};

void MeasureDialled(const std::string& target, int connections) {
  RunningGroup running;
  const auto asker = std::make_shared<Asker>();
  const auto protocol = std::make_shared<bench::FrameProtocol>();
  const auto dial = [&](int count) {
    constexpr int kAtOnce = 100;
    for (int i = 0; i < count; i += kAtOnce) {
      const int due = asker->answered + kAtOnce;
      for (int k = 0; k < kAtOnce; ++k) {
        const xtcp::ConnPtr conn = xtcp::NewConn({asker, protocol}, running.group[0]);
        if (const std::error_code error = conn->Dial(target)) throw std::system_error(error);
      }
      bench::WaitUntil([&] { return asker->answered == due; });
    }
    bench::Sleep(0.2);
  };
  dial(100);
  const double before = bench::PrivateBytes(getpid());
  dial(connections);
  bench::Print("bytes", (bench::PrivateBytes(getpid()) - before) / connections);
  const double cpu = bench::CpuSeconds();
  const std::uint64_t turns = running.group[0].Stats().turns;
  bench::Sleep(2);
  bench::Print("idle_cpu_ms", (bench::CpuSeconds() - cpu) / 2 * 1e3);
  bench::Print("idle_turns", static_cast<double>(running.group[0].Stats().turns - turns) / 2);
}

void ReportDialled() {
  bench::Table table("dialled",
                     "### Dialled connections that rest on one loop, beside accepted ones",
                     {"connections", "bytes of a dialled one", "of an accepted one", "difference",
                      "CPU ms in a second", "turns in a second"});
  for (const int connections : {1000, 10'000}) {
    Samples dialled, accepted, difference, cpu, turns;
    for (int round = 0; round < 3; ++round) {
      Child floor({bench::Sibling("peers/floor"), "0"});
      const std::string target = "127.0.0.1:" + std::to_string(bench::PortOf(floor));
      const Figures figures = bench::Run([&] { MeasureDialled(target, connections); });
      dialled.push_back(figures.at("bytes"));
      accepted.push_back(bench::IdleBytes({bench::Sibling("echo_server")}, connections));
      difference.push_back(dialled.back() - accepted.back());
      cpu.push_back(figures.at("idle_cpu_ms"));
      turns.push_back(figures.at("idle_turns"));
    }
    table.AddRow(std::to_string(connections), {dialled, accepted, difference, cpu, turns});
  }
  table.Print();
}

// --- A proxy -------------------------------------------------------------------------------------

struct Scenario {
  std::string name, connections, payload, depth;
};
const std::vector<Scenario> kScenarios = {{"ping-100", "100", "64", "1"},
                                          {"pipe-64B", "100", "64", "64"},
                                          {"bulk-64K", "16", "65536", "4"}};

void ReportProxy() {
  std::vector<std::string> names = bench::Peers("proxy", {"libuv", "asio", "libevent"});
  names.push_back("xtcp");
  Child target({bench::Sibling("peers/floor"), "0"}, bench::LoadCpu());
  const std::string target_port = std::to_string(bench::PortOf(target));
  std::map<std::string, std::unique_ptr<Child>> proxies;
  std::map<std::string, std::string> ports;
  for (const std::string& name : names) {
    const std::string program = name == "xtcp" ? "proxy" : "peers/proxy_" + name;
    proxies[name] = std::make_unique<Child>(
        std::vector<std::string>{bench::Sibling(program), target_port, "0"}, bench::ServerCpu());
    ports[name] = std::to_string(bench::PortOf(*proxies[name]));
  }
  bench::Table rate("proxy", "### A proxy: messages a second; more is better",
                    bench::Columns("scenario", names));
  bench::Table cpu("proxy_cpu", "### A proxy: CPU ns/message; less is better",
                   bench::Columns("scenario", names));
  for (const Scenario& scenario : kScenarios) {
    const auto all = bench::MeasureInRounds(kRounds, names, [&](const std::string& name) {
      return bench::Run(
          {bench::Sibling("load/load"), "echo", ports[name], scenario.connections, scenario.payload,
           scenario.depth, std::to_string(kSeconds), "1", std::to_string(proxies[name]->pid())},
          bench::LoadCpu());
    });
    bench::AddRow(scenario.name, names, all, "messages_per_s", &rate);
    bench::AddRow(scenario.name, names, all, "cpu_ns", &cpu);
  }
  rate.Print();
  cpu.Print();
}

const std::map<std::string, void (*)()> kParts = {{"posts", ReportPosts},
                                                  {"timers", ReportTimers},
                                                  {"dialled", ReportDialled},
                                                  {"proxy", ReportProxy}};

}  // namespace

int main(int argc, char** argv) {
  std::vector<std::string> parts(argv + 1, argv + argc);
  if (parts.empty()) parts = {"posts", "timers", "dialled", "proxy"};
  try {
    bench::RaiseDescriptorLimit();
    for (const std::string& part : parts) {
      const auto found = kParts.find(part);
      if (found == kParts.end()) {
        std::cerr << "usage: loops [posts|timers|dialled|proxy]...\n";
        return 2;
      }
      found->second();
    }
  } catch (const std::exception& failure) {
    std::cerr << "loops: " << failure.what() << '\n';
    return 1;
  }
  return 0;
}
