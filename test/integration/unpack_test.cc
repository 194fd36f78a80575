#include <atomic>
#include <catch2/catch.hpp>
#include <cstddef>
#include <memory>
#include <string>
#include <vector>

#include "support/deadline.h"
#include "support/event_recorder.h"
#include "support/random.h"
#include "support/raw_peer.h"
#include "support/test_client.h"
#include "support/test_protocol.h"
#include "support/test_server.h"

namespace xtcp::test {
namespace {

using Payloads = std::vector<std::string>;

std::shared_ptr<EventRecorder> NewRecorder() { return std::make_shared<EventRecorder>(); }

// Waits until the server has read `bytes` from its i-th connection, so that what is sent next comes
// in a read of its own.
bool WaitForRead(const TestServer& server, std::size_t i, std::size_t bytes) {
  if (!server.events().WaitForAccepted(i + 1)) return false;
  const ConnPtr conn = server.events().conn(i);
  return WaitUntil([&] { return conn->Stats().received_bytes >= bytes; });
}

TEST_CASE("a packet that comes byte by byte is delivered when its last byte has come", "[M1][E4]") {
  TestServer server(NewRecorder());
  RawPeer peer(server.port());
  const std::string frame = Frame("slowly");
  for (std::size_t i = 0; i + 1 < frame.size(); ++i) {
    REQUIRE(peer.SendAll(frame.substr(i, 1)));
    REQUIRE(WaitForRead(server, 0, i + 1));
  }
  REQUIRE(server.events().totals().packets == 0);
  REQUIRE(peer.SendAll(frame.substr(frame.size() - 1)));
  REQUIRE(server.events().WaitForPackets(1));
  REQUIRE(server.Finish() == "");
  REQUIRE(server.events().connection().payloads == Payloads{"slowly"});
}

TEST_CASE("ten thousand packets in one write come in order", "[M1][M5][E4]") {
  constexpr std::size_t kPackets = 10'000;
  TestServer server(NewRecorder());
  RawPeer peer(server.port());
  std::string stream;
  Payloads sent;
  for (std::size_t i = 0; i < kPackets; ++i) {
    sent.push_back("packet " + std::to_string(i));
    stream += Frame(sent.back());
  }
  REQUIRE(peer.SendAll(stream));
  REQUIRE(server.events().WaitForPackets(kPackets));
  REQUIRE(server.Finish() == "");
  const bool same = server.events().connection().payloads == sent;
  REQUIRE(same);
}

TEST_CASE("skipped bytes have no event, and what is behind them is delivered at once", "[M1]") {
  TestServer server(NewRecorder());
  RawPeer peer(server.port());
  const std::string padding = MarkedFrame(Marker::kSkip, "padding");
  REQUIRE(peer.SendAll(padding + Frame("a") + padding + padding + Frame("b") + padding));
  REQUIRE(server.events().WaitForPackets(2));
  REQUIRE(peer.SendAll(padding));
  REQUIRE(peer.SendAll(Frame("c")));
  REQUIRE(server.events().WaitForPackets(3));
  REQUIRE(server.Finish() == "");
  REQUIRE(server.events().connection().payloads == Payloads{"a", "b", "c"});
  REQUIRE(server.events().totals().unpack_errors == 0);
}

TEST_CASE("a bad packet is reported with its bytes and does not stall those behind it",
          "[M1][F6]") {
  TestServer server(NewRecorder());
  RawPeer peer(server.port());
  const std::string bad = MarkedFrame(Marker::kBad, "bad");
  // The peer then stays silent: nothing may wait for more input.
  REQUIRE(peer.SendAll(Frame("a") + bad + Frame("b") + bad + bad + Frame("c")));
  REQUIRE(server.events().WaitForPackets(3));
  REQUIRE(server.events().WaitForUnpackErrors(3));

  const auto connection = server.events().connection();
  REQUIRE_FALSE(connection.closed);
  REQUIRE(connection.payloads == Payloads{"a", "b", "c"});
  for (const auto& [bytes, error] : connection.unpack_errors) {
    REQUIRE(bytes == bad);
    REQUIRE(error == TestProtocol::UnpackError());
  }
  REQUIRE(peer.SendAll(Frame("d")));
  REQUIRE(server.events().WaitForPackets(4));
  REQUIRE(server.Finish() == "");
}

TEST_CASE("no way to resynchronise: all that waits is reported, then the connection ends",
          "[M1][E4][E5]") {
  TestServer server(NewRecorder());
  RawPeer other(server.port());
  RawPeer peer(server.port());
  REQUIRE(server.events().WaitForAccepted(2));
  const std::string rest = MarkedFrame(Marker::kNoResync, "lost") + Frame("never seen");
  REQUIRE(peer.SendAll(Frame("a") + rest));
  REQUIRE(server.events().WaitForClosed(1));
  REQUIRE(peer.ReadAll() != End::kTimeout);

  const auto connection = server.events().connection(1);
  REQUIRE(connection.payloads == Payloads{"a"});
  REQUIRE(connection.unpack_errors.size() == 1);
  // How much of it waited depends on how the kernel cut it.
  const std::string& reported = connection.unpack_errors[0].first;
  REQUIRE(reported.size() >= MarkedFrame(Marker::kNoResync, "lost").size());
  REQUIRE(rest.starts_with(reported));
  REQUIRE(connection.unpack_errors[0].second == TestProtocol::UnpackError());
  REQUIRE(connection.at_closed.reason == CloseReason::kProtocolError);
  REQUIRE(connection.at_closed.error == std::errc::bad_message);

  REQUIRE(other.SendAll(Frame("still here")));
  REQUIRE(server.events().WaitForPackets(2));
  REQUIRE(server.Finish() == "");
}

TEST_CASE("an impossible answer of Unpack ends that connection only", "[M1][F6][X6]") {
  const Marker marker =
      GENERATE(Marker::kPacketOfNothing, Marker::kPacketBeyondView, Marker::kPacketBeyondAll,
               Marker::kPacketWithError, Marker::kPacketOfNothingError, Marker::kSkipBeyondView,
               Marker::kBadBeyondView);
  CAPTURE(static_cast<int>(marker));
  TestServer server(NewRecorder());
  RawPeer other(server.port());
  RawPeer peer(server.port());
  REQUIRE(server.events().WaitForAccepted(2));
  REQUIRE(peer.SendAll(Frame("a") + MarkedFrame(marker, "x") + Frame("never seen")));
  REQUIRE(server.events().WaitForClosed(1));
  REQUIRE(peer.ReadAll() != End::kTimeout);

  const auto connection = server.events().connection(1);
  REQUIRE(connection.payloads == Payloads{"a"});
  REQUIRE(connection.unpack_errors.empty());
  REQUIRE(connection.at_closed.reason == CloseReason::kProtocolError);
  REQUIRE(connection.at_closed.error == Errc::kProtocolError);

  REQUIRE(other.SendAll(Frame("still here")));
  REQUIRE(server.events().WaitForPackets(2));
  REQUIRE(server.Finish() == "");
}

TEST_CASE("a packet of max_packet_size bytes passes, one byte more ends the connection",
          "[M2][X1][E5]") {
  constexpr std::size_t kMax = 1000;
  const bool dribbled = GENERATE(false, true);
  CAPTURE(dribbled);
  Options options;
  options.max_packet_size = kMax;
  options.recv_buffer_size = 16;
  TestServer server(NewRecorder(), options);
  const auto send = [&](RawPeer& peer, const std::string& bytes) {
    // What the peer sends after the end is of no interest.
    static_cast<void>(dribbled ? peer.Dribble(bytes, 7) : peer.SendAll(bytes));
  };

  RawPeer fits(server.port());
  // More than the limit may wait, as long as no packet needs it.
  const std::string largest(kMax - kHeaderSize, 'x');
  send(fits, Frame(largest) + Frame(largest) + Frame("end"));
  REQUIRE(server.events().WaitForPackets(3));

  RawPeer exceeds(server.port());
  REQUIRE(server.events().WaitForAccepted(2));
  send(exceeds, Frame(std::string(kMax - kHeaderSize + 1, 'y')));
  REQUIRE(server.events().WaitForClosed(1));
  const auto connection = server.events().connection(1);
  REQUIRE(connection.packets == 0);
  REQUIRE(connection.at_closed.reason == CloseReason::kPacketTooLarge);
  REQUIRE(server.Finish() == "");
}

TEST_CASE("a packet that is announced but never comes costs a connection its life", "[M2][X1]") {
  Options options;
  options.max_packet_size = 4096;
  TestServer server(NewRecorder(), options);
  RawPeer peer(server.port());
  REQUIRE(peer.SendAll(Header(1 << 30)));
  REQUIRE(WaitForRead(server, 0, kHeaderSize));
  REQUIRE(server.events().totals().closed == 0);
  static_cast<void>(peer.SendAll(std::string(100'000, 'x')));
  REQUIRE(server.events().WaitForClosed(1));
  REQUIRE(server.events().connection().at_closed.reason == CloseReason::kPacketTooLarge);
  REQUIRE(server.Finish() == "");
}

TEST_CASE("the first packet has its own limit", "[M2][X2]") {
  Options options;
  options.first_packet_size = 64;
  options.max_packet_size = 4096;
  TestServer server(NewRecorder(), options);

  RawPeer polite(server.port());
  REQUIRE(
      polite.SendAll(Frame(std::string(64 - kHeaderSize, 'a')) + Frame(std::string(4000, 'b'))));
  REQUIRE(server.events().WaitForPackets(2));

  RawPeer greedy(server.port());
  REQUIRE(greedy.SendAll(Frame(std::string(64 - kHeaderSize + 1, 'c'))));
  REQUIRE(server.events().WaitForClosed(1));
  REQUIRE(server.events().connection(1).at_closed.reason == CloseReason::kPacketTooLarge);
  REQUIRE(server.Finish() == "");
}

TEST_CASE("one stream gives the same packets wherever it is cut", "[M1][E4]") {
  const std::string bad = MarkedFrame(Marker::kBad, "bad");
  const Payloads expected = {"", "x", std::string(40, 'y'), "end"};
  const std::string stream = Frame("") + Frame("x") + MarkedFrame(Marker::kSkip, "pad") +
                             Frame(expected[2]) + bad + Frame("end");
  Options options;
  options.recv_buffer_size = 1;
  options.protocol = std::make_shared<TestProtocol>(
      GENERATE(TestProtocol::Packets::kOwnTheirBytes, TestProtocol::Packets::kKeepViews));
  TestServer server(NewRecorder(), options);
  for (std::size_t cut = 0; cut <= stream.size(); ++cut) {
    RawPeer peer(server.port());
    REQUIRE(peer.SendAll(stream.substr(0, cut)));
    REQUIRE(WaitForRead(server, cut, cut));
    REQUIRE(peer.SendAll(stream.substr(cut)));
    REQUIRE(server.events().WaitForPackets((cut + 1) * expected.size()));
  }
  REQUIRE(server.Finish() == "");
  for (const auto& connection : server.events().connections()) {
    REQUIRE(connection.payloads == expected);
    REQUIRE(connection.unpack_errors.size() == 1);
    REQUIRE(connection.unpack_errors[0].first == bad);
  }
}

TEST_CASE("packets of all sizes survive the ring's wrapping and growing", "[M1][M3][X1]") {
  Options options;
  options.recv_buffer_size = GENERATE(1u, 64u, 4096u);
  options.protocol = std::make_shared<TestProtocol>(
      GENERATE(TestProtocol::Packets::kOwnTheirBytes, TestProtocol::Packets::kKeepViews));
  CAPTURE(options.recv_buffer_size);
  TestServer server(NewRecorder(), options);
  RawPeer peer(server.port());
  Random random(options.recv_buffer_size);
  Payloads sent;
  std::string stream;
  for (int i = 0; i < 1500; ++i) {
    const std::size_t largest = random.OneIn(300) ? 1 << 20 : 3 * options.recv_buffer_size + 20;
    sent.push_back(random.Bytes(random.Between(0, largest)));
    stream += Frame(sent.back());
  }
  for (std::size_t at = 0; at < stream.size();) {
    const std::size_t piece = random.Between(1, random.OneIn(20) ? 100'000 : 3000);
    REQUIRE(peer.SendAll(std::string_view(stream).substr(at, piece)));
    at += piece;
  }
  REQUIRE(server.events().WaitForPackets(sent.size()));
  REQUIRE(server.Finish() == "");
  const bool same = server.events().connection().payloads == sent;
  REQUIRE(same);
}

TEST_CASE("a packet that keeps a view may be read until OnEvent returns", "[M3]") {
  Options options;
  options.protocol = std::make_shared<TestProtocol>(TestProtocol::Packets::kKeepViews);
  auto events = NewRecorder();
  std::atomic<int> good{0};
  events->on_recv = [&](const ConnPtr& conn, std::string_view payload) {
    // None of this may touch the bytes.
    static_cast<void>(conn->Send(Frame(payload)));
    conn->PauseRecv();
    conn->ResumeRecv();
    conn->Stop(StopMode::kImmediately);
    if (payload == std::string(3000, 'v')) ++good;
  };
  TestServer server(events, options);
  RawPeer peer(server.port());
  REQUIRE(peer.SendAll(Frame(std::string(3000, 'v')) + Frame("behind")));
  REQUIRE(server.events().WaitForClosed(1));
  REQUIRE(server.Finish() == "");
  REQUIRE(good == 1);
}

TEST_CASE("a stop inside OnUnpackError is the last that the handler hears before kClosed",
          "[M4][M7]") {
  const StopMode mode = GENERATE(StopMode::kImmediately, StopMode::kGracefullyButNotWait,
                                 StopMode::kGracefullyAndWait);
  auto events = NewRecorder();
  events->on_unpack_error = [mode](const ConnPtr& conn, auto, auto) {
    static_cast<void>(conn->Send(Frame("sorry")));
    conn->Stop(mode);
  };
  TestServer server(events);
  RawPeer peer(server.port());
  const std::string bad = MarkedFrame(Marker::kBad, "bad");
  REQUIRE(peer.SendAll(Frame("a") + bad + Frame("b") + bad));
  std::string answer;
  const End end = peer.ReadAll(&answer);
  peer.Close();
  REQUIRE(server.events().WaitForClosed(1));
  REQUIRE(server.Finish() == "");

  const auto connection = server.events().connection();
  REQUIRE(connection.payloads == Payloads{"a"});
  REQUIRE(connection.unpack_errors.size() == 1);
  REQUIRE(connection.at_closed.reason == CloseReason::kLocalStop);
  if (mode == StopMode::kImmediately) return;
  REQUIRE(end == End::kEof);
  REQUIRE(PayloadsIn(answer) == Payloads{"sorry"});
}

TEST_CASE("half a packet at the end of the stream is no packet", "[M1][M16]") {
  TestServer server(NewRecorder());
  RawPeer half(server.port());
  REQUIRE(half.SendAll(Frame("whole") + Header(100) + "half"));
  half.HalfClose();
  REQUIRE(half.ReadAll() == End::kEof);
  REQUIRE(server.events().WaitForClosed(1));
  RawPeer silent(server.port());
  silent.HalfClose();
  REQUIRE(silent.ReadAll() == End::kEof);
  REQUIRE(server.events().WaitForClosed(2));
  REQUIRE(server.Finish() == "");

  const auto connection = server.events().connection(0);
  REQUIRE(connection.payloads == Payloads{"whole"});
  REQUIRE(connection.at_closed.reason == CloseReason::kPeerClosed);
  REQUIRE(connection.at_closed.received_bytes == Frame("whole").size() + kHeaderSize + 4);
}

TEST_CASE("the dialling side unpacks by the same rules", "[M1][M2][F6]") {
  RawListener listener;
  const auto serve = [&](const std::string& bytes, CloseReason reason) {
    TestClient client(NewRecorder(), listener.address());
    RawPeer peer = listener.Accept();
    REQUIRE(peer.connected());
    REQUIRE(peer.SendAll(bytes));
    REQUIRE(client.events().WaitForClosed(1));
    REQUIRE_FALSE(client.Wait());
    REQUIRE(client.Finish() == "");
    REQUIRE(client->Stats().reason == reason);
    REQUIRE(client.events().connection().payloads == Payloads{"a"});
  };
  serve(Frame("a") + MarkedFrame(Marker::kNoResync), CloseReason::kProtocolError);
  serve(Frame("a") + MarkedFrame(Marker::kPacketOfNothing), CloseReason::kProtocolError);
  serve(Frame("a") + MarkedFrame(Marker::kThrow), CloseReason::kException);
}

}  // namespace
}  // namespace xtcp::test
