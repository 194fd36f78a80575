// What an echo costs, by the number of connections, the size of the frames, and how many of them
// are on their way at the same time.
//
//   echo           xtcp alone
//   echo --peers   and beside it, as ratios, the floor (peers/floor.cc) and the same server on asio,
//                  libuv and libevent, where they are installed
//
// Each server has one thread, on the first processor; the load runs on the second. All servers are
// measured in each round, and each ratio is to the floor of the same round.

#include <unistd.h>

#include <exception>
#include <iostream>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "support/idle.h"
#include "support/process.h"
#include "support/report.h"
#include "support/rounds.h"

namespace {

using bench::Child;
using bench::Figures;
using bench::Samples;

struct Scenario {
  std::string name;
  int connections;
  int payload;  // bytes
  int depth;    // frames on their way, a connection
};

const std::vector<Scenario> kScenarios = {
    {"ping-1", 1, 64, 1},      {"ping-100", 100, 64, 1},  {"ping-1000", 1000, 64, 1},
    {"pipe-64B", 100, 64, 64}, {"pipe-4K", 100, 4096, 8}, {"bulk-64K", 16, 64 << 10, 4},
};
const std::string kChurn = "churn";
constexpr double kSeconds = 0.6;
constexpr int kIdleConnections = 10'000;

struct Server {
  std::string name;
  std::vector<std::string> command;
};

// --- Measuring -----------------------------------------------------------------------------------

// The servers that run, each in a process, and the load beside them.
class Arena {
 public:
  explicit Arena(const std::vector<Server>& servers) : servers_(servers) {
    for (const Server& server : servers) {
      auto command = server.command;
      command.push_back("0");
      children_.push_back(std::make_unique<Child>(command, bench::ServerCpu()));
      ports_.push_back(std::to_string(bench::PortOf(*children_.back())));
    }
  }

  // Runs `load` against each server in turn, and `rounds` times; another begins each round.
  bench::Rounds Measure(int rounds, const Scenario* scenario) const {
    bench::Rounds all;
    for (int round = 0; round < rounds; ++round) {
      for (std::size_t i = 0; i < servers_.size(); ++i) {
        const std::size_t turn = (i + static_cast<std::size_t>(round)) % servers_.size();
        all[servers_[turn].name].push_back(MeasureOne(turn, scenario));
      }
    }
    return all;
  }

 private:
  Figures MeasureOne(std::size_t index, const Scenario* scenario) const {
    const std::string load = bench::Sibling("load/load");
    const std::string pid = std::to_string(children_[index]->pid());
    const std::string seconds = std::to_string(kSeconds);
    if (scenario == nullptr) {
      return bench::Run({load, "churn", ports_[index], seconds, pid}, bench::LoadCpu());
    }
    return bench::Run(
        {load, "echo", ports_[index], std::to_string(scenario->connections),
         std::to_string(scenario->payload), std::to_string(scenario->depth), seconds, "1", pid},
        bench::LoadCpu());
  }

  const std::vector<Server> servers_;
  std::vector<std::unique_ptr<Child>> children_;
  std::vector<std::string> ports_;
};

// --- Reporting -----------------------------------------------------------------------------------

void ReportAlone(const Server& xtcp) {
  bench::Table echo("echo", "### Echo: xtcp, one loop",
                    {"scenario", "messages/s", "CPU ns/message", "p50 us", "p99 us", "p99.9 us"});
  const Arena arena({xtcp});
  for (const Scenario& scenario : kScenarios) {
    const bench::Rounds all = arena.Measure(3, &scenario);
    const std::vector<Figures>& rounds = all.at("xtcp");
    echo.AddRow(scenario.name, {bench::Values(rounds, "messages_per_s"),
                                bench::Values(rounds, "cpu_ns"), bench::Values(rounds, "p50_us"),
                                bench::Values(rounds, "p99_us"), bench::Values(rounds, "p999_us")});
  }
  echo.Print();
}

void ReportBeside(const std::vector<Server>& servers) {
  std::vector<std::string> columns{"scenario"};
  for (const Server& server : servers) columns.push_back(server.name);
  const std::string note = " The floor in itself, others as ratio to it; churn: connections";
  bench::Table rate("rate", "### Messages a second; more is better." + note, columns);
  bench::Table cpu("cpu", "### CPU ns/message of the server; less is better." + note, columns);
  bench::Table latency("latency", "### Round trip of ping-100, in microseconds",
                       {"server", "p50", "p90", "p99", "p99.9"});
  bench::Table tails("tails", "### 99th percentile of the round trip, in microseconds", columns);

  const Arena arena(servers);
  const auto add_ratios = [&](const std::string& name, const bench::Rounds& all,
                              const std::string& figure, bench::Table* table) {
    std::vector<Samples> cells;
    for (const Server& server : servers) {
      const auto& rounds = all.at(server.name);
      const auto& floor = all.at("floor");
      cells.push_back(server.name == "floor" ? bench::Values(floor, figure)
                                             : bench::Ratios(rounds, floor, figure));
    }
    table->AddRow(name, cells);
  };
  for (const Scenario& scenario : kScenarios) {
    const bench::Rounds all = arena.Measure(5, &scenario);
    add_ratios(scenario.name, all, "messages_per_s", &rate);
    add_ratios(scenario.name, all, "cpu_ns", &cpu);
    std::vector<Samples> tail;
    for (const Server& server : servers) {
      const auto& rounds = all.at(server.name);
      tail.push_back(bench::Values(rounds, "p99_us"));
      if (scenario.name != "ping-100") continue;
      latency.AddRow(server.name,
                     {bench::Values(rounds, "p50_us"), bench::Values(rounds, "p90_us"),
                      bench::Values(rounds, "p99_us"), bench::Values(rounds, "p999_us")});
    }
    tails.AddRow(scenario.name, tail);
  }
  const bench::Rounds churn = arena.Measure(5, nullptr);
  add_ratios(kChurn, churn, "connections_per_s", &rate);
  add_ratios(kChurn, churn, "cpu_ns", &cpu);

  bench::Table idle("idle", "### Memory of an idle connection, in bytes", {"server", "bytes"});
  for (const Server& server : servers) {
    idle.AddRow(server.name, {{bench::IdleBytes(server.command, kIdleConnections)}});
  }

  for (const bench::Table* table : {&rate, &cpu, &latency, &tails, &idle}) table->Print();
}

}  // namespace

int main(int argc, char** argv) {
  const bool peers = argc == 2 && std::string(argv[1]) == "--peers";
  if (argc > 1 && !peers) {
    std::cerr << "usage: echo [--peers]\n";
    return 2;
  }
  try {
    bench::RaiseDescriptorLimit();
    const Server xtcp{"xtcp", {bench::Sibling("echo_server")}};
    if (!peers) {
      ReportAlone(xtcp);
      return 0;
    }
    std::vector<Server> servers{{"floor", {bench::Sibling("peers/floor")}}, xtcp};
    for (const std::string name : {"asio", "libuv", "libevent"}) {
      const std::string program = bench::Sibling("peers/" + name);
      if (access(program.c_str(), X_OK) == 0) {
        servers.push_back({name, {program}});
      } else {
        std::cout << "left out: " << name << " is not installed" << std::endl;
      }
    }
    ReportBeside(servers);
  } catch (const std::exception& failure) {
    std::cerr << "echo: " << failure.what() << '\n';
    return 1;
  }
  return 0;
}
