// The ready-made protocols in a server, with peers that trickle.

#include <xtcp/error.h>
#include <xtcp/protocols.h>

#include <catch2/catch.hpp>
#include <memory>
#include <string>
#include <string_view>
#include <system_error>

#include "support/event_recorder.h"
#include "support/raw_peer.h"
#include "support/test_server.h"

namespace xtcp::test {
namespace {

using namespace std::string_literals;

// Sends every packet back, and last words after what is no packet.
struct EchoPackets : Handler {
  void OnEvent(EventType event, const ConnPtr& conn, PacketPtr packet) override {
    if (event == EventType::kRecv && conn->SendPacket(*packet)) {
      conn->Stop(StopMode::kImmediately);
    }
  }
  void OnUnpackError(const ConnPtr& conn, std::span<const std::byte> bad,
                     std::error_code error) override {
    seen = AsText(bad);
    why = error;
    if (conn->SendPacket(xtcp::BytesPacket("what?"))) conn->Stop(StopMode::kImmediately);
    conn->Stop(StopMode::kGracefullyButNotWait);
  }
  std::string seen;
  std::error_code why;
};

struct Case {
  std::shared_ptr<const Protocol> protocol;
  std::string sent;
  std::string echoed;
};

TEST_CASE("ready-made protocols serve what comes in any pieces", "[M66]") {
  const Case cases[] = {
      {std::make_shared<RawProtocol>(), "abc\0\n"s, "abc\0\n"s},
      {std::make_shared<LineProtocol>(), "one\r\n\ntwo\n", "one\n\ntwo\n"},
      {std::make_shared<LineProtocol>(10, "\r\n"), "one\n\r\ntwo\n", "one\r\n\r\ntwo\r\n"},
      {std::make_shared<LengthPrefixProtocol>(), "\0\0\0\3abc\0\0\0\0\0\0\0\1x"s,
       "\0\0\0\3abc\0\0\0\0\0\0\0\1x"s},
      {std::make_shared<LengthPrefixProtocol>(LengthPrefix{.bytes = 1, .add = -1}), "\4abc\1\2x",
       "\4abc\1\2x"},
  };
  for (const Case& each : cases) {
    for (const std::size_t piece : {std::size_t{1}, std::size_t{3}, each.sent.size()}) {
      INFO("case " << &each - cases << ", pieces of " << piece);
      auto events = std::make_shared<EventRecorder>();
      Options options;
      options.handler = std::make_shared<EchoPackets>();
      options.protocol = each.protocol;
      TestServer server(events, options);
      RawPeer peer(server.port());
      REQUIRE(peer.Dribble(each.sent, piece));
      std::string echoed;
      CHECK(peer.ReadExactly(each.echoed.size(), &echoed) == End::kOpen);
      CHECK(echoed == each.echoed);
      peer.Close();
      CHECK(server.Finish() == "");
    }
  }
}

TEST_CASE("a line that is too long is shown to the handler, whose last words arrive", "[M66]") {
  auto events = std::make_shared<EventRecorder>();
  auto handler = std::make_shared<EchoPackets>();
  Options options;
  options.handler = handler;
  options.protocol = std::make_shared<LineProtocol>(5);
  TestServer server(events, options);
  RawPeer peer(server.port());
  REQUIRE(peer.SendAll("12345\n"));
  std::string echoed;
  REQUIRE(peer.ReadExactly(6, &echoed) == End::kOpen);
  REQUIRE(peer.SendAll("123456"));  // no end is needed
  echoed.clear();
  CHECK(peer.ReadAll(&echoed) == End::kEof);
  CHECK(echoed == "what?\n");
  peer.Close();
  CHECK(server.Finish() == "");
  CHECK(handler->seen == "123456");
  CHECK(handler->why == std::errc::message_size);
}

}  // namespace
}  // namespace xtcp::test
