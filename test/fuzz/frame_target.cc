#include <xtcp/server.h>

#include <algorithm>
#include <memory>
#include <stdexcept>
#include <string>
#include <vector>

#include "fuzz/scripted_kernel.h"
#include "fuzz/targets.h"
#include "support/test_protocol.h"

namespace xtcp::test {
namespace {

// What a handler saw, or should have seen.
struct Seen {
  std::vector<std::string> packets;
  std::vector<std::string> bad;  // of OnUnpackError
  CloseReason reason = CloseReason::kNone;
};

// As the contract says (M1, M2): `stream` in one piece.
Seen Reference(std::span<const std::byte> stream, std::size_t limit, CloseReason at_the_end) {
  const TestProtocol protocol;
  Seen seen;
  try {
    for (;;) {
      if (stream.empty()) {
        seen.reason = at_the_end;
        return seen;
      }
      // A view is never longer than a packet may be.
      const std::span<const std::byte> view = stream.first(std::min(stream.size(), limit));
      const UnpackResult result = protocol.Unpack(view);
      const bool packet = result.packet != nullptr;
      if (result.size > view.size() || (packet && (result.size == 0 || result.error))) {
        seen.reason = CloseReason::kProtocolError;
        return seen;
      }
      if (packet) seen.packets.emplace_back(PayloadOf(*result.packet));
      if (result.error) {
        seen.bad.emplace_back(AsText(stream.first(result.size)));
        if (result.size == 0) {
          seen.reason = CloseReason::kProtocolError;
          return seen;
        }
      } else if (!packet && result.size == 0) {
        seen.reason = view.size() >= limit ? CloseReason::kPacketTooLarge : at_the_end;
        return seen;
      }
      stream = stream.subspan(result.size);
    }
  } catch (...) {
    seen.reason = CloseReason::kException;
  }
  return seen;
}

// Sends each packet back, and stops its server when the connection has ended.
class Recorder final : public Handler {
 public:
  void OnEvent(EventType event, const ConnPtr& conn, PacketPtr packet) override {
    if (event == EventType::kRecv) {
      seen.packets.emplace_back(PayloadOf(*packet));
      if (!conn->Send(Frame(PayloadOf(*packet)))) sent += Frame(PayloadOf(*packet));
    } else if (event == EventType::kClosed) {
      seen.reason = conn->Stats().reason;
      stats = conn->Stats();
      server->Stop(StopMode::kImmediately);
    }
  }
  void OnUnpackError(const ConnPtr& conn, std::span<const std::byte> bytes,
                     std::error_code error) override {
    FUZZ_CHECK(error == TestProtocol::UnpackError());
    FUZZ_CHECK(!bytes.empty());
    static_cast<void>(conn);
    seen.bad.emplace_back(AsText(bytes));
  }

  Server* server = nullptr;
  Seen seen;
  std::string sent;
  ConnStats stats;
};

}  // namespace

// Two bytes for the limits, two scripts with their lengths ahead, and the stream.
void FuzzFrame(FuzzInput input) {
  FuzzReader reader(input);
  Options options;
  const std::uint8_t sizes = reader.U8();
  options.recv_buffer_size = 1 + (sizes & 0x0f) * 64;
  options.max_packet_size = (sizes & 0x80) != 0 ? 16 << 20 : 1 + (sizes >> 4) * 40;
  ScriptedKernel& kernel = scripted_kernel;
  kernel = {};
  kernel.resets = (reader.U8() & 1) != 0;
  for (std::vector<std::uint8_t>* script : {&kernel.reads, &kernel.writes}) {
    const FuzzInput bytes = reader.Bytes(reader.U8() & 0x0f);
    script->assign(bytes.begin(), bytes.end());
    // One that never takes a byte would never end.
    bool any = script->empty();
    for (const std::uint8_t n : *script) any = any || n > 0;
    if (!any) script->push_back(1);
  }
  const std::span<const std::byte> stream = std::as_bytes(reader.Rest());
  kernel.stream = stream;

  const auto handler = std::make_shared<Recorder>();
  options.handler = handler;
  options.protocol = std::make_shared<TestProtocol>(TestProtocol::Packets::kKeepViews);
  {
    Server server(options);
    handler->server = &server;
    FUZZ_CHECK(!server.Listen("127.0.0.1:1"));
    FUZZ_CHECK(!server.Serve());
  }
  FUZZ_CHECK(!kernel.stuck);

  const Seen& seen = handler->seen;
  const Seen expected =
      Reference(stream, options.max_packet_size,
                kernel.resets ? CloseReason::kPeerReset : CloseReason::kPeerClosed);
  FUZZ_CHECK(seen.packets == expected.packets);
  FUZZ_CHECK(seen.reason == expected.reason);
  FUZZ_CHECK(seen.bad.size() == expected.bad.size());
  for (std::size_t i = 0; i < seen.bad.size(); ++i) {
    // Without a way on it is all that waits, which depends on the cuts.
    const bool last = expected.bad[i].empty();
    FUZZ_CHECK(last || seen.bad[i] == expected.bad[i]);
  }
  // The account, and the bytes: a connection that ended in order has written all.
  const ConnStats& stats = handler->stats;
  FUZZ_CHECK(stats.accepted_bytes == handler->sent.size());
  FUZZ_CHECK(stats.written_bytes == kernel.sent.size());
  FUZZ_CHECK(handler->sent.starts_with(kernel.sent));
  if (seen.reason == CloseReason::kPeerClosed) FUZZ_CHECK(kernel.sent == handler->sent);
}

}  // namespace xtcp::test
