// What a drain costs the clients of a server: nothing, where the page docs/draining.md says so. 200
// clients connect, ask once and close, as fast as they can, on loopback and over a path of 5 ms each
// way, while
//
//   - their server is drained, in 20 rounds, and clients come until it is gone; or is stopped without
//     a drain, to see what would be lost;
//   - a server is replaced 8 times by one that shares its listener;
//   - by one with a listener of its own, and SO_REUSEPORT;
//   - nginx, if it is installed, is told to load its configuration anew.

#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>
#include <xtcp/daemon.h>
#include <xtcp/xtcp.h>

#include <algorithm>
#include <chrono>
#include <csignal>
#include <cstdlib>
#include <exception>
#include <filesystem>
#include <fstream>
#include <functional>
#include <iostream>
#include <memory>
#include <sstream>
#include <stdexcept>
#include <string>
#include <system_error>
#include <utility>
#include <vector>

#include "support/delayed_path.h"
#include "support/frames.h"
#include "support/process.h"
#include "support/report.h"
#include "support/storm.h"

namespace {

using bench::Child;
using bench::Figures;
using namespace std::chrono_literals;

constexpr int kRounds = 20;
constexpr int kHandOvers = 8;
constexpr int kRequests = 20'000;  // and more, if the hand-overs take longer
constexpr double kDelay = 0.005;   // seconds, each way
const std::string kFrame("\0\0\0\4ping", 8);
constexpr const char* kCounts[] = {"answered", "refused", "reset", "unanswered", "slowest_ms"};

// Where servers listen, and where their clients connect to.
struct Path {
  std::string local = "127.0.0.1";
  std::string remote = "127.0.0.1";
};

// --- The servers ---------------------------------------------------------------------------------

using Opens = std::function<std::error_code(xtcp::Server&)>;

// A server in a process of its own, which SIGTERM drains, and then stops.
class Server {
 public:
  explicit Server(const Opens& opens, bool reuse_port = false, std::chrono::seconds drain = 5s)
      : child_([&] { Serve(opens, reuse_port, drain); }, bench::ServerCpu()),
        port_(std::stoi(child_.ReadLine())) {}

  int port() const { return port_; }
  void End() {
    kill(child_.pid(), SIGTERM);
    child_.ReadFigures();
  }

 private:
  static void Serve(const Opens& opens, bool reuse_port, std::chrono::seconds drain) {
    xtcp::Server server({.handler = std::make_shared<bench::Echo>(),
                         .protocol = std::make_shared<bench::FrameProtocol>(),
                         .drain_grace = 300ms,
                         .reuse_port = reuse_port});
    if (const auto error = opens(server)) throw std::system_error(error);
    std::cout << server.Addresses().front().Port() << std::endl;
    if (const auto error = ServeUntilSignal(server, {.signals = {SIGTERM}, .drain = drain})) {
      throw std::system_error(error);
    }
  }

  Child child_;
  const int port_;
};

Opens Listening(const Path& path, int port = 0) {
  return
      [=](xtcp::Server& server) { return server.Listen(path.local + ":" + std::to_string(port)); };
}

// A listener that outlives the servers that share it.
class SharedListener {
 public:
  explicit SharedListener(const Path& path) {
    sockaddr_in address{};
    address.sin_family = AF_INET;
    inet_pton(AF_INET, path.local.c_str(), &address.sin_addr);
    if (bind(fd_, reinterpret_cast<sockaddr*>(&address), sizeof address) != 0 ||
        listen(fd_, 4096) != 0) {
      throw std::system_error(errno, std::generic_category(), "listen");
    }
  }
  ~SharedListener() { close(fd_); }
  SharedListener(const SharedListener&) = delete;
  SharedListener& operator=(const SharedListener&) = delete;

  Opens Adopted() const {
    return [fd = fd_](xtcp::Server& server) { return server.Adopt(dup(fd)); };
  }

 private:
  const int fd_ = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
};

// --- What is measured ----------------------------------------------------------------------------

std::unique_ptr<Child> StartStorm(const bench::StormPlan& plan) {
  return std::make_unique<Child>([&] { Storm(plan); }, bench::LoadCpu());
}

Figures End(Child& storm) {
  storm.WriteLine("end");
  return storm.ReadFigures();
}

// Ends a server in the middle of each round.
Figures Rounds(const Path& path, std::chrono::seconds drain) {
  Figures total;
  for (int round = 0; round < kRounds; ++round) {
    Server server(Listening(path), false, drain);
    const auto storm = StartStorm({.host = path.remote,
                                   .port = server.port(),
                                   .ask = kFrame,
                                   .answer = kFrame,
                                   .report_each = 1'000 + 10 * round});
    storm->ReadLine();
    server.End();
    const double slowest = total["slowest_ms"];
    const Figures figures = End(*storm);
    for (const auto& [name, count] : figures) total[name] += count;
    total["slowest_ms"] = std::max(slowest, figures.at("slowest_ms"));
  }
  return total;
}

Figures Drained(const Path& path) { return Rounds(path, 5s); }
Figures Stopped(const Path& path) { return Rounds(path, 0s); }

// Lets `replace` put another server in the place of the one that serves, again and again.
Figures HandOvers(bench::StormPlan plan, const std::function<void()>& replace) {
  plan.report_each = kRequests / kHandOvers;
  const auto storm = StartStorm(plan);
  for (int i = 0; i < kHandOvers; ++i) {
    storm->ReadLine();
    replace();
  }
  return End(*storm);
}

Figures Replace(const Path& path, std::unique_ptr<Server> server,
                const std::function<std::unique_ptr<Server>()>& start) {
  const bench::StormPlan plan{
      .host = path.remote, .port = server->port(), .ask = kFrame, .answer = kFrame};
  return HandOvers(plan, [&] {
    auto next = start();
    server->End();
    server = std::move(next);
  });
}

Figures ReplaceSharing(const Path& path) {
  const SharedListener listener(path);
  const auto start = [&] { return std::make_unique<Server>(listener.Adopted()); };
  return Replace(path, start(), start);
}

Figures ReplaceOnSamePort(const Path& path) {
  auto first = std::make_unique<Server>(Listening(path), true);
  const int port = first->port();
  return Replace(path, std::move(first),
                 [&, port] { return std::make_unique<Server>(Listening(path, port), true); });
}

struct Measurement {
  const char* name;
  Figures (*run)(const Path&);
};
constexpr Measurement kMeasurements[] = {
    {"drained 20 times", Drained},
    {"stopped 20 times", Stopped},
    {"replaced 8 times, one listener", ReplaceSharing},
    {"replaced 8 times, SO_REUSEPORT", ReplaceOnSamePort},
};

void AddRow(bench::Table& table, const std::string& name, const Figures& figures) {
  std::vector<double> counts;
  for (const char* count : kCounts) counts.push_back(figures.at(count));
  table.AddCounts(name, counts);
}

void MeasureOnLoopback(bench::Table& table) {
  for (const auto& [name, run] : kMeasurements) AddRow(table, name, run({}));
}

// In a process of its own, which leaves our network.
void RunDelayed() {
  std::unique_ptr<bench::DelayedPath> path;
  try {
    path = std::make_unique<bench::DelayedPath>(kDelay);
  } catch (const std::system_error& refusal) {
    std::cout << "left out: " << refusal.what() << std::endl;
    return;
  }
  std::cout << "runs" << std::endl;
  for (const auto& [name, run] : kMeasurements) {
    std::ostringstream line;
    const Figures figures = run({bench::DelayedPath::kLocal, bench::DelayedPath::kRemote});
    for (const auto& [count, value] : figures) line << count << ' ' << value << ' ';
    std::cout << line.str() << std::endl;
  }
}

void MeasureDelayed(bench::Table& table) {
  Child inside(RunDelayed);
  if (const std::string line = inside.ReadLine(); line != "runs") {
    std::cout << "\nwith 5 ms each way: " << line << '\n';
    return;
  }
  for (const auto& [name, run] : kMeasurements) {
    std::istringstream line(inside.ReadLine());
    Figures figures;
    for (std::string count; line >> count;) line >> figures[count];
    AddRow(table, std::string(name) + ", 5 ms", figures);
  }
}

// --- nginx ---------------------------------------------------------------------------------------

// nginx with one worker, in a folder of its own.
class Nginx {
 public:
  Nginx() {
    std::string name = (std::filesystem::temp_directory_path() / "nginx.XXXXXX").string();
    if (mkdtemp(name.data()) == nullptr) throw std::runtime_error("no folder for nginx");
    folder_ = name;
    // It cannot say which port it was given.
    port_ = Server(Listening({})).port();
    std::ofstream(folder_ / "nginx.conf")
        << "daemon off; worker_processes 1; pid " << name << "/pid; error_log stderr crit;\n"
        << "events { worker_connections 2048; }\n"
        << "http { access_log off; client_body_temp_path a; proxy_temp_path b; fastcgi_temp_path "
           "c;\n"
        << "uwsgi_temp_path d; scgi_temp_path e; server { listen 127.0.0.1:" << port_
        << " backlog=4096; location / { return 200 ok; } } }\n";
    child_ = std::make_unique<Child>(
        std::vector<std::string>{"nginx", "-p", name, "-c", name + "/nginx.conf"},
        bench::ServerCpu());
    bench::WaitUntil([&] { return std::filesystem::exists(folder_ / "pid"); });
  }
  ~Nginx() {
    // By a signal, at which it ends its workers, too.
    kill(child_->pid(), SIGTERM);
    try {
      child_->ReadFigures();
    } catch (const std::exception& failure) {
      std::cerr << "nginx: " << failure.what() << '\n';
    }
    std::filesystem::remove_all(folder_);
  }
  Nginx(const Nginx&) = delete;
  Nginx& operator=(const Nginx&) = delete;

  int port() const { return port_; }
  void Reload() { kill(child_->pid(), SIGHUP); }

 private:
  std::filesystem::path folder_;
  int port_ = 0;
  std::unique_ptr<Child> child_;
};

void MeasureNginx(bench::Table& table) {
  if (std::system("command -v nginx >/dev/null") != 0) {
    std::cout << "\nnginx: left out: it is not installed\n";
    return;
  }
  Nginx nginx;
  const Figures figures = HandOvers({.host = "127.0.0.1",
                                     .port = nginx.port(),
                                     .ask = "GET / HTTP/1.0\r\n\r\n",
                                     .answer = "HTTP/1.1 200"},
                                    [&] { nginx.Reload(); });
  AddRow(table, "nginx reloaded 8 times", figures);
}

}  // namespace

int main() {
  try {
    bench::Table table("drain", "### 200 clients, each request on a connection of its own",
                       {"server", "answered", "refused", "reset", "unanswered", "slowest ms"});
    MeasureOnLoopback(table);
    MeasureDelayed(table);
    MeasureNginx(table);
    table.Print();
  } catch (const std::exception& failure) {
    std::cerr << "drain: " << failure.what() << '\n';
    return 1;
  }
  return 0;
}
