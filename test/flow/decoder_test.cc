// Protocols with a state for each connection; what a view holds; what is kept with a connection.

#include <xtcp/xtcp.h>

#include <atomic>
#include <catch2/catch.hpp>
#include <cstdint>
#include <memory>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

#include "support/one_of.h"

namespace xtcp::test {
namespace {

Kind AnyKind() { return GENERATE(Kind::kAccepted, Kind::kDialled, Kind::kOwnServer); }

// A message is a length in one byte, the parts of its body as they come, and an end. Sessions count
// what became of decoders.
struct Piece : Packet {
  enum class What { kHead, kBody, kEnd };
  Piece(What w, std::string t) : what(w), text(std::move(t)) {}
  What what;
  std::string text;
};

struct Sessions {
  std::atomic<int> made{0}, destroyed{0}, elsewhere{0};
  std::atomic<bool> throws_when_made{false};
  bool makes = true;
};

class StreamProtocol : public Protocol {
 public:
  explicit StreamProtocol(std::shared_ptr<Sessions> sessions) : sessions_(std::move(sessions)) {}

  class Session : public Decoder {
   public:
    explicit Session(std::shared_ptr<Sessions> sessions)
        : sessions_(std::move(sessions)), thread_(std::this_thread::get_id()) {
      ++sessions_->made;
    }
    ~Session() override {
      ++sessions_->destroyed;
      if (thread_ != std::this_thread::get_id()) ++sessions_->elsewhere;
    }
    UnpackResult Unpack(std::span<const std::byte> buf) override {
      if (at_end) {
        at_end = false;
        // The end is the mark "." after the body.
        return {std::make_unique<Piece>(Piece::What::kEnd, ""), 1, {}};
      }
      if (left == 0) {
        left = std::to_integer<std::size_t>(buf[0]);
        if (left == 255) throw std::runtime_error("from a decoder");
        at_end = left == 0;
        return {std::make_unique<Piece>(Piece::What::kHead, ""), 1, {}};
      }
      const std::size_t n = std::min(left, buf.size());
      left -= n;
      at_end = left == 0;
      std::string text(AsText(buf.first(n)));
      if (upper) {
        for (char& c : text) c = static_cast<char>(c - 'a' + 'A');
      }
      return {std::make_unique<Piece>(Piece::What::kBody, std::move(text)), n, {}};
    }
    std::size_t left = 0;
    bool at_end = false;
    bool upper = false;

   private:
    std::shared_ptr<Sessions> sessions_;
    std::thread::id thread_;
  };

  std::unique_ptr<Decoder> NewDecoder() const override {
    if (sessions_->throws_when_made) throw std::runtime_error("no decoder");
    if (!sessions_->makes) return nullptr;
    return std::make_unique<Session>(sessions_);
  }

 private:
  std::shared_ptr<Sessions> sessions_;
};

// What a server with that protocol saw.
struct Seen : Handler {
  void OnEvent(EventType event, const ConnPtr& conn, PacketPtr packet) override {
    if (event == EventType::kAccept && asks_early) early = conn->decoder();
    if (event == EventType::kClosed) {
      at_closed = conn->decoder() != nullptr;
      reason = conn->Stats().reason;
      error = conn->Stats().error;
      closed.Set();
    }
    if (packet == nullptr) return;
    const auto& piece = static_cast<const Piece&>(*packet);
    if (piece.what == Piece::What::kHead) {
      // Before the bytes behind it are unpacked.
      static_cast<StreamProtocol::Session*>(conn->decoder())->upper = true;
      static_cast<void>(conn->Send("go on"));
    }
    if (piece.what == Piece::What::kBody) body += piece.text;
    if (piece.what == Piece::What::kEnd) static_cast<void>(conn->Send("done " + body));
  }
  bool asks_early = false;
  Protocol::Decoder* early = nullptr;
  std::string body;
  bool at_closed = false;
  CloseReason reason = CloseReason::kNone;
  std::error_code error;
  Signal closed;
};

struct Streams {
  explicit Streams(bool asks_early = false) {
    handler->asks_early = asks_early;
    Options options;
    options.handler = handler;
    options.protocol = std::make_shared<StreamProtocol>(sessions);
    server = StartServer(*group, handler, options);
    peer = RawPeer(AddressOf(*server));
  }
  TestGroup group{1};
  std::shared_ptr<Sessions> sessions = std::make_shared<Sessions>();
  std::shared_ptr<Seen> handler = std::make_shared<Seen>();
  std::unique_ptr<Server> server;
  RawPeer peer;
};

TEST_CASE("a decoder is asked instead of the protocol, one for each connection", "[M59]") {
  const bool early = GENERATE(false, true);
  Streams s(early);
  // All in one piece: what OnEvent does to the decoder is done before the next bytes.
  REQUIRE(s.peer.SendAll(std::string(1, '\5') + "hello."));
  std::string got;
  REQUIRE(s.peer.ReadExactly(15, &got) == End::kOpen);
  REQUIRE(got == "go ondone HELLO");
  REQUIRE(s.sessions->made == 1);
  if (early) REQUIRE(s.handler->early != nullptr);
  RawPeer other(AddressOf(*s.server));
  REQUIRE(other.SendAll(std::string(1, '\3') + "ab"));
  REQUIRE(other.ReadExactly(5, nullptr) == End::kOpen);
  REQUIRE(s.sessions->made == 2);
  REQUIRE(s.sessions->destroyed == 0);
  other.Close();
  REQUIRE(s.handler->closed.Wait());
  REQUIRE(s.handler->at_closed);  // it is there in kClosed
  REQUIRE(WaitUntil([&] { return s.sessions->destroyed == 1; }));
  REQUIRE(s.group.Finish() == "");
  REQUIRE(s.sessions->destroyed == 2);
  REQUIRE(s.sessions->elsewhere == 0);
}

TEST_CASE("an answer may go out between a head and its body", "[M59]") {
  Streams s;
  REQUIRE(s.peer.SendAll(std::string(1, '\4')));
  std::string got;
  REQUIRE(s.peer.ReadExactly(5, &got) == End::kOpen);
  REQUIRE(got == "go on");
  for (const char* part : {"a", "b", "cd"}) REQUIRE(s.peer.SendAll(part));
  REQUIRE(s.peer.SendAll("."));
  got.clear();
  REQUIRE(s.peer.ReadExactly(9, &got) == End::kOpen);
  REQUIRE(got == "done ABCD");
  REQUIRE(s.group.Finish() == "");
}

TEST_CASE("an exception from a decoder, or where one is made, is one from Unpack", "[M59][M38]") {
  const bool when_made = GENERATE(false, true);
  Streams s;
  s.sessions->throws_when_made = when_made;
  REQUIRE(s.peer.SendAll(std::string(1, '\xff')));
  REQUIRE(s.handler->closed.Wait());
  REQUIRE(s.handler->reason == CloseReason::kException);
  REQUIRE(s.group.Finish() == "");
  REQUIRE(s.sessions->made == s.sessions->destroyed);
}

TEST_CASE("a protocol without decoders has none", "[M59]") {
  OneOf c(AnyKind());
  bool none = false;
  Signal asked;
  REQUIRE_FALSE(c.conn->Post([&] {
    none = c.conn->decoder() == nullptr;
    asked.Set();
  }));
  REQUIRE(asked.Wait());
  REQUIRE(none);
  c.Finish();
}

TEST_CASE("a protocol need not override anything", "[M59]") {
  struct Nothing : Protocol {};
  const Nothing nothing;
  const Packet packet;
  std::vector<std::byte> out;
  REQUIRE(nothing.Pack(packet, &out) == Errc::kBadPacket);
  const std::byte some[1]{};
  const UnpackResult result = nothing.Unpack(some);
  REQUIRE(result.error == Errc::kProtocolError);
  REQUIRE(result.size == 0);
  REQUIRE(nothing.NewDecoder() == nullptr);
}

// ---- The view.

struct Views : Protocol {
  UnpackResult Unpack(std::span<const std::byte> buf) const override {
    most = std::max(most.load(), buf.size());
    return {std::make_unique<Packet>(), buf.size(), {}};  // passes on what there is
  }
  mutable std::atomic<std::size_t> most{0};
};

TEST_CASE("a view is never longer than a packet may be", "[M1]") {
  struct Counts : Handler {
    void OnEvent(EventType event, const ConnPtr& conn, PacketPtr packet) override {
      if (packet != nullptr) ++packets;
      if (event == EventType::kClosed) {
        received = conn->Stats().received_bytes;
        reason = conn->Stats().reason;
        closed.Set();
      }
    }
    std::size_t packets = 0;
    std::uint64_t received = 0;
    CloseReason reason = CloseReason::kNone;
    Signal closed;
  };
  const bool first = GENERATE(false, true);
  auto handler = std::make_shared<Counts>();
  auto protocol = std::make_shared<Views>();
  Options options;
  options.protocol = protocol;
  options.max_packet_size = 1000;
  if (first) options.first_packet_size = 10;
  TestGroup group;
  const auto server = StartServer(*group, handler, options);
  RawPeer peer(AddressOf(*server));
  REQUIRE(peer.SendAll(std::string(100'000, 'x')));
  peer.HalfClose();
  REQUIRE(handler->closed.Wait());
  REQUIRE(handler->reason == CloseReason::kPeerClosed);
  REQUIRE(handler->received == 100'000);
  REQUIRE(protocol->most == 1000);
  REQUIRE(handler->packets >= 100);
  REQUIRE(group.Finish() == "");
}

// ---- What is kept with a connection.

TEST_CASE("EmplaceData and Data keep one object of any type", "[M66]") {
  OneOf c(AnyKind());
  struct Fixed {
    explicit Fixed(int v) : value(v) {}
    Fixed(const Fixed&) = delete;
    int value;
  };
  std::vector<std::string> seen;
  Signal done;
  REQUIRE_FALSE(c.conn->Post([&] {
    if (c.conn->Data<Fixed>() == nullptr) seen.push_back("nothing");
    c.conn->EmplaceData<Fixed>(7).value += 1;
    seen.push_back(std::to_string(c.conn->Data<Fixed>()->value));
    if (c.conn->Data<std::string>() == nullptr) seen.push_back("another type");
    c.conn->EmplaceData<std::unique_ptr<int>>(std::make_unique<int>(3));
    seen.push_back(std::to_string(**c.conn->Data<std::unique_ptr<int>>()));
    c.conn->UserData() = 5;
    if (c.conn->Data<int>() == nullptr) seen.push_back("not by EmplaceData");
    done.Set();
  }));
  REQUIRE(done.Wait());
  REQUIRE(seen ==
          std::vector<std::string>{"nothing", "8", "another type", "3", "not by EmplaceData"});
  c.Finish();
}

}  // namespace
}  // namespace xtcp::test
