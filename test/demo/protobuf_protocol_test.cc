// The demo's protocol against peers that lie. Every view is a heap block of its exact size, so that
// the address sanitizer sees a read past its end.

#include "protobuf_protocol.h"

#include <google/protobuf/any.pb.h>
#include <google/protobuf/stubs/logging.h>
#include <google/protobuf/util/message_differencer.h>
#include <xtcp/testing/check_protocol.h>

#include <algorithm>
#include <catch2/catch.hpp>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <system_error>
#include <vector>

#include "chat.pb.h"
#include "support/random.h"

namespace {

using demo::ProtobufErrc;
using demo::ProtobufPacket;
using demo::ProtobufProtocol;

constexpr std::size_t kHeader = ProtobufProtocol::kHeaderBytes;
constexpr std::size_t kMax = ProtobufProtocol::kFrameBytesMax;

const ProtobufProtocol& Chat() {
  static const ProtobufProtocol protocol = [] {
    // Its lines about what does not parse are no news here.
    google::protobuf::SetLogHandler(nullptr);
    return ProtobufProtocol(chat::ChatLine::descriptor()->file());
  }();
  return protocol;
}

std::string U32Be(std::uint32_t value) {
  std::string bytes;
  for (int shift = 24; shift >= 0; shift -= 8) bytes += static_cast<char>(value >> shift);
  return bytes;
}

// A frame that says of itself what it is told to.
std::string Frame(std::uint32_t outer, std::uint32_t inner, std::string_view rest) {
  return U32Be(outer) + U32Be(inner) + std::string(rest);
}

// An honest one.
std::string Frame(std::string_view name, std::string_view body) {
  return Frame(static_cast<std::uint32_t>(kHeader + name.size() + body.size()),
               static_cast<std::uint32_t>(name.size()), std::string(name) + std::string(body));
}

std::string Packed(const google::protobuf::Message& message) {
  std::vector<std::byte> bytes;
  REQUIRE_FALSE(Chat().Pack(ProtobufPacket(message), &bytes));
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

xtcp::UnpackResult Unpack(std::string_view text) {
  const auto view = std::make_unique<std::byte[]>(text.size());
  std::memcpy(view.get(), text.data(), text.size());
  return Chat().Unpack({view.get(), text.size()});
}

bool WantsMore(const xtcp::UnpackResult& result) {
  return result.packet == nullptr && result.size == 0 && !result.error;
}

// A bad packet of `size` bytes; 0: no way to resynchronise.
bool IsBad(const xtcp::UnpackResult& result, std::size_t size, ProtobufErrc error) {
  return result.packet == nullptr && result.size == size && result.error == error;
}

// One of the answers that `Protocol::Unpack` allows.
bool IsLegal(const xtcp::UnpackResult& result, std::size_t waiting) {
  if (result.size > waiting) return false;
  return result.packet == nullptr || (result.size > 0 && !result.error);
}

const google::protobuf::Message& MessageOf(const xtcp::UnpackResult& result) {
  return *static_cast<const ProtobufPacket&>(*result.packet).message();
}

chat::LoginRequest Login(std::string_view account, std::string_view password) {
  chat::LoginRequest login;
  login.set_account(std::string(account));
  login.set_password(std::string(password));
  return login;
}

chat::LoginResponse Welcome() {
  chat::LoginResponse response;
  response.set_result(chat::LoginResponse::RESULT_WELCOME);
  return response;
}

chat::ChatLine Line(std::string_view text) {
  chat::ChatLine line;
  line.set_text(std::string(text));
  return line;
}

// Takes packets from a stream that grows, as a connection does, and writes down what comes.
class Stream {
 public:
  void Add(std::string_view bytes) {
    waiting_ += bytes;
    while (!ended_ && !waiting_.empty()) {
      const xtcp::UnpackResult result = Unpack(waiting_);
      REQUIRE(IsLegal(result, waiting_.size()));
      if (WantsMore(result)) return;
      if (result.packet != nullptr) {
        log_.push_back(result.packet->ToString() + " " + MessageOf(result).ShortDebugString());
      } else {
        log_.push_back(std::to_string(result.size) + " bytes: " + result.error.message());
      }
      ended_ = result.size == 0;
      waiting_.erase(0, result.size);
    }
  }

  bool ended() const { return ended_; }
  const std::vector<std::string>& log() const { return log_; }

 private:
  std::string waiting_;
  std::vector<std::string> log_;
  bool ended_ = false;
};

// A bit of everything that leaves the connection open.
std::string MixedStream() {
  return Packed(Login("alice", "open sesame")) + Packed(Welcome()) + Packed(Line("hello")) +
         Frame("chat.Nonsense", "body") + Packed(Line("")) + Frame(8, 0, "") +
         Frame(12, 0x7fffffff, "name") +
         Frame("chat.ChatLine",
               "\x0a\x05"
               "ab") +
         Packed(Line("bye-bye"));
}

TEST_CASE("the demo's protocol keeps the rules of Unpack", "[M66]") {
  const auto same = [](const xtcp::Packet& a, const xtcp::Packet& b) {
    return google::protobuf::util::MessageDifferencer::Equals(
        *static_cast<const ProtobufPacket&>(a).message(),
        *static_cast<const ProtobufPacket&>(b).message());
  };
  const std::vector<std::string> samples{
      Packed(Login("me", "secret")), Packed(Welcome()), Packed(Line("")),
      Packed(Line("hello")) + Packed(Line("x")), Packed(Line(std::string(2000, 'z')))};
  CHECK(xtcp::CheckProtocol(Chat(), samples, same) == std::vector<std::string>{});
  CHECK(xtcp::CheckProtocol(Chat(), {Frame(9, 0, "x") + Frame("chat.Nobody", "") + samples[0]},
                            same, xtcp::Samples::kAnyBytes) == std::vector<std::string>{});
}

}  // namespace

TEST_CASE("demo protocol: what is packed comes back") {
  const std::vector<std::shared_ptr<google::protobuf::Message>> messages = {
      std::make_shared<chat::LoginRequest>(Login("alice", "open sesame")),
      std::make_shared<chat::LoginRequest>(),
      std::make_shared<chat::LoginResponse>(Welcome()),
      std::make_shared<chat::ChatLine>(Line("")),
      std::make_shared<chat::ChatLine>(Line("h\xc3\xa4llo")),
      std::make_shared<chat::ChatLine>(Line(std::string(1, '\0'))),
      std::make_shared<chat::ChatLine>(Line(std::string(60'000, 'x'))),
  };
  for (const auto& message : messages) {
    CAPTURE(message->GetTypeName());
    const std::string bytes = Packed(*message);
    CHECK(bytes == Frame(message->GetTypeName(), message->SerializeAsString()));

    const xtcp::UnpackResult result = Unpack(bytes);
    REQUIRE(result.packet != nullptr);
    CHECK(result.size == bytes.size());
    CHECK_FALSE(result.error);
    CHECK(result.packet->ToString() == message->GetTypeName());
    CHECK(MessageOf(result).SerializeAsString() == message->SerializeAsString());
  }
}

TEST_CASE("demo protocol: a packet tells its message's class") {
  const xtcp::UnpackResult result = Unpack(Packed(Line("hello")));
  REQUIRE(result.packet != nullptr);
  const auto& packet = static_cast<const ProtobufPacket&>(*result.packet);
  CHECK(packet.As<chat::LoginRequest>() == nullptr);
  REQUIRE(packet.As<chat::ChatLine>() != nullptr);
  CHECK(packet.As<chat::ChatLine>()->text() == "hello");
}

TEST_CASE("demo protocol: PackSize is the number of bytes written") {
  xtcp::test::Random random;
  for (int round = 0; round < 200; ++round) {
    const ProtobufPacket packet(Line(std::string(random.Between(0, 300 * (round % 5)), 'x')));
    const std::size_t size = Chat().PackSize(packet);
    REQUIRE(size > kHeader);

    std::vector<std::byte> room(size + 10);
    xtcp::Writer writer(room);
    REQUIRE_FALSE(Chat().PackTo(packet, writer));
    REQUIRE(writer.written() == size);

    // With less room it fails, and writes nothing past the end.
    const auto small = std::make_unique<std::byte[]>(size - 1);
    xtcp::Writer short_writer({small.get(), size - 1});
    REQUIRE(Chat().PackTo(packet, short_writer));
  }
}

TEST_CASE("demo protocol: what cannot be packed says why") {
  const auto refusal = [](const xtcp::Packet& packet) {
    CHECK(Chat().PackSize(packet) == 0);
    xtcp::Writer no_room({});
    std::vector<std::byte> out(1);
    const std::error_code error = Chat().PackTo(packet, no_room);
    CHECK(Chat().Pack(packet, &out) == error);
    CHECK(out.empty());
    return error;
  };
  CHECK(refusal(xtcp::Packet()) == ProtobufErrc::kNoMessage);
  CHECK(refusal(ProtobufPacket(nullptr)) == ProtobufErrc::kNoMessage);
  CHECK(refusal(ProtobufPacket(google::protobuf::Any())) == ProtobufErrc::kUnknownMessage);
  CHECK(refusal(ProtobufPacket(Line(std::string(kMax, 'x')))) == ProtobufErrc::kFrameTooLong);
}

TEST_CASE("demo protocol: the longest frame is taken, the next longer one is not") {
  // The text's key and its length of three bytes.
  const std::size_t overhead = kHeader + std::string_view("chat.ChatLine").size() + 4;
  const std::string longest = Packed(Line(std::string(kMax - overhead, 'x')));
  REQUIRE(longest.size() == kMax);
  CHECK(Unpack(longest).packet != nullptr);

  const ProtobufPacket longer(Line(std::string(kMax - overhead + 1, 'x')));
  CHECK(Chat().PackSize(longer) == 0);
  CHECK(IsBad(Unpack(U32Be(kMax + 1)), 0, ProtobufErrc::kFrameTooLong));
}

TEST_CASE("demo protocol: every prefix of a frame asks for more") {
  const std::vector<std::string> frames = {
      Packed(Login("alice", "open sesame")), Packed(Line("")), Frame("chat.Nonsense", "body"),
      Frame(12, 0xffffffff, "name"),         Frame(8, 0, ""),  Frame("chat.ChatLine", "garbage"),
  };
  for (const std::string& frame : frames) {
    for (std::size_t size = 1; size < frame.size(); ++size) {
      CAPTURE(size, frame.size());
      CHECK(WantsMore(Unpack(frame.substr(0, size))));
    }
    CHECK(Unpack(frame).size == frame.size());
  }
}

TEST_CASE("demo protocol: a stream gives the same packets wherever it is cut") {
  const std::string bytes = MixedStream();
  Stream whole;
  whole.Add(bytes);
  REQUIRE(whole.log().size() == 9);
  REQUIRE_FALSE(whole.ended());

  for (std::size_t cut = 1; cut < bytes.size(); ++cut) {
    CAPTURE(cut);
    Stream stream;
    stream.Add(bytes.substr(0, cut));
    stream.Add(bytes.substr(cut));
    CHECK(stream.log() == whole.log());
  }

  Stream dribble;
  for (const char byte : bytes) dribble.Add({&byte, 1});
  CHECK(dribble.log() == whole.log());
}

TEST_CASE("demo protocol: lying outer lengths") {
  for (const std::uint32_t inner : {0u, 1u, 2u, 3u, 4u, 5u, 0x7fffffffu, 0xffffffffu}) {
    for (std::uint32_t outer = 0; outer <= 12; ++outer) {
      for (std::size_t there = 4; there <= 12; ++there) {
        CAPTURE(inner, outer, there);
        const xtcp::UnpackResult result = Unpack(Frame(outer, inner, "name").substr(0, there));
        if (outer < kHeader) {
          CHECK(IsBad(result, 0, ProtobufErrc::kFrameTooShort));
        } else if (outer > there) {
          CHECK(WantsMore(result));
        } else if (inner == 0 || inner > outer - kHeader) {
          CHECK(IsBad(result, outer, ProtobufErrc::kBadName));
        } else {
          CHECK(IsBad(result, outer, ProtobufErrc::kUnknownMessage));
        }
      }
    }
  }
  for (const std::uint32_t outer :
       {std::uint32_t{kMax} + 1, 0x7fffffffu, 0x80000000u, 0xfffffff8u, 0xffffffffu}) {
    CAPTURE(outer);
    // Said at once: nothing waits for what never fits.
    CHECK(IsBad(Unpack(U32Be(outer)), 0, ProtobufErrc::kFrameTooLong));
    CHECK(IsBad(Unpack(Frame(outer, 13, "chat.ChatLine")), 0, ProtobufErrc::kFrameTooLong));
  }
}

TEST_CASE("demo protocol: lying inner lengths") {
  const std::string_view name = "chat.ChatLine";
  const auto outer = static_cast<std::uint32_t>(kHeader + name.size());
  const std::string next = Packed(Line("next"));

  // All of the frame is the name, and the message is empty: that is the truth.
  CHECK(Unpack(Frame(outer, outer - 8, name) + next).packet != nullptr);

  for (const std::uint32_t inner : {0u, outer - 7, outer - 4, outer, outer + 1, 0x7fffffffu,
                                    0x80000000u, 0xfffffff8u, 0xffffffffu}) {
    CAPTURE(inner);
    const std::string lie = Frame(outer, inner, name);
    CHECK(IsBad(Unpack(lie), outer, ProtobufErrc::kBadName));

    // The frame behind it is none of its business, and is not lost.
    Stream stream;
    stream.Add(lie + next);
    REQUIRE(stream.log().size() == 2);
    CHECK(stream.log()[1] == "chat.ChatLine text: \"next\"");
  }

  // A name cut short is another name.
  CHECK(IsBad(Unpack(Frame(outer, outer - 9, name)), outer, ProtobufErrc::kUnknownMessage));
}

TEST_CASE("demo protocol: only the messages of its file can be made") {
  const std::vector<std::string> names = {
      "chat.Nonsense",
      "ChatLine",
      ".chat.ChatLine",
      "chat.ChatLine ",
      "chat.chatline",
      "chat.ChatLin",
      "chat.LoginResponse.Result",
      "chat",
      "chat.",
      "google.protobuf.Any",
      "google.protobuf.FileDescriptorProto",
      "\xff\xfe",
      std::string(1, '\0'),
      std::string("chat.ChatLine\0", 14),
      std::string(kMax - kHeader, 'x'),
  };
  // They are in this program, all the same.
  REQUIRE(google::protobuf::DescriptorPool::generated_pool()->FindMessageTypeByName(
              "google.protobuf.Any") != nullptr);
  for (const std::string& name : names) {
    CAPTURE(name);
    const std::string frame = Frame(name, "");
    CHECK(IsBad(Unpack(frame), frame.size(), ProtobufErrc::kUnknownMessage));
  }
}

TEST_CASE("demo protocol: a message that does not parse is skipped") {
  const std::vector<std::string> bodies = {
      "garbage",
      std::string("\x0a\x05"
                  "ab",
                  4),  // a text longer than the frame
      std::string("\x0a\xff\xff\xff\xff\x07"
                  "ab",
                  8),  // much longer
      std::string("\x0a\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01", 11),
      std::string("\x0a", 1),              // a key, and no value
      std::string("\x00", 1),              // field 0
      std::string("\x0a\x02\xff\xfe", 4),  // not UTF-8
      std::string("\x0c", 1),              // the end of no group
      std::string(1000, '\x0b'),           // groups in groups in groups
  };
  for (const std::string& body : bodies) {
    const std::string frame = Frame("chat.ChatLine", body);
    CHECK(IsBad(Unpack(frame), frame.size(), ProtobufErrc::kBadMessage));
  }
}

TEST_CASE("demo protocol: garbage never gets an answer outside the rules") {
  xtcp::test::Random random(1);
  for (int round = 0; round < 20'000; ++round) {
    std::string bytes = random.Bytes(random.Between(1, 64));
    // Purely random lengths are nearly always absurd; believable ones get further.
    if (!random.OneIn(4)) bytes.replace(0, 3, std::string(3, '\0'));
    if (bytes.size() > 8 && !random.OneIn(4)) bytes.replace(4, 3, std::string(3, '\0'));
    REQUIRE(IsLegal(Unpack(bytes), bytes.size()));
  }
}

TEST_CASE("demo protocol: damaged streams never get an answer outside the rules") {
  xtcp::test::Random random(2);
  const std::string good = MixedStream();
  for (int round = 0; round < 5'000; ++round) {
    std::string bytes = good;
    for (std::size_t i = random.Between(1, 8); i > 0; --i) {
      bytes[random.Between(0, bytes.size() - 1)] = static_cast<char>(random.Next());
    }
    Stream whole;
    whole.Add(bytes);

    Stream pieces;
    for (std::size_t at = 0; at < bytes.size();) {
      const std::size_t size = random.Between(1, 40);
      pieces.Add(std::string_view(bytes).substr(at, size));
      at += size;
    }
    REQUIRE(pieces.log() == whole.log());
  }
}

TEST_CASE("demo protocol: every error has a text of its own") {
  std::vector<std::string> texts;
  for (int code = 0; code <= static_cast<int>(ProtobufErrc::kNoMessage) + 1; ++code) {
    const std::error_code error(code, demo::ProtobufErrorCategory());
    texts.push_back(error.message());
  }
  CHECK(texts.front() == "unknown error");
  CHECK(texts.back() == "unknown error");
  texts.pop_back();
  std::sort(texts.begin(), texts.end());
  CHECK(std::unique(texts.begin(), texts.end()) == texts.end());
  CHECK(std::string_view(demo::ProtobufErrorCategory().name()) == "protobuf-frame");
}
