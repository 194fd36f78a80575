// Peers that take nothing and peers that send slowly, by the hundred.

#include <pthread.h>
#include <time.h>

#include <algorithm>
#include <atomic>
#include <catch2/catch.hpp>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "support/alloc_hook.h"
#include "support/event_recorder.h"
#include "support/fault_control.h"
#include "support/raw_peer.h"
#include "support/test_protocol.h"
#include "support/test_server.h"

namespace xtcp::test {
namespace {

using namespace std::chrono_literals;

constexpr std::size_t kAttackers = 200;

std::uint64_t LiveBytes() { return static_cast<std::uint64_t>(BytesInUse()); }

// What a loop's pool keeps for the next connections: docs/options.md.
constexpr std::uint64_t kPool = 5'767'168;

// Answers "ping"; for any other packet sends until it is refused, and keeps nothing.
class Victim final : public Handler {
 public:
  void OnEvent(EventType event, const ConnPtr& conn, PacketPtr packet) override {
    if (event == EventType::kAccept) {
      loop = ::pthread_self();
      ++accepted;
    } else if (event == EventType::kClosed) {
      if (conn->Stats().reason == CloseReason::kPacketDeadline) ++too_slow;
      ++closed;
    } else if (PayloadOf(*packet) == "ping") {
      static_cast<void>(conn->Send(kPong));
    } else {
      while (!conn->Send(kFill)) {
      }
      ++full;
    }
  }

  static constexpr std::string_view kPong = "pong";
  const std::string kFill = std::string(4096, 'f');
  std::atomic<pthread_t> loop{};
  std::atomic<std::size_t> accepted{0}, full{0}, too_slow{0}, closed{0};
};

struct Attacked {
  explicit Attacked(Options options) {
    options.handler = victim;
    options.protocol = std::make_shared<TestProtocol>(TestProtocol::Packets::kKeepViews);
    server = std::make_unique<Server>(std::move(options));
    REQUIRE_FALSE(server->Listen("127.0.0.1:0"));
    thread = std::thread([this] { static_cast<void>(server->Serve()); });
  }
  ~Attacked() {
    WithinDeadline("a stop", [&] {
      server->Stop(StopMode::kImmediately);
      thread.join();
    });
  }

  std::vector<RawPeer> Peers(std::size_t count, int receive_buffer = 0) {
    const std::size_t before = victim->accepted;
    std::vector<RawPeer> peers;
    for (std::size_t i = 0; i < count; ++i) {
      peers.emplace_back(server->Addresses().at(0).Port(), receive_buffer);
      REQUIRE(peers.back().connected());
    }
    REQUIRE(WaitUntil([&] { return victim->accepted == before + count; }));
    return peers;
  }

  // The loop's processor time.
  std::chrono::nanoseconds Cpu() const {
    clockid_t clock{};
    timespec now{};
    ::pthread_getcpuclockid(victim->loop, &clock);
    ::clock_gettime(clock, &now);
    return std::chrono::seconds(now.tv_sec) + std::chrono::nanoseconds(now.tv_nsec);
  }

  // What the loop works between a ping and its answer, in 99 of 100 cases: how long a client waits, on
  // a machine that does nothing else.
  std::chrono::nanoseconds PingP99(RawPeer& client) {
    std::vector<std::chrono::nanoseconds> took;
    for (int i = 0; i < 500; ++i) {
      const auto begin = Cpu();
      std::string pong;
      REQUIRE(client.SendAll(Frame("ping")));
      REQUIRE(client.ReadExactly(Victim::kPong.size(), &pong) == End::kOpen);
      took.push_back(Cpu() - begin);
    }
    std::sort(took.begin(), took.end());
    return took[took.size() * 99 / 100];
  }

  const FaultPlan no_faults;
  std::shared_ptr<Victim> victim = std::make_shared<Victim>();
  std::unique_ptr<Server> server;
  std::thread thread;
};

TEST_CASE("two hundred peers that take nothing hold what the limit says, and a tenth more",
          "[R1][M11][seen-29]") {
  constexpr std::uint64_t kLimit = 64 << 10;
  Options options;
  options.send_buffer_limit = kLimit;
  Attacked attacked(options);
  std::vector<RawPeer> peers = attacked.Peers(kAttackers, 4096);
  const std::uint64_t idle = LiveBytes();
  // Again and again, until the kernel takes nothing more of any of them either.
  const auto queued = [&] {
    const ServerStats stats = attacked.server->Stats();
    return stats.accepted_bytes - stats.written_bytes;
  };
  const bool all = WaitUntil([&] {
    const std::size_t before = attacked.victim->full;
    for (RawPeer& peer : peers) REQUIRE(peer.SendAll(Frame("more")));
    WaitUntil([&] { return attacked.victim->full == before + peers.size(); });
    return queued() >= kAttackers * (kLimit - 4096);
  });
  REQUIRE(all);
  const std::uint64_t held = LiveBytes() - idle;
  CAPTURE(held, queued());
  CHECK(queued() <= kAttackers * kLimit);
  CHECK(held <= kAttackers * kLimit * 11 / 10 + kPool);
}

TEST_CASE("two hundred peers that send slowly are closed at the packet deadline",
          "[R8][X2][seen-29]") {
  VirtualClock clock;
  Options options;
  options.packet_deadline = 10s;
  Attacked attacked(options);
  std::vector<RawPeer> peers = attacked.Peers(kAttackers);
  // A byte each second does not help them.
  const std::string frame = Frame("a packet that takes longer than it may");
  std::size_t at = 0;
  const auto send_one = [&] {
    for (RawPeer& peer : peers) static_cast<void>(peer.SendAll(frame.substr(at, 1)));
    ++at;
    REQUIRE(clock.Settle());
  };
  for (int second = 0; second < 10; ++second) {
    send_one();
    CHECK(attacked.victim->closed == 0);
    clock.Advance(second < 9 ? 1000ms : 900ms);
    REQUIRE(clock.Settle());
  }
  CHECK(attacked.victim->closed == 0);
  clock.Advance(1100ms);  // a tenth late is in time
  REQUIRE(WaitUntil([&] { return attacked.victim->closed == kAttackers; }));
  CHECK(attacked.victim->too_slow == kAttackers);
}

// A bound for the library's processor time, not the sanitizers'.
#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
TEST_CASE("beside four hundred such peers a client is served as before", "[R9][seen-29]") {
  Options options;
  options.send_buffer_limit = 64 << 10;
  Attacked attacked(options);
  std::vector<RawPeer> client = attacked.Peers(1);
  const auto quiet = attacked.PingP99(client[0]);

  std::vector<RawPeer> takes_nothing = attacked.Peers(kAttackers, 4096);
  std::vector<RawPeer> slow = attacked.Peers(kAttackers);
  for (RawPeer& peer : takes_nothing) REQUIRE(peer.SendAll(Frame("more")));
  REQUIRE(WaitUntil([&] { return attacked.victim->full >= kAttackers; }));
  std::atomic<bool> over{false};
  std::thread trickling([&] {
    // A frame that is far longer than this test.
    for (RawPeer& peer : slow) static_cast<void>(peer.SendAll(Header(1 << 20)));
    while (!over) {
      for (RawPeer& peer : slow) static_cast<void>(peer.SendAll("x"));
      std::this_thread::sleep_for(1ms);
    }
  });
  const auto attacked_p99 = attacked.PingP99(client[0]);
  over = true;
  trickling.join();
  CAPTURE(quiet.count(), attacked_p99.count());
  CHECK(attacked_p99 <= std::max<std::chrono::nanoseconds>(3 * quiet, 5ms));
}
#endif

// --- What a connection holds. --------------------------------------------------------------------

TEST_CASE("an idle connection holds no buffer, and half a kilobyte at most", "[R1][seen-29]") {
  constexpr std::uint64_t kMany = 500;
  Attacked attacked({});
  std::vector<RawPeer> warm = attacked.Peers(50);
  for (RawPeer& peer : warm) REQUIRE(peer.SendAll(Frame("ping")));
  warm.clear();
  REQUIRE(WaitUntil([&] { return attacked.victim->closed == 50; }));
  REQUIRE(WaitUntil([&] { return attacked.server->ConnectionCount() == 0; }));
  std::vector<RawPeer> peers;
  peers.reserve(kMany);
  const std::uint64_t before = LiveBytes();
  for (std::uint64_t i = 0; i < kMany; ++i) {
    RawPeer peer(attacked.server->Addresses().at(0).Port());
    std::string pong;
    REQUIRE(peer.SendAll(Frame("ping")));
    REQUIRE(peer.ReadExactly(Victim::kPong.size(), &pong) == End::kOpen);
    peers.push_back(std::move(peer));
  }
  // The peers' own names are in it.
  const std::uint64_t each = (LiveBytes() - before) / kMany;
  CAPTURE(each);
  CHECK(each <= 512);
}

TEST_CASE("a connection holds twice what it has received at most, and nothing for a length",
          "[R1][X1][seen-29]") {
  const FaultPlan no_faults;
  const std::size_t piece = GENERATE(1u, 7u, 1000u, 4096u, 60'000u);
  CAPTURE(piece);
  constexpr std::size_t kTotal = 600'000;
  const std::size_t total = std::min<std::size_t>(kTotal, piece * 3'000);
  Options options;
  options.recv_buffer_size = 4096;
  auto protocol = std::make_shared<TestProtocol>();
  options.protocol = protocol;
  auto events = std::make_shared<EventRecorder>();
  TestServer server(events, options);
  RawPeer peer(server.port());
  REQUIRE(events->WaitForAccepted(1));
  const ConnPtr conn = events->conn();
  REQUIRE(peer.SendAll("x"));  // so that whatever there is once is there
  REQUIRE(WaitUntil([&] { return conn->Stats().received_bytes == 1; }));
  const std::uint64_t idle = LiveBytes();
  const std::uint64_t reads = CallsOf(Site::kRecv);
  const std::uint64_t unpacks = protocol->unpack_calls();
  // The length says 120 MiB and more.
  std::uint64_t sent = 1;
  std::uint64_t worst = 0;
  while (sent < total) {
    const std::string bytes(piece, '\x07');
    REQUIRE(peer.SendAll(bytes));
    sent += piece;
    REQUIRE(WaitUntil([&] { return conn->Stats().received_bytes == sent; }));
    const std::uint64_t held = LiveBytes() > idle ? LiveBytes() - idle : 0;
    const std::uint64_t bound = std::max<std::uint64_t>(4096, 2 * sent);
    worst = std::max(worst, held * 100 / bound);
  }
  CAPTURE(worst);
  // In percent of the bound. The blocks that the connection has outgrown wait in the pool for others,
  // and are smaller, all together, than the one in use. This test's own strings come and go.
  CHECK(worst <= 2 * 100 + 10);
  // X1: a call of Unpack for each read at most, since there is no packet.
  CHECK(protocol->unpack_calls() - unpacks <= CallsOf(Site::kRecv) - reads);
  REQUIRE(server.Finish() == "");
}

TEST_CASE("a connection that is full both ways holds its two limits, and a fixed part",
          "[R1][X1][seen-29]") {
  constexpr std::uint64_t kConnections = 20;
  constexpr std::uint64_t kReceive = 256 << 10, kSend = 256 << 10;
  constexpr std::uint64_t kFixed = 1 << 10;
  Options options;
  options.max_packet_size = kReceive;
  options.send_buffer_limit = kSend;
  Attacked attacked(options);
  std::vector<RawPeer> peers = attacked.Peers(kConnections, 4096);
  const std::uint64_t idle = LiveBytes();
  for (int round = 0; round < 20; ++round) {
    const std::size_t before = attacked.victim->full;
    for (RawPeer& peer : peers) REQUIRE(peer.SendAll(Frame("more")));
    REQUIRE(WaitUntil([&] { return attacked.victim->full == before + peers.size(); }));
  }
  const std::uint64_t received = attacked.server->Stats().received_bytes;
  const std::string half = Header(kReceive - kHeaderSize) + std::string(kReceive - 100, 'h');
  for (RawPeer& peer : peers) REQUIRE(peer.SendAll(half));
  REQUIRE(WaitUntil([&] {
    return attacked.server->Stats().received_bytes == received + kConnections * half.size();
  }));
  const std::uint64_t held = LiveBytes() - idle;
  CAPTURE(held);
  // A buffer of a power of two has the bytes of a packet and its own head: twice, in the worst case.
  CHECK(held <= kConnections * (kFixed + 2 * kReceive + kSend * 11 / 10) + kPool);
}

}  // namespace
}  // namespace xtcp::test
