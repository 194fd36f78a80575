// What a connection may do in one iteration of its loop: one turn, bounded in packets, bytes, writes
// and time.

#include <algorithm>
#include <atomic>
#include <catch2/catch.hpp>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <string_view>
#include <thread>
#include <utility>
#include <vector>

#include "support/deadline.h"
#include "support/event_recorder.h"
#include "support/fault_control.h"
#include "support/raw_peer.h"
#include "support/stop_books.h"
#include "support/test_protocol.h"
#include "support/test_server.h"
#include "support/violations.h"

namespace xtcp::test {
namespace {

using namespace std::chrono_literals;
using std::chrono::microseconds;
using std::chrono::nanoseconds;

// What one connection did between two waits of its loop.
struct Work {
  std::uint64_t packets = 0;
  std::uint64_t bytes = 0;  // received
  std::uint64_t reads = 0;
  std::uint64_t writes = 0;
  nanoseconds handler{0};  // by a clock that handlers move
};

// A server with one loop whose iterations are written down. A payload "hold" keeps the loop until
// `go`, so that what happens meanwhile comes at the same time for it.
class Loop {
 public:
  explicit Loop(Options options = {}) {
    events = std::make_shared<EventRecorder>();
    events->keep_payloads = false;
    events->on_accept = [this](const ConnPtr& conn) { Watch(conn); };
    events->on_recv = [this](const ConnPtr& conn, std::string_view payload) {
      Received(conn, payload);
    };
    plan.Add({.site = Site::kEpollWait, .times = Fault::kAlways, .act = [this](int) { End(); }});
    server = std::make_unique<TestServer>(events, std::move(options));
    holder = Connect();
  }

  ~Loop() { server.reset(); }
  Loop(const Loop&) = delete;
  Loop& operator=(const Loop&) = delete;

  RawPeer Connect() {
    const std::size_t before = watched();
    RawPeer peer(server->port());
    REQUIRE(WaitUntil([&] { return watched() == before + 1; }));
    return peer;
  }

  // Keeps the loop in a callback while `body` runs.
  template <typename Body>
  void Hold(Body body) {
    const auto pause = std::make_shared<Pause>();
    {
      std::lock_guard lock(mutex_);
      pause_ = pause;
    }
    REQUIRE(holder.SendAll(Frame("hold")));
    REQUIRE(pause->begun.Wait());
    body();
    pause->over.Set();
  }

  // Settles, and gives what the i-th connection did, iteration by iteration.
  std::vector<Work> WorkOf(std::size_t i) {
    REQUIRE(clock.Settle());
    std::lock_guard lock(mutex_);
    std::vector<Work> all;
    const Conn* const conn = events->conn(i).get();
    for (const auto& iteration : iterations_) {
      const auto found = iteration.find(conn);
      if (found != iteration.end()) all.push_back(found->second);
    }
    return all;
  }

  // The most of something that it did in one iteration.
  template <typename Number>
  Number Most(std::size_t i, Number Work::*what) {
    Number most{};
    for (const Work& work : WorkOf(i)) most = std::max(most, work.*what);
    return most;
  }

  void Forget() {
    std::lock_guard lock(mutex_);
    iterations_.clear();
  }

  // Of the i-th connection's socket.
  int descriptor(std::size_t i) {
    std::lock_guard lock(mutex_);
    return descriptors_.at(i);
  }

  std::string Finish() { return server->Finish(); }

  FaultPlan plan;
  VirtualClock clock;
  std::shared_ptr<EventRecorder> events;
  std::unique_ptr<TestServer> server;
  RawPeer holder;
  std::function<void(const ConnPtr&, std::string_view)> on_recv;
  std::function<void()> before_wait, before_write;
  std::atomic<nanoseconds> cost{0ns};  // of each packet

 private:
  std::size_t watched() {
    std::lock_guard lock(mutex_);
    return descriptors_.size();
  }

  void Watch(const ConnPtr& conn) {
    const Conn* const key = conn.get();
    const int fd = conn->Descriptor();
    const auto count = [&](Site site, std::uint64_t Work::*what) {
      plan.Add({.site = site, .times = Fault::kAlways, .fd = fd, .act = [this, key, what](int) {
                  if (what == &Work::writes && before_write) before_write();
                  std::lock_guard lock(mutex_);
                  ++(now_[key].*what);
                }});
    };
    count(Site::kRecv, &Work::reads);
    count(Site::kSend, &Work::writes);
    count(Site::kSendMsg, &Work::writes);
    std::lock_guard lock(mutex_);
    open_[key] = conn;
    descriptors_.push_back(fd);
  }

  void Received(const ConnPtr& conn, std::string_view payload) {
    if (payload == "hold") {
      std::shared_ptr<Pause> pause;
      {
        std::lock_guard lock(mutex_);
        pause = pause_;
      }
      pause->begun.Set();
      if (!pause->over.Wait()) AddViolation("nobody lets the loop go on");
      return;
    }
    clock.Advance(cost.load());
    {
      std::lock_guard lock(mutex_);
      Work& work = now_[conn.get()];
      ++work.packets;
      work.handler += cost.load();
    }
    if (on_recv) on_recv(conn, payload);
  }

  // The loop is about to wait.
  void End() {
    if (before_wait) before_wait();
    std::lock_guard lock(mutex_);
    for (const auto& [key, conn] : open_) {
      const std::uint64_t bytes = conn->Stats().received_bytes;
      const std::uint64_t before = std::exchange(bytes_[key], bytes);
      if (bytes != before) now_[key].bytes = bytes - before;
    }
    if (!now_.empty()) iterations_.push_back(std::exchange(now_, {}));
  }

  struct Pause {
    Signal begun, over;
  };

  std::mutex mutex_;  // guards all that follows
  std::shared_ptr<Pause> pause_;
  std::vector<int> descriptors_;
  std::map<const Conn*, ConnPtr> open_;
  std::map<const Conn*, std::uint64_t> bytes_;
  std::map<const Conn*, Work> now_;
  std::vector<std::map<const Conn*, Work>> iterations_;
};

// Frames of `size` bytes each.
std::string Frames(std::size_t count, std::size_t size) {
  std::string bytes;
  for (std::size_t i = 0; i < count; ++i) bytes += Frame(std::string(size - kHeaderSize, 'x'));
  return bytes;
}

// Sends `bytes` again and again, for as long as it lives.
class Flood {
 public:
  Flood(RawPeer& peer, std::string bytes)
      : thread_([this, &peer, bytes = std::move(bytes)] {
          while (!over_) {
            if (!peer.SendAll(bytes)) AddViolation("a flood is not taken");
          }
        }) {}
  ~Flood() {
    over_ = true;
    thread_.join();
  }
  Flood(const Flood&) = delete;
  Flood& operator=(const Flood&) = delete;

 private:
  std::atomic<bool> over_{false};
  std::thread thread_;
};

TEST_CASE("a connection has one turn an iteration, whatever wakes it", "[R9][seen-20]") {
  constexpr std::size_t kPackets = 5000;
  Options options;
  options.read_deadline = 1h;
  Loop loop(options);
  loop.on_recv = [](const ConnPtr& conn, std::string_view payload) {
    static_cast<void>(conn->Send(payload));
  };
  RawPeer peer = loop.Connect();
  const ConnPtr conn = loop.events->conn(1);
  REQUIRE(loop.clock.Settle());
  loop.Forget();
  // An event, a post and a timer at the same time.
  loop.Hold([&] {
    REQUIRE(peer.SendAll(Frames(kPackets, 10)));
    REQUIRE_FALSE(conn->Send("from another thread"));
    loop.clock.Advance(1h);
  });
  REQUIRE(loop.events->WaitForPackets(1 + kPackets));
  CHECK(loop.Most(1, &Work::packets) == 1024);
  CHECK(loop.Most(1, &Work::reads) == 1);
  CHECK(loop.Most(1, &Work::writes) <= 2);  // what the turn gathered, and what came from elsewhere
  CHECK(loop.WorkOf(1).size() >= kPackets / 1024);
  REQUIRE_FALSE(loop.events->connection(1).closed);
  REQUIRE(loop.Finish() == "");
}

TEST_CASE("a turn reads at most 256 KiB", "[R9][seen-20]") {
  Loop loop;
  RawPeer peer = loop.Connect();
  const int fd = loop.descriptor(1);
  // Much more waits in the kernel than a turn may take, once the window has grown.
  std::size_t most = 0;
  std::size_t holds = 0;
  {
    const Flood flood(peer, Frames(1, 8 << 20));
    while (most <= (512 << 10) && holds < 10) {
      ++holds;
      REQUIRE(loop.events->WaitForPackets(2 * holds - 1));  // one more, beside those of the holds
      loop.Hold([&] {
        static_cast<void>(WaitUntil([&] { return Unread(fd) > (512 << 10); }, 1s));
        most = std::max(most, Unread(fd));
      });
    }
  }
  REQUIRE(most > (512 << 10));
  CHECK(loop.Most(1, &Work::bytes) <= (256 << 10));
  CHECK(loop.Most(1, &Work::bytes) >= (200 << 10));
  CHECK(loop.Most(1, &Work::reads) <= 16);
  REQUIRE(loop.Finish() == "");
}

TEST_CASE("a turn makes at most 16 reads", "[R9][seen-20]") {
  // Frames that just fill the smallest block of the inbound buffer: each read ends where the block
  // does, and another one could follow, and so on.
  constexpr std::size_t kFrame = 256 - 24;
  constexpr std::size_t kFrames = 200;
  Options options;
  options.recv_buffer_size = 256;
  Loop loop(options);
  RawPeer peer = loop.Connect();
  // A tail that is longer than the last read: from now on reads go into the block.
  const std::string bytes = Frames(kFrames, kFrame);
  for (const std::size_t end : {100, 110}) {
    const std::uint64_t before = loop.events->conn(1)->Stats().received_bytes;
    REQUIRE(peer.SendAll(std::string_view(bytes).substr(before, end - before)));
    REQUIRE(WaitUntil([&] { return loop.events->conn(1)->Stats().received_bytes == end; }));
  }
  loop.Hold([&] { REQUIRE(peer.SendAll(std::string_view(bytes).substr(110))); });
  REQUIRE(loop.events->WaitForPackets(1 + kFrames));
  CHECK(loop.Most(1, &Work::reads) == 16);
  REQUIRE(loop.Finish() == "");
}

TEST_CASE("a turn makes at most 4 writes", "[R9][seen-20]") {
  constexpr int kMore = 100;
  Loop loop;
  RawPeer peer = loop.Connect();
  const ConnPtr conn = loop.events->conn(1);
  // Each write finds more bytes that another thread has sent.
  std::atomic<int> left{kMore};
  loop.before_write = [&] {
    if (left.fetch_sub(1) <= 0) return;
    std::thread([&] {
      if (conn->Send("more")) AddViolation("a Send was refused");
    }).join();
  };
  REQUIRE_FALSE(conn->Send("first"));
  std::string bytes;
  REQUIRE(peer.ReadExactly(5 + 4 * kMore, &bytes) == End::kOpen);
  CHECK(loop.Most(1, &Work::writes) == 4);
  REQUIRE(loop.Finish() == "");
}

TEST_CASE("a turn takes at most about a millisecond of its handler's time", "[R9][seen-20]") {
  constexpr std::size_t kPackets = 5000;
  struct {
    microseconds cost;
    std::uint64_t packets;  // at most, in one turn
  } const table[] = {{0us, 1024}, {1us, 1000}, {2us, 500}, {10us, 100}, {60us, 16}, {500us, 16}};
  for (const auto& [cost, packets] : table) {
    CAPTURE(cost.count());
    Loop loop;
    RawPeer peer = loop.Connect();
    loop.cost = cost;
    loop.Hold([&] { REQUIRE(peer.SendAll(Frames(kPackets, 10))); });
    REQUIRE(loop.events->WaitForPackets(1 + kPackets, 60s));
    const std::uint64_t most = loop.Most(1, &Work::packets);
    CHECK(most <= packets + packets / 10);
    CHECK(most >= packets / 2);
    REQUIRE(loop.Finish() == "");
  }
}

TEST_CASE("a handler that becomes slow within a turn is noticed within 64 packets",
          "[R9][seen-20]") {
  Loop loop;
  RawPeer peer = loop.Connect();
  std::size_t delivered = 0;
  loop.on_recv = [&](const ConnPtr&, std::string_view) {
    ++delivered;
    loop.cost = delivered >= 200 && delivered < 300 ? 2ms : 0ns;
  };
  loop.Hold([&] { REQUIRE(peer.SendAll(Frames(1000, 10))); });
  REQUIRE(loop.events->WaitForPackets(1 + 1000));
  const std::vector<Work> work = loop.WorkOf(1);
  const auto slow =
      std::find_if(work.begin(), work.end(), [](const Work& turn) { return turn.packets > 0; });
  REQUIRE(slow != work.end());
  CHECK(slow->packets >= 200);
  CHECK(slow->packets <= 200 + 64);
  REQUIRE(loop.Finish() == "");
}

TEST_CASE("a client comes before those who have packets left over", "[R9][seen-20]") {
  constexpr std::size_t kFlooders = 4;
  constexpr std::size_t kPackets = 4000;
  Loop loop;
  std::vector<RawPeer> flooders;
  for (std::size_t i = 0; i < kFlooders; ++i) flooders.push_back(loop.Connect());
  RawPeer peer = loop.Connect();
  const Conn* const ping = loop.events->conn(1 + kFlooders).get();
  std::uint64_t iteration = 0;  // in which the last packet of a flooder came
  std::uint64_t pinged = 0;     // in which the client's came
  std::size_t ahead = 0;        // packets of flooders in that one before it
  std::size_t delivered = 0;
  loop.on_recv = [&](const ConnPtr& conn, std::string_view) {
    ++delivered;
    if (pinged != 0) return;
    const std::uint64_t now = CallsOf(Site::kEpollWait);
    if (std::exchange(iteration, now) != now) ahead = 0;
    if (conn.get() == ping) {
      pinged = now;
    } else {
      ++ahead;
    }
  };
  // When each flooder has had a turn, and has packets left over, they send more, and then the client
  // sends its one packet: the loop is told of them in this order.
  std::uint64_t sent = 0;
  const auto send_more = [&] {
    if (sent != 0 || delivered < kFlooders * 1024) return;
    for (RawPeer& flooder : flooders) {
      if (!flooder.SendAll(Frames(10, 10))) AddViolation("bytes are not taken");
    }
    if (!peer.SendAll(Frame("ping"))) AddViolation("bytes are not taken");
    sent = CallsOf(Site::kEpollWait);
  };
  loop.Hold([&] {
    loop.before_wait = send_more;
    for (RawPeer& flooder : flooders) REQUIRE(flooder.SendAll(Frames(kPackets, 10)));
  });
  REQUIRE(loop.events->WaitForPackets(1 + kFlooders * (kPackets + 10) + 1));
  REQUIRE(loop.clock.Settle());
  CHECK(sent != 0);
  CHECK(pinged == sent);
  CHECK(ahead == 0);
  REQUIRE(loop.Finish() == "");
}

TEST_CASE("a client beside flooders is served in the iteration that sees its packet",
          "[R9][seen-20]") {
  constexpr std::size_t kFlooders = 4;
  Loop loop;
  std::vector<RawPeer> flooders;
  for (std::size_t i = 0; i < kFlooders; ++i) flooders.push_back(loop.Connect());
  RawPeer peer = loop.Connect();
  const Conn* const ping = loop.events->conn(1 + kFlooders).get();
  std::atomic<std::uint64_t> waits{0};
  nanoseconds served_at{0};
  loop.on_recv = [&](const ConnPtr& conn, std::string_view payload) {
    if (conn.get() != ping) return;
    served_at = loop.clock.now();
    waits = CallsOf(Site::kEpollWait);
    static_cast<void>(conn->Send(payload));
  };
  loop.cost = 2us;
  std::vector<std::unique_ptr<Flood>> floods;
  for (RawPeer& flooder : flooders) {
    floods.push_back(std::make_unique<Flood>(flooder, Frames(10'000, 100)));
  }
  for (std::size_t round = 1; round <= 8; ++round) {
    CAPTURE(round);
    std::uint64_t before = 0;
    nanoseconds since{0};
    loop.Hold([&] {
      // The loop sees this one's packet, and what the flooders have sent, when it waits next.
      REQUIRE(peer.SendAll(Frame("ping")));
      for (std::size_t i = 1; i <= kFlooders; ++i) {
        CHECK(WaitUntil([&] { return Unread(loop.descriptor(i)) > 0; }));
      }
      before = CallsOf(Site::kEpollWait);
      since = loop.clock.now();
    });
    std::string answer;
    REQUIRE(peer.ReadExactly(4, &answer) == End::kOpen);
    CHECK(waits == before + 1);
    // The rest of the iteration that was held, and the flooders that were seen before it: a slice
    // each, at most twice.
    CHECK(served_at - since <= 2 * kFlooders * 1100us);
  }
  floods.clear();
  REQUIRE(loop.Finish() == "");
}

}  // namespace
}  // namespace xtcp::test
