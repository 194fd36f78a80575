// In which order sends leave, from whatever thread and at odd moments, and how packets are sent.

#include <array>
#include <atomic>
#include <catch2/catch.hpp>
#include <cstddef>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "support/deadline.h"
#include "support/event_recorder.h"
#include "support/log_lines.h"
#include "support/random.h"
#include "support/raw_peer.h"
#include "support/test_client.h"
#include "support/test_protocol.h"
#include "support/test_server.h"
#include "support/violations.h"

namespace xtcp::test {
namespace {

constexpr std::size_t kMiB = 1 << 20;

std::shared_ptr<EventRecorder> NewRecorder() { return std::make_shared<EventRecorder>(); }

// Who follows the protocol of M14: a lock of his own is held across `Send` and what he does about
// `kFull`, and is taken in `OnSendReady`.
// --- Order and contiguity ------------------------------------------------------------------------

TEST_CASE("sends from eight threads to a slow peer stay whole and in order", "[M9][M10][M12][B4]") {
  constexpr std::size_t kThreads = 8, kFrames = 250;
  Options options;
  options.send_buffer_limit = 256 << 20;
  auto events = NewRecorder();
  TestServer server(events, options);
  RawPeer peer(server.port(), 16'384);
  REQUIRE(events->WaitForAccepted(1));
  const ConnPtr conn = events->conn();
  std::vector<std::thread> threads;
  for (std::size_t id = 0; id < kThreads; ++id) {
    threads.emplace_back([&, id] {
      Random random(id);
      for (std::size_t i = 0; i < kFrames; ++i) {
        const std::size_t size = random.OneIn(50) ? 200'000 : random.Between(1, 3000);
        const std::string text = std::to_string(id) + " " + std::to_string(i) + " ";
        const std::string fill(size, static_cast<char>('a' + i % 26));
        if (conn->Send(Frame(text + fill))) AddViolation("a send was refused");
      }
    });
  }
  std::string received;
  std::thread reader([&] { peer.ReadAll(&received); });
  for (std::thread& thread : threads) thread.join();
  conn->Stop(StopMode::kGracefullyButNotWait);
  reader.join();
  peer.Close();
  REQUIRE(server.Finish() == "");

  std::array<std::size_t, kThreads> next{};
  bool good = true;
  for (const std::string& text : PayloadsIn(received)) {
    std::size_t id = 0, number = 0;
    int used = 0;
    good = good && std::sscanf(text.c_str(), "%zu %zu %n", &id, &number, &used) == 2;
    good = good && id < kThreads && next[id]++ == number;
    const auto fill = static_cast<char>('a' + number % 26);
    good =
        good && text.find_first_not_of(fill, static_cast<std::size_t>(used)) == std::string::npos;
    if (!good) break;
  }
  REQUIRE(good);
  for (const std::size_t count : next) REQUIRE(count == kFrames);
}

TEST_CASE("sends that happen one after the other appear so, whatever thread they come from",
          "[M10][M12][B4]") {
  constexpr std::size_t kSends = 4000;
  auto events = NewRecorder();
  std::mutex mutex;
  std::size_t next = 0;
  const auto send = [&](Conn& conn) {
    std::lock_guard lock(mutex);
    if (next == kSends) return false;
    if (conn.Send(Frame(std::to_string(next)))) AddViolation("a send was refused");
    ++next;
    return true;
  };
  events->on_recv = [&](const ConnPtr& conn, std::string_view) { send(*conn); };
  TestServer server(events);
  RawPeer peer(server.port());
  REQUIRE(events->WaitForAccepted(1));
  const ConnPtr conn = events->conn();
  std::vector<std::thread> threads;
  for (int i = 0; i < 3; ++i) {
    threads.emplace_back([&] {
      while (send(*conn)) std::this_thread::yield();
    });
  }
  // The loop's own thread takes part, too.
  std::thread asker([&] {
    for (int i = 0; i < 500; ++i) peer.SendAll(Frame("go"));
  });
  std::size_t in_order = 0;
  while (in_order < kSends && peer.ReadFrame() == std::to_string(in_order)) ++in_order;
  asker.join();
  for (std::thread& thread : threads) thread.join();
  REQUIRE(in_order == kSends);
  REQUIRE(server.Finish() == "");
}

TEST_CASE("ten thousand queued pieces leave in order, more than IOV_MAX at a time",
          "[M10][M13][B4]") {
  constexpr int kPieces = 10'000;
  auto events = NewRecorder();
  TestServer server(events);
  RawPeer peer(server.port(), 4096);
  REQUIRE(events->WaitForAccepted(1));
  const ConnPtr conn = events->conn();
  // Blocks the way, so that the pieces wait behind it.
  const std::string first(8 * kMiB, 'f');
  REQUIRE_FALSE(conn->Send(first));
  std::string expected = first;
  for (int i = 0; i < kPieces; ++i) {
    std::string piece = std::to_string(i);
    piece.resize(10, '.');
    REQUIRE_FALSE(conn->Send(piece));
    expected += piece;
  }
  std::string received;
  REQUIRE(peer.ReadExactly(expected.size(), &received) == End::kOpen);
  const bool same = received == expected;
  REQUIRE(same);
  REQUIRE(server.Finish() == "");
}

TEST_CASE("a send from another thread wakes an idle loop, every time", "[M9][M13][B6]") {
  constexpr int kRounds = 3000;
  auto events = NewRecorder();
  TestServer server(events);
  RawPeer peer(server.port());
  REQUIRE(events->WaitForAccepted(1));
  const ConnPtr conn = events->conn();
  int good = 0;
  std::string received;
  for (int i = 0; i < kRounds; ++i) {
    if (conn->Send("ping")) break;
    if (peer.ReadExactly(4, &received) == End::kOpen) ++good;
  }
  REQUIRE(good == kRounds);
  REQUIRE(server.Finish() == "");
}

TEST_CASE("a packet for every connection leaves from one callback", "[M12][M13][B7]") {
  constexpr std::size_t kPeers = 20;
  Options options;
  options.loops = GENERATE(1u, 3u);
  auto events = NewRecorder();
  events->on_recv = [&](const ConnPtr&, std::string_view payload) {
    for (const auto& connection : events->connections()) {
      if (connection.conn->Send(Frame(payload))) AddViolation("a send was refused");
    }
  };
  TestServer server(events, options);
  std::vector<RawPeer> peers;
  for (std::size_t i = 0; i < kPeers; ++i) peers.emplace_back(server.port());
  REQUIRE(events->WaitForAccepted(kPeers));
  for (int round = 0; round < 20; ++round) {
    const std::string text = "news " + std::to_string(round);
    REQUIRE(peers[static_cast<std::size_t>(round) % kPeers].SendAll(Frame(text)));
    for (RawPeer& peer : peers) REQUIRE(peer.ReadFrame() == text);
  }
  REQUIRE(server.Finish() == "");
}

// --- Sends at odd moments ------------------------------------------------------------------------

TEST_CASE("a large send in the first event arrives whole, with no further help",
          "[M5][M9][M13][B2]") {
  Random random;
  const std::string greeting = random.Bytes(8 * kMiB);
  const auto greet = [&](const ConnPtr& conn) {
    if (conn->Send(greeting)) AddViolation("the greeting was refused");
  };
  std::string received;
  SECTION("kAccept") {
    auto events = NewRecorder();
    events->on_accept = greet;
    TestServer server(events);
    RawPeer peer(server.port(), 4096);
    REQUIRE(events->WaitForAccepted(1));
    REQUIRE(peer.ReadExactly(greeting.size(), &received) == End::kOpen);
    REQUIRE(server.Finish() == "");
  }
  SECTION("kConnected") {
    RawListener listener;
    auto events = NewRecorder();
    events->on_connected = greet;
    TestClient client(events, listener.address());
    RawPeer peer = listener.Accept();
    REQUIRE(events->WaitForConnected(1));
    REQUIRE(peer.ReadExactly(greeting.size(), &received) == End::kOpen);
    REQUIRE(client.Finish() == "");
  }
  const bool same = received == greeting;
  REQUIRE(same);
}

TEST_CASE("in kClosed Send says kClosed, and nobody else gets the bytes", "[M8][M9][B7][E6]") {
  auto events = NewRecorder();
  std::atomic<int> refused{0};
  events->on_closed = [&](const ConnPtr& conn) {
    if (conn->Send("secret") == Errc::kClosed) ++refused;
    if (conn->SendPacket(BytesPacket("secret")) == Errc::kClosed) ++refused;
  };
  // One more thread sends all the time.
  std::mutex mutex;
  ConnPtr target;
  std::atomic<bool> done{false};
  events->on_recv = [&](const ConnPtr& conn, std::string_view) {
    {
      std::lock_guard lock(mutex);
      target = conn;
    }
    conn->Stop(StopMode::kImmediately);
  };
  std::thread sender([&] {
    while (!done) {
      ConnPtr conn;
      {
        std::lock_guard lock(mutex);
        conn = target;
      }
      if (conn != nullptr) static_cast<void>(conn->Send("secret"));
      std::this_thread::yield();
    }
  });
  TestServer server(events);
  // A new connection soon has the descriptor number of the one before.
  constexpr int kRounds = 100;
  std::string stray;
  for (int i = 0; i < kRounds; ++i) {
    RawPeer victim(server.port());
    victim.SendAll(Frame("end me"));
    RawPeer neighbour(server.port());
    victim.ReadAll();
    neighbour.HalfClose();
    neighbour.ReadAll(&stray);
  }
  done = true;
  sender.join();
  REQUIRE(stray.empty());
  REQUIRE(events->WaitForClosed(2 * kRounds));
  target.reset();
  REQUIRE(server.Finish() == "");
  REQUIRE(refused == 4 * kRounds);
}

TEST_CASE("after a stop Send says kStopping, after the end kClosed", "[M9][M10][M19][B3]") {
  auto events = NewRecorder();
  std::error_code inside;
  events->on_recv = [&](const ConnPtr& conn, std::string_view) {
    conn->Stop(StopMode::kImmediately);
    inside = conn->Send("too late");
  };
  TestServer server(events);
  {
    RawPeer peer(server.port());
    REQUIRE(events->WaitForAccepted(1));
    const ConnPtr conn = events->conn(0);
    conn->Stop(StopMode::kGracefullyButNotWait);
    // The peer has not closed, so the connection is not closed either.
    REQUIRE(conn->Send("too late") == Errc::kStopping);
    REQUIRE(conn->SendPacket(BytesPacket("too late")) == Errc::kStopping);
    REQUIRE(peer.ReadAll() == End::kEof);
    REQUIRE(peer.received() == 0);
    peer.Close();
    REQUIRE(events->WaitForClosed(1));
    REQUIRE(conn->Send("much too late") == Errc::kClosed);
  }
  RawPeer peer(server.port());
  REQUIRE(peer.SendAll(Frame("stop")));
  REQUIRE(events->WaitForClosed(2));
  REQUIRE(server.Finish() == "");
  REQUIRE(inside == Errc::kStopping);
}

TEST_CASE("every end of a connection accounts for every byte", "[M11][B1][E5]") {
  auto events = NewRecorder();
  Options options;
  options.linger_timeout = std::chrono::milliseconds(100);
  TestServer server(events, options);
  RawPeer peer(server.port(), 4096);
  REQUIRE(events->WaitForAccepted(1));
  const ConnPtr conn = events->conn();
  const std::string queued(12 * kMiB, 'q');
  REQUIRE_FALSE(conn->Send(queued));
  bool reads = false;
  SECTION("immediate stop") { conn->Stop(StopMode::kImmediately); }
  SECTION("graceful stop, the peer does not read") { conn->Stop(StopMode::kGracefullyButNotWait); }
  SECTION("reset") { peer.Reset(); }
  SECTION("the server stops") { server->Stop(StopMode::kImmediately); }
  SECTION("the peer reads everything") {
    REQUIRE(peer.ReadExactly(queued.size(), std::make_unique<std::string>().get()) == End::kOpen);
    peer.Close();
    reads = true;
  }
  REQUIRE(events->WaitForClosed(1));
  const ConnStats stats = events->connection().at_closed;
  REQUIRE(stats.accepted_bytes == queued.size());
  REQUIRE(stats.accepted_sends == 1);
  REQUIRE(stats.accepted_bytes == stats.written_bytes + stats.unsent_bytes());
  REQUIRE((stats.unsent_bytes() == 0) == reads);
  REQUIRE(stats.unacked_bytes <= stats.written_bytes);
  REQUIRE(server.Finish() == "");
}

// --- SendPacket ----------------------------------------------------------------------------------

TEST_CASE("a packer's failure is SendPacket's result, and the connection goes on",
          "[M15][F5][F6]") {
  using Fault = OddPacket::Fault;
  auto events = NewRecorder();
  TestServer server(events);
  RawPeer peer(server.port());
  REQUIRE(events->WaitForAccepted(1));
  const ConnPtr conn = events->conn();
  const LogLines log;
  const auto send = [&](Fault fault) { return conn->SendPacket(OddPacket(fault)); };
  REQUIRE_FALSE(conn->SendPacket(BytesPacket("before")));
  REQUIRE(send(Fault::kPackToFails) == std::errc::not_supported);
  REQUIRE(send(Fault::kPackToThrows) == Errc::kBadPacket);
  REQUIRE(send(Fault::kPackSizeThrows) == Errc::kBadPacket);
  REQUIRE(log.With("an exception left PackSize or PackTo") == 2);
  REQUIRE(send(Fault::kWritesLess) == Errc::kBadPacket);
  REQUIRE(send(Fault::kWritesMore) == Errc::kBadPacket);
  REQUIRE(send(Fault::kNotPackable) == std::errc::message_size);
  REQUIRE(send(Fault::kHugeSize) == Errc::kTooLarge);
  REQUIRE_FALSE(conn->SendPacket(BytesPacket("after")));
  REQUIRE_FALSE(conn->SendPacket(BytesPacket("")));
  REQUIRE(peer.ReadFrame() == "before");
  REQUIRE(peer.ReadFrame() == "after");
  REQUIRE(peer.ReadFrame().empty());
  const std::size_t bytes = Frame("before").size() + Frame("after").size() + Frame("").size();
  REQUIRE(conn->Stats().accepted_bytes == bytes);
  REQUIRE(conn->Stats().accepted_sends == 3);
  REQUIRE(events->totals().closed == 0);
  REQUIRE(server.Finish() == "");
}

TEST_CASE("SendPacket knows the limits, too", "[M9][M14][M15]") {
  Options options;
  options.send_buffer_limit = 100;
  auto events = NewRecorder();
  std::vector<std::error_code> results;
  events->on_recv = [&](const ConnPtr& conn, std::string_view) {
    results.push_back(conn->SendPacket(BytesPacket(std::string(97, 'a'))));  // 101 bytes
    results.push_back(conn->SendPacket(BytesPacket(std::string(96, 'b'))));
    results.push_back(conn->SendPacket(BytesPacket("")));
  };
  TestServer server(events, options);
  RawPeer peer(server.port());
  REQUIRE(peer.SendAll(Frame("go")));
  REQUIRE(peer.ReadFrame() == std::string(96, 'b'));
  REQUIRE(events->WaitForSendReady(1));
  REQUIRE(server.Finish() == "");
  REQUIRE(results == std::vector<std::error_code>{
                         make_error_code(Errc::kTooLarge), {}, make_error_code(Errc::kFull)});
}

TEST_CASE("a packet is packed on the thread that sends it", "[M15][M27]") {
  struct Where : TestProtocol {
    std::error_code PackTo(const Packet& packet, Writer& writer) const override {
      thread = std::this_thread::get_id();
      return TestProtocol::PackTo(packet, writer);
    }
    mutable std::thread::id thread;
  };
  Options options;
  const auto protocol = std::make_shared<Where>();
  options.protocol = protocol;
  auto events = NewRecorder();
  TestServer server(events, options);
  RawPeer peer(server.port());
  REQUIRE(events->WaitForAccepted(1));
  REQUIRE_FALSE(events->conn()->SendPacket(BytesPacket("here")));
  REQUIRE(peer.ReadFrame() == "here");
  REQUIRE(server.Finish() == "");
  REQUIRE(protocol->thread == std::this_thread::get_id());
}

TEST_CASE("what Pack gives may be sent to many", "[M15]") {
  const TestProtocol protocol;
  std::vector<std::byte> packed(3, std::byte{7});
  REQUIRE_FALSE(protocol.Pack(BytesPacket("news"), &packed));
  REQUIRE(AsText(packed) == Frame("news"));

  using Fault = OddPacket::Fault;
  const auto fails = [&](Fault fault) {
    packed.assign(3, std::byte{7});
    const std::error_code error = protocol.Pack(OddPacket(fault), &packed);
    REQUIRE(packed.empty());
    return error;
  };
  REQUIRE(fails(Fault::kPackToFails) == std::errc::not_supported);
  REQUIRE(fails(Fault::kPackToThrows) == Errc::kBadPacket);
  REQUIRE(fails(Fault::kPackSizeThrows) == Errc::kBadPacket);
  REQUIRE(fails(Fault::kWritesLess) == Errc::kBadPacket);
  REQUIRE(fails(Fault::kWritesMore) == Errc::kBadPacket);
  REQUIRE(fails(Fault::kNotPackable) == std::errc::message_size);

  REQUIRE_FALSE(protocol.Pack(BytesPacket("news"), &packed));
  auto events = NewRecorder();
  TestServer server(events);
  std::vector<RawPeer> peers;
  for (int i = 0; i < 5; ++i) peers.emplace_back(server.port());
  REQUIRE(events->WaitForAccepted(5));
  for (const auto& connection : events->connections()) REQUIRE_FALSE(connection.conn->Send(packed));
  for (RawPeer& peer : peers) REQUIRE(peer.ReadFrame() == "news");
  REQUIRE(server.Finish() == "");
}

}  // namespace
}  // namespace xtcp::test
