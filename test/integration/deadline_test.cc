#include <catch2/catch.hpp>
#include <chrono>
#include <memory>
#include <string>

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

}  // namespace
}  // namespace xtcp::test
