// What it costs to answer with bytes that all answers share.
//
// Answers of 64 KiB after a head of 4 bytes: `SendParts` of a copied head and a shared body beside a
// `Send` of each, which copies, and beside writev(2) by hand (peers/shared_floor.cc). 16 connections,
// 4 requests on their way on each. All are measured in each round, another first in each; each ratio
// is to the floor of the same round. Each round starts its servers anew: nearly all of the time is
// the kernel's copy out of 64 KiB, and how fast that is depends on the pages that a process was
// given. The floor comes twice, so that one sees what of a ratio is chance.
//
// A broadcast of 64 KiB to 1,000 clients that read nothing for now: the memory that the process holds
// for it. The kernel's buffers are as small as it lets them be, so that most of the bytes wait here.

#include <malloc.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <ctime>
#include <exception>
#include <functional>
#include <iostream>
#include <memory>
#include <stdexcept>
#include <string>
#include <string_view>
#include <system_error>
#include <thread>
#include <vector>

#include "support/client.h"
#include "support/frames.h"
#include "support/process.h"
#include "support/report.h"
#include "support/server.h"

namespace {

using bench::Child;
using bench::Samples;
using std::string_view_literals::operator""sv;

constexpr int kRounds = 25;
constexpr double kSeconds = 0.3;
constexpr int kConnections = 16;
constexpr int kDepth = 4;
constexpr std::size_t kBody = 64 << 10;
constexpr std::string_view kHead = "\0\1\0\0"sv;  // kBody, in big-endian
constexpr std::string_view kRequest = "\0\0\0\0"sv;
constexpr int kReaders = 1'000;

// --- The servers ---------------------------------------------------------------------------------

// One answer.
using Body = std::shared_ptr<const std::string>;
using Answer = std::error_code (*)(xtcp::Conn&, const Body&);

std::error_code Shared(xtcp::Conn& conn, const Body& body) { return conn.SendParts({kHead, body}); }

std::error_code Copied(xtcp::Conn& conn, const Body& body) {
  if (const auto error = conn.Send(kHead)) return error;
  return conn.Send(*body);
}

class Answers final : public xtcp::Handler {
 public:
  explicit Answers(Answer answer) : answer_(answer) {}
  void OnEvent(xtcp::EventType event, const xtcp::ConnPtr& conn, xtcp::PacketPtr) override {
    if (event != xtcp::EventType::kRecv) return;
    if (answer_(*conn, body_)) conn->Stop(xtcp::StopMode::kImmediately);
  }

 private:
  const Answer answer_;
  const Body body_ = std::make_shared<std::string>(kBody, 'x');
};

// Until it is killed.
void Serve(Answer answer) {
  xtcp::Server server({.handler = std::make_shared<Answers>(answer),
                       .protocol = std::make_shared<bench::FrameProtocol>()});
  bench::ServeAndSayWhere(server);
}

// --- The load ------------------------------------------------------------------------------------

[[noreturn]] void Fail(const char* what) {
  throw std::system_error(errno, std::generic_category(), what);
}

// A client, and how far it is in the answers that come. `buffer` is the size of what the kernel
// keeps for it, or 0 for the system's value.
class Client {
 public:
  explicit Client(int port, int buffer = 0) : fd_(bench::ConnectTo(port, buffer)) {}
  ~Client() { close(fd_); }
  Client(const Client&) = delete;
  Client& operator=(const Client&) = delete;

  int fd() const { return fd_; }
  std::size_t answers() const { return received_ / kAnswer; }
  std::size_t received() const { return received_; }

  void Ask(int times) {
    std::string requests;
    for (int i = 0; i < times; ++i) requests += kRequest;
    if (send(fd_, requests.data(), requests.size(), MSG_NOSIGNAL) != ssize_t(requests.size())) {
      Fail("send");
    }
  }

  // Looks at every byte. Returns how many answers are complete by it.
  int Receive() {
    static std::vector<char> room(256 << 10);
    static const std::string expected = Repeated(room.size());
    const ssize_t n = recv(fd_, room.data(), room.size(), MSG_DONTWAIT);
    if (n < 0 && errno == EAGAIN) return 0;
    if (n <= 0) Fail("recv");
    const std::size_t before = answers();
    if (std::memcmp(room.data(), expected.data() + received_ % kAnswer, std::size_t(n)) != 0) {
      throw std::runtime_error("a wrong answer");
    }
    received_ += static_cast<std::size_t>(n);
    return static_cast<int>(answers() - before);
  }

 private:
  static constexpr std::size_t kAnswer = kHead.size() + kBody;

  // Answers one after the other, so many bytes and one answer more.
  static std::string Repeated(std::size_t bytes) {
    std::string all;
    while (all.size() < bytes + kAnswer) all.append(kHead).append(kBody, 'x');
    return all;
  }

  const int fd_;
  std::size_t received_ = 0;
};

using Clients = std::vector<std::unique_ptr<Client>>;

// Lets those that have something receive it.
void Turn(const Clients& clients, const std::function<void(Client&, int)>& answered) {
  static std::vector<pollfd> sockets;
  sockets.clear();
  for (const auto& client : clients) sockets.push_back({client->fd(), POLLIN, 0});
  if (poll(sockets.data(), sockets.size(), 10'000) <= 0) Fail("no answer");
  for (std::size_t i = 0; i < clients.size(); ++i) {
    if (sockets[i].revents == 0) continue;
    if (const int answers = clients[i]->Receive(); answers > 0) answered(*clients[i], answers);
  }
}

double CpuSecondsOf(pid_t pid) {
  clockid_t clock;
  timespec time{};
  if (clock_getcpuclockid(pid, &clock) != 0 || clock_gettime(clock, &time) != 0) Fail("no clock");
  return static_cast<double>(time.tv_sec) + static_cast<double>(time.tv_nsec) / 1e9;
}

struct Cost {
  double cpu_ns;  // for one answer
  double answers_per_s;
};

Cost Load(int port, pid_t server) {
  Clients clients;
  for (int i = 0; i < kConnections; ++i) {
    clients.push_back(std::make_unique<Client>(port));
    clients.back()->Ask(kDepth);
  }
  const auto run = [&](double seconds) {
    double count = 0;
    for (const double end = bench::Seconds() + seconds; bench::Seconds() < end;) {
      Turn(clients, [&](Client& client, int answers) {
        count += answers;
        client.Ask(answers);
      });
    }
    return count;
  };
  run(kSeconds / 4);
  const double begin = bench::Seconds(), cpu = CpuSecondsOf(server);
  const double count = run(kSeconds);
  return {(CpuSecondsOf(server) - cpu) / count * 1e9, count / (bench::Seconds() - begin)};
}

void MeasureAnswers() {
  struct Server {
    const char* name;
    std::function<std::unique_ptr<Child>()> start;
    Samples cpu{}, cpu_ratio{}, rate{}, rate_ratio{};
  };
  const auto floor = [] {
    const std::vector<std::string> command{bench::Sibling("peers/shared_floor")};
    return std::make_unique<Child>(command, bench::ServerCpu());
  };
  const auto ours = [](Answer answer) {
    return std::make_unique<Child>([answer] { Serve(answer); }, bench::ServerCpu());
  };
  Server servers[] = {
      {"writev by hand", floor},
      {"writev by hand, again", floor},
      {"SendParts", [&] { return ours(Shared); }},
      {"Send, which copies", [&] { return ours(Copied); }},
  };
  for (std::size_t round = 0; round < kRounds; ++round) {
    for (std::size_t i = 0; i < std::size(servers); ++i) {
      Server& server = servers[(i + round) % std::size(servers)];
      const std::unique_ptr<Child> child = server.start();
      const Cost cost = Load(bench::PortOf(*child), child->pid());
      server.cpu.push_back(cost.cpu_ns);
      server.rate.push_back(cost.answers_per_s);
    }
    for (Server& server : servers) {
      server.cpu_ratio.push_back(server.cpu.back() / servers[0].cpu.back());
      server.rate_ratio.push_back(server.rate.back() / servers[0].rate.back());
    }
  }
  bench::Table table("shared", "### Answers of 64 KiB that share their body",
                     {"server", "CPU ns/answer", "ratio", "answers/s", "ratio"});
  for (const Server& server : servers) {
    table.AddRow(server.name, {server.cpu, server.cpu_ratio, server.rate, server.rate_ratio});
  }
  table.Print();
}

// --- A broadcast ---------------------------------------------------------------------------------

// A listener whose connections have send buffers as small as may be.
int SmallListener() {
  const int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  const int least = 1;
  setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &least, sizeof least);
  if (bind(fd, reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0 ||
      listen(fd, 4096) != 0) {
    Fail("listen");
  }
  return fd;
}

// Sends to all once they are there, and says what it holds then, and when all have read.
void Broadcast(Answer answer) {
  const auto handler = std::make_shared<bench::Collector>();
  xtcp::Server server({.handler = handler, .protocol = std::make_shared<bench::FrameProtocol>()});
  if (const auto error = server.Adopt(SmallListener())) throw std::system_error(error);
  std::jthread serving([&] { static_cast<void>(server.Serve()); });
  std::cout << "on " << server.Addresses().front().ToString() << std::endl;
  bench::WaitUntil([&] { return handler->conns().size() == kReaders; });
  const double before = bench::PrivateBytes(getpid());
  Body body = std::make_shared<std::string>(kBody, 'x');
  for (const xtcp::ConnPtr& conn : handler->conns()) {
    if (const auto error = answer(*conn, body)) throw std::system_error(error);
  }
  body.reset();
  bench::Sleep(0.3);  // the kernel takes what it takes
  const auto queued = static_cast<double>(server.Stats().unsent_bytes);
  const double held = bench::PrivateBytes(getpid()) - before;
  bench::Print("queued", queued);
  std::string all_have_read;
  std::getline(std::cin, all_have_read);
  bench::Print("held", held);
  malloc_trim(0);
  bench::Print("after", bench::PrivateBytes(getpid()) - before);
  server.Stop(xtcp::StopMode::kImmediately);
}

void MeasureBroadcast() {
  bench::Table table("broadcast", "### A broadcast of 64 KiB to 1,000 clients that do not read",
                     {"send", "bytes queued", "memory held", "a client",
                      "after all have read, and malloc_trim(3)"});
  for (const Answer answer : {Shared, Copied}) {
    Child server([answer] { Broadcast(answer); });
    const int port = bench::PortOf(server);
    Clients clients;
    for (int i = 0; i < kReaders; ++i) clients.push_back(std::make_unique<Client>(port, 1));
    const std::string line = server.ReadLine();
    const double queued = std::stod(line.substr(line.find(' ')));
    for (int open = kReaders; open > 0;) {
      Turn(clients, [&](Client&, int answers) { open -= answers; });
    }
    server.WriteLine("read");
    bench::Figures figures = server.ReadFigures();
    table.AddCounts(answer == Shared ? "SendParts" : "Send",
                    {queued, figures["held"], figures["held"] / kReaders, figures["after"]});
  }
  table.Print();
}

}  // namespace

int main() {
  try {
    bench::RaiseDescriptorLimit();
    MeasureAnswers();
    MeasureBroadcast();
  } catch (const std::exception& failure) {
    std::cerr << "shared: " << failure.what() << '\n';
    return 1;
  }
  return 0;
}
