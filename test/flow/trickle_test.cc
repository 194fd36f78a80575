// A long message in many small segments costs a decoder about what it costs in one piece.

#include <time.h>
#include <xtcp/xtcp.h>

#include <algorithm>
#include <catch2/catch.hpp>
#include <chrono>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "support/one_of.h"

namespace xtcp::test {
namespace {

using namespace std::chrono_literals;

#if defined(__SANITIZE_THREAD__)
// 200'000 take 20 s there, and what is quadratic shows in 250 segments, too.
constexpr std::size_t kParts = 40'000;
#else
constexpr std::size_t kParts = 200'000;
#endif
constexpr std::string_view kPart = "$3\r\nabc\r\n";
constexpr std::size_t kSegment = 1'460;  // what an Ethernet frame carries; no multiple of a part

// A command of so many parts. It goes on where it was; what it gives is each part, or all at once.
class CommandDecoder : public Protocol::Decoder {
 public:
  explicit CommandDecoder(bool gives_parts) : gives_parts_(gives_parts) {}

  UnpackResult Unpack(std::span<const std::byte> buf) override {
    const std::string_view text = AsText(buf);
    while (text.size() - seen_ >= kPart.size()) {
      if (text.substr(seen_, kPart.size()) != kPart) return {.error = Errc::kProtocolError};
      words_.emplace_back(text.substr(seen_ + 4, 3));
      seen_ += kPart.size();
      if (gives_parts_ || words_.size() == kParts) {
        return {.packet = std::make_unique<Packet>(), .size = std::exchange(seen_, 0)};
      }
    }
    return {};
  }

 private:
  const bool gives_parts_;
  std::size_t seen_ = 0;
  std::vector<std::string> words_;
};

struct CommandProtocol : Protocol {
  explicit CommandProtocol(bool by_part) : gives_parts(by_part) {}
  std::unique_ptr<Decoder> NewDecoder() const override {
    return std::make_unique<CommandDecoder>(gives_parts);
  }
  const bool gives_parts;
};

// The CPU time of the loop's thread from the first event to the last packet.
struct Clocked : Handler {
  explicit Clocked(std::size_t expected) : packets(expected) {}
  void OnEvent(EventType event, const ConnPtr&, PacketPtr packet) override {
    if (event == EventType::kAccept) begin = Now();
    if (packet == nullptr || --packets != 0) return;
    cost = Now() - begin;
    all.Set();
  }
  static std::chrono::nanoseconds Now() {
    timespec time{};
    ::clock_gettime(CLOCK_THREAD_CPUTIME_ID, &time);
    return std::chrono::seconds(time.tv_sec) + std::chrono::nanoseconds(time.tv_nsec);
  }
  std::size_t packets;
  std::chrono::nanoseconds begin{}, cost{};
  Signal all;
};

std::chrono::nanoseconds CostOf(bool gives_parts, std::size_t segment) {
  const auto handler = std::make_shared<Clocked>(gives_parts ? kParts : 1);
  Options options;
  options.protocol = std::make_shared<CommandProtocol>(gives_parts);
  TestGroup group;
  const auto server = StartServer(*group, handler, options);
  RawPeer peer(AddressOf(*server));
  std::string bytes;
  for (std::size_t i = 0; i < kParts; ++i) bytes += kPart;
  for (std::size_t at = 0; at < bytes.size(); at += segment) {
    REQUIRE(peer.SendAll(std::string_view(bytes).substr(at, segment)));
    // One at a time, or the kernel would put them together.
    const std::size_t sent = std::min(at + segment, bytes.size());
    if (segment < bytes.size()) {
      REQUIRE(WaitUntil([&] { return server->Stats().received_bytes == sent; }));
    }
  }
  REQUIRE(handler->all.Wait());
  REQUIRE(group.Finish() == "");
  return handler->cost;
}

TEST_CASE("in small segments a long message costs a decoder at most thrice what it costs in one",
          "[M59][M58][seen-24]") {
  const bool gives_parts = GENERATE(false, true);
  CAPTURE(gives_parts);
  // The least of three: a processor that others use makes a run dearer, and none cheaper.
  std::chrono::nanoseconds whole = 1h, trickled = 1h;
  for (int i = 0; i < 3; ++i) {
    whole = std::min(whole, CostOf(gives_parts, kParts * kPart.size()));
    trickled = std::min(trickled, CostOf(gives_parts, kSegment));
  }
  CAPTURE(whole.count(), trickled.count());
  CHECK(trickled <= 3 * whole);
}

}  // namespace
}  // namespace xtcp::test
