#include <catch2/catch.hpp>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <memory>
#include <mutex>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "support/deadline.h"
#include "support/event_recorder.h"
#include "support/raw_peer.h"
#include "support/test_protocol.h"
#include "support/test_server.h"

namespace xtcp::test {
namespace {

using Payloads = std::vector<std::string>;
using Sizes = std::vector<std::size_t>;

// Says how many bytes it needs, and notes how many it is shown. An unfinished frame needs its whole
// length and `more`; the other answers say `elsewhere`, which is not to count.
class NeedProtocol : public TestProtocol {
 public:
  explicit NeedProtocol(std::size_t more = 0, std::size_t elsewhere = 0)
      : more_(more), elsewhere_(elsewhere) {}

  UnpackResult Unpack(std::span<const std::byte> buf) const override {
    UnpackResult result = TestProtocol::Unpack(buf);
    const bool unfinished = result.packet == nullptr && result.size == 0 && !result.error;
    std::size_t need = elsewhere_;
    if (unfinished && buf.size() < kHeaderSize) need = kHeaderSize;
    if (unfinished && buf.size() >= kHeaderSize) need = kHeaderSize + Reader(buf).U32Be() + more_;
    result.need = need;
    std::lock_guard lock(mutex_);
    shown_.push_back(buf.size());
    needed_.push_back(unfinished ? need : 0);
    return result;
  }

  Sizes shown() const {
    std::lock_guard lock(mutex_);
    return shown_;
  }

  // How often it was asked again although it had not yet what it needed.
  std::size_t AskedTooEarly() const {
    std::lock_guard lock(mutex_);
    std::size_t count = 0;
    for (std::size_t i = 1; i < shown_.size(); ++i) {
      if (shown_[i] < needed_[i - 1]) ++count;
    }
    return count;
  }

 private:
  const std::size_t more_;
  const std::size_t elsewhere_;
  mutable std::mutex mutex_;
  mutable Sizes shown_;
  mutable Sizes needed_;
};

// A server with that protocol, and one peer.
struct Scene {
  explicit Scene(std::shared_ptr<NeedProtocol> with, Options options = {})
      : protocol(std::move(with)),
        server(std::make_shared<EventRecorder>(), Use(std::move(options), protocol)),
        peer(server.port()) {}

  static Options Use(Options options, std::shared_ptr<const Protocol> protocol) {
    options.protocol = std::move(protocol);
    return options;
  }

  // Sends, and waits until the server has read it: what is sent next comes in a read of its own.
  bool SendAndWait(std::string_view bytes) {
    sent += bytes.size();
    if (!peer.SendAll(bytes) || !server.events().WaitForAccepted(1)) return false;
    const ConnPtr conn = server.events().conn();
    return WaitUntil([&] { return conn->Stats().received_bytes >= sent; });
  }

  std::shared_ptr<NeedProtocol> protocol;
  TestServer server;
  RawPeer peer;
  std::size_t sent = 0;
};

TEST_CASE("a protocol that says how much it needs is not asked before that waits", "[M58]") {
  Scene scene(std::make_shared<NeedProtocol>());
  const std::string frame = Frame(std::string(1000, 'x'));
  REQUIRE(scene.SendAndWait(frame.substr(0, kHeaderSize)));
  for (std::size_t at = kHeaderSize; at < frame.size(); at += 100) {
    REQUIRE(scene.SendAndWait(frame.substr(at, 100)));
  }
  REQUIRE(scene.server.events().WaitForPackets(1));
  REQUIRE(scene.protocol->AskedTooEarly() == 0);
  REQUIRE(scene.protocol->shown().back() == frame.size());
  // It was asked once for the header and once for the frame, and before if the header came in pieces.
  REQUIRE(scene.protocol->shown().size() <= 3);
  REQUIRE(scene.server.Finish() == "");
}

TEST_CASE("a need that is met already is as none: the next bytes are shown", "[M58]") {
  struct Modest : NeedProtocol {
    UnpackResult Unpack(std::span<const std::byte> buf) const override {
      UnpackResult result = NeedProtocol::Unpack(buf);
      if (result.need != 0) result.need = buf.size();
      return result;
    }
  };
  Scene scene(std::make_shared<Modest>());
  const std::string frame = Frame("slowly");
  for (std::size_t i = 0; i < frame.size(); ++i) {
    REQUIRE(scene.SendAndWait(frame.substr(i, 1)));
  }
  REQUIRE(scene.server.events().WaitForPackets(1));
  REQUIRE(scene.protocol->shown() == Sizes{1, 2, 3, 4, 5, 6, 7, 8, 9, 10});
  REQUIRE(scene.server.Finish() == "");
}

TEST_CASE("what answers other than 'more bytes' say of a need does not count", "[M58]") {
  Scene scene(std::make_shared<NeedProtocol>(0, std::numeric_limits<std::size_t>::max()));
  REQUIRE(scene.SendAndWait(Frame("a") + MarkedFrame(Marker::kSkip, "s") + Frame("b") +
                            MarkedFrame(Marker::kBad, "bad") + Frame("c")));
  REQUIRE(scene.SendAndWait(Frame("d")));
  REQUIRE(scene.server.events().WaitForPackets(4));
  REQUIRE(scene.server.events().WaitForUnpackErrors(1));
  REQUIRE(scene.server.Finish() == "");
  REQUIRE(scene.server.events().connection().payloads == Payloads{"a", "b", "c", "d"});
}

TEST_CASE("at the end of the stream the protocol is shown what it has not seen", "[M58][M16]") {
  SECTION("which may be a packet: it had asked for more than it needed") {
    Scene scene(std::make_shared<NeedProtocol>(1000));
    const std::string frame = Frame("last");
    REQUIRE(scene.SendAndWait(frame.substr(0, kHeaderSize)));
    REQUIRE(scene.SendAndWait(frame.substr(kHeaderSize)));
    scene.peer.HalfClose();
    REQUIRE(scene.server.events().WaitForClosed(1));
    REQUIRE(scene.server.Finish() == "");
    REQUIRE(scene.server.events().connection().payloads == Payloads{"last"});
    REQUIRE(scene.protocol->AskedTooEarly() == 1);
  }
  SECTION("which may be nothing complete") {
    Scene scene(std::make_shared<NeedProtocol>());
    const std::string frame = Frame("too short");
    REQUIRE(scene.SendAndWait(frame.substr(0, kHeaderSize)));
    REQUIRE(scene.SendAndWait(frame.substr(kHeaderSize, 3)));
    scene.peer.HalfClose();
    REQUIRE(scene.server.events().WaitForClosed(1));
    REQUIRE(scene.server.Finish() == "");
    REQUIRE(scene.protocol->shown().back() == kHeaderSize + 3);
    REQUIRE(scene.protocol->AskedTooEarly() == 1);
  }
  SECTION("but is not asked again when it has seen all") {
    Scene scene(std::make_shared<NeedProtocol>());
    REQUIRE(scene.SendAndWait(Header(9)));
    scene.peer.HalfClose();
    REQUIRE(scene.server.events().WaitForClosed(1));
    REQUIRE(scene.server.Finish() == "");
    REQUIRE(scene.protocol->shown().back() == kHeaderSize);
    REQUIRE(scene.protocol->AskedTooEarly() == 0);
  }
}

TEST_CASE("a need over the limit ends the connection at once, without last words", "[M58][M2]") {
  Options options;
  options.first_packet_size = 100;
  options.max_packet_size = 1000;
  const bool first = GENERATE(true, false);
  const std::uint32_t most = (first ? 100 : 1000) - kHeaderSize;
  CAPTURE(first);
  Scene scene(std::make_shared<NeedProtocol>(), options);
  if (!first) REQUIRE(scene.SendAndWait(Frame("login")));
  SECTION("a byte more") {
    REQUIRE(scene.peer.SendAll(Header(most + 1)));
    REQUIRE(scene.server.events().WaitForClosed(1));
    REQUIRE(scene.server.Finish() == "");
    const auto connection = scene.server.events().connection();
    REQUIRE(connection.at_closed.reason == CloseReason::kPacketTooLarge);
    REQUIRE(connection.unpack_errors.empty());
  }
  SECTION("the limit itself") {
    REQUIRE(scene.SendAndWait(Header(most)));
    REQUIRE(scene.SendAndWait(std::string(most, 'x')));
    REQUIRE(scene.server.events().WaitForPackets(first ? 1 : 2));
    REQUIRE(scene.server.Finish() == "");
  }
}

TEST_CASE("the packet deadline runs while a need is not met", "[M58][R8]") {
  Options options;
  options.packet_deadline = std::chrono::milliseconds(50);
  Scene scene(std::make_shared<NeedProtocol>(), options);
  REQUIRE(scene.peer.SendAll(Header(1000)));
  REQUIRE(scene.server.events().WaitForClosed(1));
  REQUIRE(scene.server.Finish() == "");
  REQUIRE(scene.server.events().connection().at_closed.reason == CloseReason::kPacketDeadline);
}

}  // namespace
}  // namespace xtcp::test
