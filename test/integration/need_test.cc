// UnpackResult::need: a protocol that says how many bytes it waits for is not asked before.

#include <algorithm>
#include <catch2/catch.hpp>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <numeric>
#include <span>
#include <string>
#include <string_view>
#include <system_error>
#include <utility>
#include <vector>

#include "support/alloc_hook.h"
#include "support/event_recorder.h"
#include "support/one_connection.h"
#include "support/raw_peer.h"
#include "support/test_protocol.h"

namespace xtcp::test {
namespace {

using Sizes = std::vector<std::size_t>;

// Answers as the test says, and remembers how many bytes it was shown each time.
class Asked final : public Protocol {
 public:
  using Answer = std::function<UnpackResult(std::string_view)>;
  explicit Asked(Answer answer) : answer_(std::move(answer)) {}

  std::size_t PackSize(const Packet&) const override { return 0; }
  std::error_code PackTo(const Packet&, Writer&) const override { return Errc::kBadPacket; }
  UnpackResult Unpack(std::span<const std::byte> buf) const override {
    {
      std::lock_guard lock(mutex_);
      shown_.push_back(buf.size());
    }
    return answer_(AsText(buf));
  }

  Sizes shown() const {
    std::lock_guard lock(mutex_);
    return shown_;
  }

 private:
  const Answer answer_;
  mutable std::mutex mutex_;
  mutable Sizes shown_;
};

UnpackResult Whole(std::string_view bytes, std::size_t size) {
  return {.packet = std::make_unique<BytesPacket>(std::string(bytes.substr(0, size))),
          .size = size};
}

UnpackResult Need(std::size_t need) { return {.need = need}; }

// Frames whose header says how long they are, and what is needed when they are not complete.
UnpackResult FrameOrNeed(std::string_view bytes) {
  Reader in(AsBytes(bytes));
  const std::size_t size = kHeaderSize + in.U32Be();
  if (in.failed()) return Need(kHeaderSize);
  return bytes.size() < size ? Need(size) : Whole(bytes, size);
}

// A connection whose protocol is one of the above.
struct Connection {
  explicit Connection(Asked::Answer answer, Options options = {}, Kind kind = Kind::kAccepted)
      : protocol(std::make_shared<Asked>(std::move(answer))),
        one(kind, With(std::move(options), protocol)) {}

  static Options With(Options options, std::shared_ptr<const Protocol> protocol) {
    options.protocol = std::move(protocol);
    return options;
  }

  // Sends bytes that are read before this returns.
  void Send(std::string_view bytes) {
    const std::uint64_t before = one.conn->Stats().received_bytes;
    REQUIRE(one.peer.SendAll(bytes));
    REQUIRE(WaitUntil([&] { return one.conn->Stats().received_bytes == before + bytes.size(); }));
  }
  void SendOneByOne(std::string_view bytes) {
    for (const char& byte : bytes) Send({&byte, 1});
  }

  const std::shared_ptr<Asked> protocol;
  OneConnection one;
};

TEST_CASE("Unpack is not called before as many bytes wait as it needs", "[M58][seen-24]") {
  const Kind kind = GENERATE(Kind::kAccepted, Kind::kDialled);
  Connection c(FrameOrNeed, {}, kind);
  const std::string first = Frame("twenty bytes of text"), second = Frame("x");
  c.SendOneByOne(first + second);
  REQUIRE(c.one.events->WaitForPackets(2));
  // Counted from the beginning of the view, each time.
  CHECK(c.protocol->shown() == Sizes{1, kHeaderSize, first.size(), 1, kHeaderSize, second.size()});
  REQUIRE(c.one.Finish() == "");
  CHECK(c.one.events->connection().payloads == std::vector<std::string>{first, second});
}

TEST_CASE("what is needed counts on after packets that came in the same read", "[M58][seen-24]") {
  Connection c(FrameOrNeed);
  const std::string half = Header(100) + std::string(50, 'x');
  REQUIRE(c.one.peer.SendAll(Frame("a") + Frame("b") + half));
  REQUIRE(c.one.events->WaitForPackets(2));
  REQUIRE(WaitUntil([&] { return c.one.conn->Stats().received_bytes == 10 + half.size(); }));
  const std::size_t before = c.protocol->shown().size();
  c.SendOneByOne(std::string(49, 'x'));
  CHECK(c.protocol->shown().size() <= before + 2);  // if the read was cut within `half`
  c.Send("x" + Frame("c").substr(0, 1));
  REQUIRE(c.one.events->WaitForPackets(3));
  REQUIRE(c.one.Finish() == "");
}

TEST_CASE("at the end of the stream Unpack sees once what it has not seen", "[M58][M16][seen-24]") {
  const auto answer = [](std::string_view bytes) {
    return bytes.ends_with('.') ? Whole(bytes, bytes.size()) : Need(100);
  };
  SECTION("nothing new: it is not called") {
    Connection c(answer);
    c.Send("1");
    c.one.peer.HalfClose();
    REQUIRE(c.one.events->WaitForClosed(1));
    CHECK(c.protocol->shown() == Sizes{1});
    REQUIRE(c.one.Finish() == "");
    CHECK(c.one.reason() == CloseReason::kPeerClosed);
  }
  SECTION("bytes that were too few: it is called, and may still want more") {
    Connection c(answer);
    c.SendOneByOne("123456");
    c.one.peer.HalfClose();
    REQUIRE(c.one.events->WaitForClosed(1));
    CHECK(c.protocol->shown() == Sizes{1, 6});
    REQUIRE(c.one.Finish() == "");
    CHECK(c.one.reason() == CloseReason::kPeerClosed);
    CHECK(c.one.events->totals().packets == 0);
    CHECK(c.one.events->totals().unpack_errors == 0);
  }
  SECTION("a last packet is delivered, before kClosed") {
    Connection c(answer);
    c.SendOneByOne("12345.");
    c.one.peer.HalfClose();
    REQUIRE(c.one.events->WaitForClosed(1));
    CHECK(c.protocol->shown() == Sizes{1, 6});
    REQUIRE(c.one.Finish() == "");
    CHECK(c.one.events->connection().payloads == std::vector<std::string>{"12345."});
    CHECK(c.one.reason() == CloseReason::kPeerClosed);
  }
  SECTION("so are thousands, which take several turns") {
    Connection c(
        [](std::string_view bytes) { return bytes.ends_with('.') ? Whole(bytes, 1) : Need(5000); });
    c.Send("1");
    c.Send(std::string(2998, 'x') + ".");
    c.one.peer.HalfClose();
    REQUIRE(c.one.events->WaitForClosed(1));
    REQUIRE(c.one.Finish() == "");
    CHECK(c.one.events->totals().packets == 3000);
    CHECK(c.one.reason() == CloseReason::kPeerClosed);
  }
}

TEST_CASE("a need that the view meets already is no need", "[M58][seen-24]") {
  const std::size_t beyond = GENERATE(0u, 1u);
  Connection c([&](std::string_view bytes) {
    return bytes.size() < 6 ? Need(bytes.size() - beyond) : Whole(bytes, 6);
  });
  c.SendOneByOne("123456");
  REQUIRE(c.one.events->WaitForPackets(1));
  CHECK(c.protocol->shown() == Sizes{1, 2, 3, 4, 5, 6});
  REQUIRE(c.one.Finish() == "");
}

TEST_CASE("a need counts with 'more bytes are needed' only", "[M58][seen-24]") {
  Connection c([](std::string_view bytes) -> UnpackResult {
    switch (bytes[0]) {
      case 'p': {
        UnpackResult result = Whole(bytes, 1);
        result.need = 1 << 30;
        return result;
      }
      case 's':
        return {.size = 1, .need = 1 << 30};
      case 'b':
        return {.size = 1, .error = TestProtocol::UnpackError(), .need = 1 << 30};
      default:
        return {.error = TestProtocol::UnpackError(), .need = 1 << 30};
    }
  });
  c.SendOneByOne("psbp");
  REQUIRE(c.one.events->WaitForPackets(2));
  CHECK(c.one.events->totals().unpack_errors == 1);
  REQUIRE(c.one.peer.SendAll("!"));
  REQUIRE(c.one.events->WaitForClosed(1));
  CHECK(c.one.reason() == CloseReason::kProtocolError);
  REQUIRE(c.one.Finish() == "");
}

TEST_CASE("a need beyond the limit ends the connection at once", "[M2][M58][X1][X2][seen-24]") {
  Options options;
  options.max_packet_size = 1000;
  options.first_packet_size = GENERATE(0u, 100u);
  CAPTURE(options.first_packet_size);
  const std::size_t first = options.first_packet_size == 0 ? 1000 : options.first_packet_size;
  const auto frame = [](std::size_t size) { return Frame(std::string(size - kHeaderSize, 'x')); };
  const auto header = [](std::size_t size) {
    return Header(static_cast<std::uint32_t>(size - kHeaderSize));
  };
  SECTION("as the first packet") {
    Connection c(FrameOrNeed, options);
    REQUIRE(c.one.peer.SendAll(header(first + 1)));
    REQUIRE(c.one.events->WaitForClosed(1));
    CHECK(c.one.reason() == CloseReason::kPacketTooLarge);
    CHECK(c.one.events->totals().unpack_errors == 0);
    REQUIRE(c.one.Finish() == "");
  }
  SECTION("later") {
    Connection c(FrameOrNeed, options);
    // As large as may be.
    c.SendOneByOne(frame(first));
    REQUIRE(c.one.events->WaitForPackets(1));
    c.SendOneByOne(frame(1000));
    REQUIRE(c.one.events->WaitForPackets(2));
    REQUIRE(c.one.peer.SendAll(header(1001)));
    REQUIRE(c.one.events->WaitForClosed(1));
    CHECK(c.one.reason() == CloseReason::kPacketTooLarge);
    CHECK(c.one.events->totals().packets == 2);
    CHECK(c.one.events->totals().unpack_errors == 0);
    REQUIRE(c.one.Finish() == "");
  }
}

TEST_CASE("a pause changes nothing about what is needed", "[M18][M58][seen-24]") {
  Connection c(FrameOrNeed);
  const std::string frame = Frame("0123456789");
  c.SendOneByOne(frame.substr(0, 6));
  const Sizes shown = c.protocol->shown();
  REQUIRE(shown == Sizes{1, 4});
  c.one.conn->PauseRecv();
  REQUIRE(c.one.peer.SendAll(frame.substr(6, 4)));
  c.one.conn->ResumeRecv();
  REQUIRE(WaitUntil([&] { return c.one.conn->Stats().received_bytes == 10; }));
  CHECK(c.protocol->shown() == shown);
  c.SendOneByOne(frame.substr(10));
  REQUIRE(c.one.events->WaitForPackets(1));
  CHECK(c.protocol->shown() == Sizes{1, 4, frame.size()});
  REQUIRE(c.one.Finish() == "");
}

TEST_CASE("a graceful stop does not ask for what was not needed", "[M7][M58][seen-24]") {
  Connection c(FrameOrNeed);
  c.SendOneByOne(Frame("0123456789").substr(0, 8));
  static_cast<void>(c.one.conn->Stop(StopMode::kGracefullyButNotWait));
  REQUIRE(c.one.peer.ReadAll() == End::kEof);
  REQUIRE(c.one.peer.SendAll(Frame("0123456789").substr(8)));
  c.one.peer.HalfClose();
  REQUIRE(c.one.events->WaitForClosed(1));
  CHECK(c.protocol->shown() == Sizes{1, 4});
  CHECK(c.one.reason() == CloseReason::kLocalStop);
  REQUIRE(c.one.Finish() == "");
}

TEST_CASE("a long packet that trickles is looked at about once", "[M58][X1][seen-24]") {
  constexpr std::size_t kSize = 200'000;
  constexpr std::size_t kPiece = 500;
  // A protocol that searches for a delimiter asks for twice as much as it has searched.
  const auto line = [](std::size_t factor) {
    return [factor](std::string_view bytes) {
      const std::size_t end = bytes.find('\n');
      return end == bytes.npos ? Need(factor * bytes.size()) : Whole(bytes, end + 1);
    };
  };
  const auto bytes_shown = [&](Asked::Answer answer, std::string bytes) {
    Options options;
    options.max_packet_size = 4 * kSize;
    Connection c(std::move(answer), options);
    for (std::size_t at = 0; at < bytes.size(); at += kPiece) {
      c.Send(std::string_view(bytes).substr(at, kPiece));
    }
    // Without the peer's end it would wait for more than comes.
    c.one.peer.HalfClose();
    REQUIRE(c.one.events->WaitForClosed(1));
    CHECK(c.one.events->totals().packets == 1);
    const Sizes shown = c.protocol->shown();
    REQUIRE(c.one.Finish() == "");
    return std::accumulate(shown.begin(), shown.end(), std::size_t{0});
  };
  const std::string text = std::string(kSize - 1, 'x') + "\n";
  CHECK(bytes_shown(FrameOrNeed, Frame(std::string(kSize, 'x'))) <= 2 * kSize);
  CHECK(bytes_shown(line(2), text) <= 4 * kSize);
  CHECK(bytes_shown(line(0), text) >= 50 * kSize);  // what it is without
}

TEST_CASE("nothing is reserved because of what is needed", "[M58][X4][seen-24]") {
  Connection c([](std::string_view) { return Need(16 << 20); });
  c.Send("1");
  const std::int64_t before = BytesInUse();
  for (int i = 0; i < 100; ++i) c.Send("2");
  CHECK(BytesInUse() - before < (64 << 10));
  CHECK(c.protocol->shown() == Sizes{1});
  REQUIRE(c.one.Finish() == "");
}

}  // namespace
}  // namespace xtcp::test
