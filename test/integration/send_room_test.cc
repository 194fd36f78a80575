// What fits into the queue of a connection, and how a sender learns that there is room again.

#include <atomic>
#include <catch2/catch.hpp>
#include <cstddef>
#include <limits>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "support/alloc_hook.h"
#include "support/deadline.h"
#include "support/event_recorder.h"
#include "support/random.h"
#include "support/raw_peer.h"
#include "support/test_client.h"
#include "support/test_protocol.h"
#include "support/test_server.h"
#include "support/violations.h"

namespace xtcp::test {
namespace {

using Payloads = std::vector<std::string>;

constexpr std::size_t kMiB = 1 << 20;

std::shared_ptr<EventRecorder> NewRecorder() { return std::make_shared<EventRecorder>(); }

// Who follows the protocol of M14: a lock of his own is held across `Send` and what he does about
// `kFull`, and is taken in `OnSendReady`.
class PatientSender {
 public:
  // Sends once there is room. False when the connection ended, or no room came in time.
  bool Send(Conn& conn, std::string_view bytes) {
    std::unique_lock lock(mutex_);
    for (;;) {
      const std::error_code error = conn.Send(bytes);
      if (!error) return true;
      if (error != Errc::kFull) return false;
      ready_ = false;
      if (!WaitUntil(lock, changed_, [&] { return ready_; })) return false;
    }
  }

  void Ready() {
    std::lock_guard lock(mutex_);
    ready_ = true;
    changed_.notify_all();
  }

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  bool ready_ = true;
};

// --- All or nothing ------------------------------------------------------------------------------

TEST_CASE("the limits are exact: what does not fit is refused whole", "[M9][M11][M13][M14][B3]") {
  constexpr std::size_t kLimit = 1000;
  Options options;
  options.send_buffer_limit = kLimit;
  auto events = NewRecorder();
  // Within its callback nothing of what a connection queues leaves, so the counts are exact.
  std::vector<std::error_code> results;
  std::vector<std::uint64_t> queued;
  const std::string text(kLimit + 1, 's');
  events->on_recv = [&](const ConnPtr& conn, std::string_view) {
    for (const std::size_t size : {kLimit + 1, std::size_t{600}, std::size_t{401}, std::size_t{400},
                                   std::size_t{1}, std::size_t{0}, kLimit, kLimit + 1}) {
      results.push_back(conn->Send(std::string_view(text).substr(0, size)));
      queued.push_back(conn->Stats().unsent_bytes());
    }
  };
  TestServer server(events, options);
  RawPeer peer(server.port());
  REQUIRE(peer.SendAll(Frame("go")));
  std::string received;
  REQUIRE(peer.ReadExactly(kLimit, &received) == End::kOpen);
  REQUIRE(events->WaitForSendReady(1));
  peer.HalfClose();
  REQUIRE(peer.ReadAll() == End::kEof);
  REQUIRE(events->WaitForClosed(1));
  REQUIRE(server.Finish() == "");

  const std::error_code ok;
  const auto large = make_error_code(Errc::kTooLarge), full = make_error_code(Errc::kFull);
  REQUIRE(results == std::vector<std::error_code>{large, ok, full, ok, full, ok, full, large});
  REQUIRE(queued == std::vector<std::uint64_t>{0, 600, 600, 1000, 1000, 1000, 1000, 1000});
  REQUIRE(peer.received() == kLimit);
  const ConnStats stats = events->connection().at_closed;
  REQUIRE(stats.accepted_bytes == kLimit);
  REQUIRE(stats.written_bytes == kLimit);
  REQUIRE(stats.refused_sends == 5);
  // Three refusals with kFull, one answer.
  REQUIRE(events->connection().send_ready == 1);
}

TEST_CASE("a send of exactly the limit passes, and sizes near SIZE_MAX are refused",
          "[M9][B3][X4]") {
  Options options;
  options.send_buffer_limit = 2 * kMiB;
  auto events = NewRecorder();
  TestServer server(events, options);
  RawPeer peer(server.port());
  REQUIRE(events->WaitForAccepted(1));
  const ConnPtr conn = events->conn();
  const std::string text(2 * kMiB, 't');
  // Refused by its size alone: the bytes need not be there.
  const auto* bytes = reinterpret_cast<const std::byte*>(text.data());
  for (const std::size_t size : {2 * kMiB + 1, std::size_t{1} << 31, std::size_t{1} << 63,
                                 std::numeric_limits<std::size_t>::max()}) {
    REQUIRE(conn->Send(std::span(bytes, size)) == Errc::kTooLarge);
  }
  REQUIRE_FALSE(conn->Send(text));
  std::string received;
  REQUIRE(peer.ReadExactly(text.size(), &received) == End::kOpen);
  const bool same = received == text;
  REQUIRE(same);
  REQUIRE(server.Finish() == "");
  REQUIRE(events->totals().send_ready == 0);
}

TEST_CASE("a send of no bytes succeeds and does nothing", "[M9][X4]") {
  auto events = NewRecorder();
  TestServer server(events);
  RawPeer peer(server.port());
  REQUIRE(events->WaitForAccepted(1));
  const ConnPtr conn = events->conn();
  std::string received;
  SECTION("alone") {
    REQUIRE_FALSE(conn->Send(""));
    REQUIRE_FALSE(conn->Send(std::span<const std::byte>()));
  }
  SECTION("between others") {
    REQUIRE_FALSE(conn->Send("a"));
    REQUIRE_FALSE(conn->Send(""));
    REQUIRE_FALSE(conn->Send("b"));
    REQUIRE(peer.ReadExactly(2, &received) == End::kOpen);
    REQUIRE(received == "ab");
  }
  SECTION("as the last thing before a graceful stop") {
    REQUIRE_FALSE(conn->Send(""));
    conn->Stop(StopMode::kGracefullyButNotWait);
    REQUIRE(peer.ReadAll() == End::kEof);
  }
  REQUIRE(conn->Stats().accepted_bytes == received.size());
  REQUIRE(server.Finish() == "");
}

// --- kFull and OnSendReady -----------------------------------------------------------------------

TEST_CASE("at OnSendReady half of the limit and the largest refused send are free", "[M14][B3]") {
  constexpr std::size_t kLimit = 100'000;
  const std::size_t piece = GENERATE(1'000u, 30'000u, 70'000u, 100'000u);
  CAPTURE(piece);
  Options options;
  options.send_buffer_limit = kLimit;
  auto events = NewRecorder();
  PatientSender sender;
  const std::string bytes(piece, 'p');
  std::atomic<std::size_t> total{0};
  events->on_send_ready = [&](const ConnPtr& conn) {
    const std::size_t queued = conn->Stats().unsent_bytes();
    if (kLimit - queued < kLimit / 2) AddViolation("M14: less than half of the limit is free");
    if (kLimit - queued < piece) AddViolation("M14: the refused send would not fit");
    if (conn->Send(bytes)) AddViolation("M14: the refused send is refused again");
    total += piece;
    sender.Ready();
  };
  TestServer server(events, options);
  RawPeer peer(server.port(), 32'768);
  REQUIRE(events->WaitForAccepted(1));
  const ConnPtr conn = events->conn();
  std::thread reader([&] { peer.ReadAll(); });
  // Refusals come from here alone, and while OnSendReady runs this thread waits.
  bool sent = true;
  for (int i = 0; i < 20'000 && sent && events->totals().send_ready < 5; ++i) {
    sent = sender.Send(*conn, bytes);
    if (sent) total += piece;
  }
  REQUIRE(sent);
  conn->Stop(StopMode::kGracefullyButNotWait);
  reader.join();
  peer.Close();
  REQUIRE(server.Finish() == "");
  REQUIRE(events->totals().send_ready >= 1);
  REQUIRE(peer.received() == total);
}

TEST_CASE("several threads that wait for room miss no OnSendReady", "[M9][M14][B4][B6]") {
  constexpr std::size_t kThreads = 4, kFrames = 400;
  Options options;
  options.send_buffer_limit = 64 << 10;
  auto events = NewRecorder();
  PatientSender sender;
  events->on_send_ready = [&](const ConnPtr&) { sender.Ready(); };
  TestServer server(events, options);
  RawPeer peer(server.port(), 65'536);
  REQUIRE(events->WaitForAccepted(1));
  const ConnPtr conn = events->conn();
  std::atomic<int> failed{0};
  std::vector<std::thread> threads;
  for (std::size_t id = 0; id < kThreads; ++id) {
    threads.emplace_back([&, id] {
      Random random(id);
      for (std::size_t i = 0; i < kFrames; ++i) {
        const std::string text(random.Between(1, 20'000), static_cast<char>('a' + id));
        if (!sender.Send(*conn, Frame(text))) ++failed;
      }
    });
  }
  std::string received;
  std::thread reader([&] { peer.ReadAll(&received); });
  for (std::thread& thread : threads) thread.join();
  conn->Stop(StopMode::kGracefullyButNotWait);
  reader.join();
  peer.Close();
  REQUIRE(failed == 0);
  REQUIRE(server.Finish() == "");
  const Payloads payloads = PayloadsIn(received);
  REQUIRE(payloads.size() == kThreads * kFrames);
  bool whole = true;
  for (const std::string& text : payloads) {
    whole = whole && text.find_first_not_of(text[0]) == std::string::npos;
  }
  REQUIRE(whole);
  REQUIRE(conn->Stats().written_bytes == received.size());
}

TEST_CASE("kTooLarge has no OnSendReady, and kFull none after a stop", "[M14]") {
  constexpr std::size_t kLimit = 1000;
  const bool stops = GENERATE(false, true);
  Options options;
  options.send_buffer_limit = kLimit;
  auto events = NewRecorder();
  events->on_recv = [&](const ConnPtr& conn, std::string_view) {
    if (conn->Send(std::string(kLimit + 1, 'x')) != Errc::kTooLarge) AddViolation("not kTooLarge");
    if (conn->Send(std::string(kLimit, 'x'))) AddViolation("the limit was refused");
    if (!stops) return;
    if (conn->Send("x") != Errc::kFull) AddViolation("not kFull");
    conn->Stop(StopMode::kGracefullyButNotWait);
  };
  TestServer server(events, options);
  RawPeer peer(server.port());
  REQUIRE(peer.SendAll(Frame("go")));
  std::string received;
  REQUIRE(peer.ReadExactly(kLimit, &received) == End::kOpen);
  peer.HalfClose();
  REQUIRE(peer.ReadAll() == End::kEof);
  REQUIRE(events->WaitForClosed(1));
  REQUIRE(server.Finish() == "");
  REQUIRE(events->totals().send_ready == 0);
}

TEST_CASE("a refusal before the connection stood is answered after kConnected", "[M14][M33]") {
  Options options;
  options.send_buffer_limit = 1000;
  auto events = NewRecorder();
  events->on_send_ready = [](const ConnPtr& conn) {
    if (conn->Send(std::string(1000, 'b'))) AddViolation("M14: refused again");
  };
  RawListener listener;
  TestClient client(events, options);
  REQUIRE_FALSE(client->Send(std::string(1000, 'a')));
  REQUIRE(client->Send(std::string(1000, 'b')) == Errc::kFull);
  client.Dial(listener.address());
  RawPeer peer = listener.Accept();
  std::string received;
  REQUIRE(peer.ReadExactly(2000, &received) == End::kOpen);
  const bool same = received == std::string(1000, 'a') + std::string(1000, 'b');
  REQUIRE(same);
  REQUIRE(client.Finish() == "");
  REQUIRE(events->connection().send_ready == 1);
}

TEST_CASE("a peer that never reads costs at most the limit", "[M9][M11][B5][R1]") {
  Options options;
  options.send_buffer_limit = kMiB;
  auto events = NewRecorder();
  TestServer server(events, options);
  RawPeer peer(server.port(), 4096);
  REQUIRE(events->WaitForAccepted(1));
  const ConnPtr conn = events->conn();
  const std::string piece(10'000, 'x');
  std::size_t accepted = 0, refused = 0;
  // The kernel takes some megabytes; after that every byte stays with the library.
  for (int i = 0; i < 5000 && refused < 100; ++i) {
    const std::error_code error = conn->Send(piece);
    if (!error) accepted += piece.size();
    if (error == Errc::kFull) ++refused;
    REQUIRE(conn->Stats().unsent_bytes() <= kMiB);
  }
  REQUIRE(refused > 0);
  REQUIRE(server.Finish() == "");
  const ConnStats stats = conn->Stats();
  REQUIRE(stats.accepted_bytes == accepted);
  REQUIRE(stats.refused_sends == refused);
  REQUIRE(stats.accepted_bytes == stats.written_bytes + stats.unsent_bytes());
}

TEST_CASE("what is sent from outside the loop fills its chunks, whatever its size", "[R1]") {
  constexpr std::size_t kChunk = 16'000;  // a little less than one holds
  const std::size_t size = GENERATE(100, 5'000, 8'200, 9'000, 16'380, 20'000, 100'000);
  CAPTURE(size);
  Options options;
  options.handler = NewRecorder();
  options.protocol = std::make_shared<TestProtocol>();
  const ConnPtr conn = NewConn(options);
  const std::string piece(size, 'x');
  const std::uint64_t before = Allocations();
  std::size_t sent = 0;
  bool accepted = true;
  for (; sent < kMiB; sent += size) accepted = accepted && !conn->Send(piece);
  const std::uint64_t allocations = Allocations() - before;
  REQUIRE(accepted);
  REQUIRE(allocations <= sent / kChunk + 1);
}

}  // namespace
}  // namespace xtcp::test
