#include <catch2/catch.hpp>
#include <chrono>
#include <cstddef>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "support/event_recorder.h"
#include "support/raw_peer.h"
#include "support/test_protocol.h"
#include "support/test_server.h"

namespace xtcp::test {
namespace {

using std::chrono::milliseconds;

TEST_CASE("a peer that does not read is closed at the write deadline", "[R8][E5]") {
  Options options;
  options.write_deadline = milliseconds(200);
  auto events = std::make_shared<EventRecorder>();
  TestServer server(events, options);
  RawPeer stalls(server.port(), 4096);
  REQUIRE(events->WaitForAccepted(1));
  REQUIRE_FALSE(events->conn()->Send(std::string(12 << 20, 'x')));
  REQUIRE(events->WaitForClosed(1));
  REQUIRE(events->conn()->Stats().reason == CloseReason::kWriteDeadline);
  REQUIRE(server.Finish() == "");
}

TEST_CASE("read and packet deadlines end their connections, and say so", "[R8][E5]") {
  Options options;
  options.read_deadline = milliseconds(300);
  options.packet_deadline = milliseconds(100);
  auto events = std::make_shared<EventRecorder>();
  TestServer server(events, options);
  RawPeer silent(server.port());
  REQUIRE(events->WaitForAccepted(1));
  RawPeer trickles(server.port());
  REQUIRE(trickles.SendAll(Frame("whole") + Frame("half").substr(0, 5)));
  REQUIRE(events->WaitForClosed(2));
  REQUIRE(events->conn(0)->Stats().reason == CloseReason::kReadDeadline);
  REQUIRE(events->conn(1)->Stats().reason == CloseReason::kPacketDeadline);
  REQUIRE(events->totals().packets == 1);
  REQUIRE(server.Finish() == "");
}

TEST_CASE("after Server::Stop has returned Send is refused everywhere", "[M10][M19]") {
  auto events = std::make_shared<EventRecorder>();
  std::error_code result;
  Server* self = nullptr;
  Signal ready;
  events->on_recv = [&](const ConnPtr& conn, std::string_view) {
    static_cast<void>(ready.Wait());
    static_cast<void>(self->Stop(StopMode::kGracefullyButNotWait));
    result = conn->Send("late");
  };
  TestServer server(events);
  self = server.operator->();
  ready.Set();
  RawPeer peer(server.port());
  REQUIRE(peer.SendAll(Frame("x")));
  REQUIRE(peer.ReadAll() == End::kEof);
  peer.Close();
  REQUIRE(events->WaitForClosed(1));
  REQUIRE(result == Errc::kStopping);
  REQUIRE(server.Finish() == "");
}

TEST_CASE("a packet deadline runs on after a pause", "[M18][R8]") {
  Options options;
  options.packet_deadline = milliseconds(200);
  auto events = std::make_shared<EventRecorder>();
  events->on_recv = [](const ConnPtr& conn, std::string_view payload) {
    if (payload == "pause") conn->PauseRecv();
  };
  TestServer server(events, options);
  RawPeer peer(server.port());
  REQUIRE(peer.SendAll(Frame("pause") + Frame("whole") + Frame("half").substr(0, 6)));
  REQUIRE(events->WaitForPackets(1));
  // Paused for longer than the deadline, which stands still.
  REQUIRE(WaitUntil([&] { return events->conn()->Stats().age > milliseconds(500); }));
  REQUIRE(events->totals().closed == 0);
  events->conn()->ResumeRecv();
  REQUIRE(events->WaitForPackets(2));
  REQUIRE(events->WaitForClosed(1));
  REQUIRE(events->conn()->Stats().reason == CloseReason::kPacketDeadline);
  REQUIRE(server.Finish() == "");
}

TEST_CASE("no size overflows on the loop's own thread", "[X4][M9]") {
  auto events = std::make_shared<EventRecorder>();
  std::vector<std::error_code> results;
  events->on_recv = [&](const ConnPtr& conn, std::string_view) {
    const std::byte byte{};
    for (const std::size_t less : {0u, 1u, 4096u, 65535u, 65536u, 65537u, 300'000u}) {
      // Never read: it is refused by its size alone.
      results.push_back(conn->Send(std::span(&byte, ~std::size_t{0} - less)));
    }
    static_cast<void>(conn->Send("done"));
  };
  TestServer server(events);
  RawPeer peer(server.port());
  REQUIRE(peer.SendAll(Frame("go")));
  std::string bytes;
  REQUIRE(peer.ReadExactly(4, &bytes) == End::kOpen);
  REQUIRE(results == std::vector<std::error_code>(7, Errc::kTooLarge));
  REQUIRE(server.Finish() == "");
}

}  // namespace
}  // namespace xtcp::test
