// The parts of the library alone, without the kernel: its seam is replaced by micro/no_kernel.cc.
//
//   micro            a table: nanoseconds and instructions of an operation
//   micro NAME N     runs N operations, for a profiler
//
// Instructions are counted by valgrind's callgrind, where it is installed: the difference between a
// run with 2N and one with N, divided by N. Nanoseconds are of warm caches and a branch predictor
// that has seen nothing else, so they are the least that an operation can take.

#include <unistd.h>

#include <chrono>
#include <cstdint>
#include <cstdlib>
#include <exception>
#include <fstream>
#include <functional>
#include <iostream>
#include <memory>
#include <random>
#include <span>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

#include "buffer/block_pool.h"
#include "buffer/inbound_buffer.h"
#include "buffer/outbound_buffer.h"
#include "micro/no_kernel.h"
#include "reactor/mailbox.h"
#include "reactor/timer_queue.h"
#include "support/frames.h"
#include "support/process.h"
#include "support/report.h"

namespace {

using namespace xtcp::internal;
using bench::Samples;

const std::vector<std::byte> kMessage(64);

void Check(bool good) {
  if (!good) throw std::runtime_error("a wrong result");
}

// --- The operations ------------------------------------------------------------------------------

// The rest of a packet comes into the buffer and leaves it; the block is kept.
void Inbound(std::uint64_t n) {
  BlockPool pool;
  InboundBuffer buffer;
  Check(buffer.Append(kMessage, 4096, pool));
  for (std::uint64_t i = 0; i < n; ++i) {
    Check(buffer.Append(kMessage, 4096, pool));
    Check(buffer.View().size() == 2 * kMessage.size());
    buffer.Consume(kMessage.size(), pool);
  }
  buffer.Clear(pool);
}

// The same with a buffer that is empty in between, as a connection that had half a packet: its block
// comes from the pool and goes back.
void InboundFromPool(std::uint64_t n) {
  BlockPool pool;
  InboundBuffer buffer;
  for (std::uint64_t i = 0; i < n; ++i) {
    Check(buffer.Append(kMessage, 4096, pool));
    buffer.Consume(kMessage.size(), pool);
  }
}

// 64 messages are queued, gathered and taken; an operation is one message.
void Outbound(std::uint64_t n) {
  BlockPool pool;
  OutboundBuffer buffer, released;
  iovec parts[16];
  for (std::uint64_t i = 0; i < n; i += 64) {
    for (int k = 0; k < 64; ++k) Check(buffer.Append(kMessage, pool));
    Check(buffer.Gather(parts, 16) == 1);
    buffer.Consume(64 * kMessage.size(), pool, released);
  }
}

// What senders on other threads queued moves to the loop's side: one message each time.
void Splice(std::uint64_t n) {
  BlockPool pool;
  OutboundBuffer pending, sending, released;
  for (std::uint64_t i = 0; i < n; ++i) {
    Check(pending.Append(kMessage, pool));
    sending.Splice(pending, pool);
    sending.Consume(kMessage.size(), pool, released);
  }
}

// Serves a client that sends `frames` frames of 64 bytes with each read, n in all: the poller,
// Unpack, OnEvent, Send and one write a read. With `timer` each frame sets the connection's timer.
void Serve(std::uint64_t n, std::uint64_t frames, bool timer = false) {
  class Once : public bench::Echo {
   public:
    void OnEvent(xtcp::EventType event, const xtcp::ConnPtr& conn,
                 xtcp::PacketPtr packet) override {
      if (event == xtcp::EventType::kClosed) server->Stop(xtcp::StopMode::kGracefullyButNotWait);
      if (timer && event == xtcp::EventType::kRecv) conn->SetTimer(std::chrono::seconds(30));
      bench::Echo::OnEvent(event, conn, std::move(packet));
    }
    xtcp::Server* server = nullptr;
    bool timer = false;
  };
  std::vector<std::byte> frame(4 + 64);
  frame[3] = std::byte{64};
  bench::no_kernel = {};
  for (std::uint64_t i = 0; i < frames; ++i) {
    auto& input = bench::no_kernel.input;
    input.insert(input.end(), frame.begin(), frame.end());
  }
  bench::no_kernel.times = n / frames;
  const auto handler = std::make_shared<Once>();
  xtcp::Server server({handler, std::make_shared<bench::FrameProtocol>()});
  handler->server = &server;
  handler->timer = timer;
  Check(!server.Listen("127.0.0.1:1"));
  Check(!server.Serve());
  Check(bench::no_kernel.sent_bytes == n / frames * frames * frame.size());
}
void ServeOne(std::uint64_t n) { Serve(n, 1); }
void ServeMany(std::uint64_t n) { Serve(n, 64); }
void ServeManyTimed(std::uint64_t n) { Serve(n, 64, true); }

// A task is posted to a loop that is turned by hand, and runs; 64 of them in each turn.
void RunTask(std::uint64_t n) {
  bench::no_kernel = {};
  xtcp::LoopGroup group;
  const xtcp::Loop loop = group[0];
  std::uint64_t run = 0;
  for (std::uint64_t i = 0; i < n; i += 64) {
    for (int k = 0; k < 64; ++k) Check(!loop.Post([&run] { ++run; }));
    Check(!group.RunOnce(std::chrono::milliseconds(0)));
  }
  Check(run >= n);
}

// A channel that only is in mailboxes and timer queues.
class Post final : public Channel {
 public:
  bool Claim() { return ClaimPost(); }
  void HandleEvents(std::uint32_t) override {}
  void HandleTimer() override {}
  void HandlePosted() override {}
  void HandleRetired() override {}
};

// A post to a loop that is awake, and its way out of the box.
void PostAwake(std::uint64_t n) {
  Mailbox mailbox;
  Check(!mailbox.Open());
  Post post;
  for (std::uint64_t i = 0; i < n; ++i) {
    if (post.Claim()) mailbox.Push(&post);
    Check(Mailbox::Next(mailbox.TakeAll()) == nullptr);
  }
  mailbox.Close();
}

// The same with a loop that sleeps each time, so that each post wakes it. The system call itself is
// not in it; see the wake-ups of threads.cc.
void PostAsleep(std::uint64_t n) {
  bench::no_kernel = {};
  Mailbox mailbox;
  Check(!mailbox.Open());
  Post post;
  for (std::uint64_t i = 0; i < n; ++i) {
    Check(mailbox.AboutToSleep());
    if (post.Claim()) mailbox.Push(&post);
    mailbox.Awake();
    Check(Mailbox::Next(mailbox.TakeAll()) == nullptr);
  }
  Check(bench::no_kernel.wakes == n);
  mailbox.Close();
}

// A timer is set anew, among 10,000, to a random time.
void TimerArm(std::uint64_t n) {
  constexpr std::size_t kTimers = 10'000;
  const auto posts = std::make_unique<Post[]>(kTimers);
  TimerQueue timers;
  timers.Reserve(kTimers);
  std::minstd_rand random(1);
  for (std::size_t i = 0; i < kTimers; ++i) timers.Arm(&posts[i], TimerQueue::Time(random()));
  for (std::uint64_t i = 0; i < n; ++i) {
    timers.Arm(&posts[i % kTimers], TimerQueue::Time(random()));
  }
  for (std::size_t i = 0; i < kTimers; ++i) timers.Disarm(&posts[i]);
}

// The first of 10,000 timers comes due and is set again, behind all others.
void TimerDue(std::uint64_t n) {
  constexpr std::size_t kTimers = 10'000;
  const auto posts = std::make_unique<Post[]>(kTimers);
  TimerQueue timers;
  timers.Reserve(kTimers);
  std::int64_t now = 0;
  for (std::size_t i = 0; i < kTimers; ++i) timers.Arm(&posts[i], TimerQueue::Time(now++));
  for (std::uint64_t i = 0; i < n; ++i) {
    Channel* due = timers.TakeDue(TimerQueue::Time(now));
    Check(due != nullptr);
    timers.Arm(due, TimerQueue::Time(now++));
  }
  for (std::size_t i = 0; i < kTimers; ++i) timers.Disarm(&posts[i]);
}

struct Operation {
  std::string name;
  std::string what;
  void (*run)(std::uint64_t n);
};
const std::vector<Operation> kOperations = {
    {"inbound", "inbound buffer: append and consume 64 bytes", Inbound},
    {"inbound-pool", "the same with a block from the pool", InboundFromPool},
    {"outbound", "outbound buffer: queue and take 64 bytes", Outbound},
    {"splice", "the same over the two sides", Splice},
    {"serve-1", "Unpack + OnEvent + Send: 1 frame a read", ServeOne},
    {"serve-64", "the same with 64 frames a read", ServeMany},
    {"serve-64-timer", "and SetTimer(30s) for each frame", ServeManyTimed},
    {"task", "Loop::Post, and the task: 64 a turn", RunTask},
    {"post", "mailbox: post to a loop awake", PostAwake},
    {"wake", "mailbox: post to a loop asleep", PostAsleep},
    {"arm", "timer: set anew among 10000", TimerArm},
    {"due", "timer: first of 10000 due and set again", TimerDue},
};

// --- Measuring -----------------------------------------------------------------------------------

double Nanoseconds(const Operation& operation) {
  constexpr std::uint64_t kOperationsTimed = 64 << 10;
  const double begin = bench::Seconds();
  operation.run(kOperationsTimed);
  const double once = bench::Seconds();
  operation.run(2 * kOperationsTimed);
  const double twice = bench::Seconds();
  return ((twice - once) - (once - begin)) / static_cast<double>(kOperationsTimed) * 1e9;
}

// All instructions of `micro NAME N`, start and end of the program included.
double CountInstructions(const std::string& name, std::uint64_t n) {
  const std::string file = "/tmp/xtcp-micro." + std::to_string(getpid());
  bench::Child child({"valgrind", "--tool=callgrind", "--callgrind-out-file=" + file, "--quiet",
                      bench::Sibling("micro"), name, std::to_string(n)});
  child.ReadFigures();
  std::ifstream lines(file);
  std::string word;
  double instructions = -1;
  while (lines >> word) {
    if (word == "summary:" || word == "totals:") lines >> instructions;
  }
  unlink(file.c_str());
  if (instructions < 0) throw std::runtime_error("callgrind counted nothing");
  return instructions;
}

double Instructions(const std::string& name) {
  constexpr std::uint64_t kCounted = 6400;
  const double once = CountInstructions(name, kCounted);
  return (CountInstructions(name, 2 * kCounted) - once) / static_cast<double>(kCounted);
}

void Report() {
  const bool counts = std::system("command -v valgrind >/dev/null 2>&1") == 0;
  std::vector<Samples> ns(kOperations.size());
  for (int round = 0; round < 9; ++round) {
    for (std::size_t i = 0; i < ns.size(); ++i) ns[i].push_back(Nanoseconds(kOperations[i]));
  }
  std::vector<std::string> columns{"operation", "ns"};
  if (counts) columns.push_back("instructions");
  bench::Table table("micro", "### The parts alone, without the kernel", columns);
  for (std::size_t i = 0; i < ns.size(); ++i) {
    std::vector<Samples> cells{ns[i]};
    if (counts) cells.push_back({Instructions(kOperations[i].name)});
    table.AddRow(kOperations[i].what, cells);
  }
  table.Print();
  if (!counts) std::cout << "\nleft out: instructions, since valgrind is not installed\n";
}

}  // namespace

int main(int argc, char** argv) {
  // The C library's locks and counts are cheaper before the first thread. No server is so.
  std::thread([] {}).join();
  try {
    if (argc == 1) {
      Report();
      return 0;
    }
    for (const Operation& operation : kOperations) {
      if (argc != 3 || operation.name != argv[1]) continue;
      operation.run(std::strtoull(argv[2], nullptr, 10));
      return 0;
    }
  } catch (const std::exception& failure) {
    std::cerr << "micro: " << failure.what() << '\n';
    return 1;
  }
  std::cerr << "usage: micro [NAME N], with NAME one of";
  for (const Operation& operation : kOperations) std::cerr << ' ' << operation.name;
  std::cerr << '\n';
  return 2;
}
