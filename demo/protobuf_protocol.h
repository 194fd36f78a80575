#pragma once

// A packet protocol with protobuf inside. One frame on the wire:
//
//   4 bytes   length of the whole frame, these 4 included, big-endian
//   4 bytes   length of the name, big-endian
//   n bytes   full name of the message's type, "chat.LoginRequest"
//   the rest  the serialized message; may be empty

#include <google/protobuf/descriptor.h>
#include <google/protobuf/message.h>
#include <xtcp/xtcp.h>

#include <cstddef>
#include <functional>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <system_error>
#include <type_traits>
#include <utility>

namespace demo {

enum class ProtobufErrc {
  // `Unpack` finds these in the outer length. Nobody knows where the next frame begins, so the
  // connection ends.
  kFrameTooShort = 1,
  kFrameTooLong,

  // `Unpack` finds these inside a frame of believable length. It is skipped.
  kBadName,
  kUnknownMessage,
  kBadMessage,

  // `PackTo` has nothing to pack. It also refuses with `kFrameTooLong` and `kUnknownMessage`.
  kNoMessage,
};

const std::error_category& ProtobufErrorCategory() noexcept;

inline std::error_code make_error_code(ProtobufErrc code) noexcept {
  return {static_cast<int>(code), ProtobufErrorCategory()};
}

// One protobuf message on its way. It owns the message, so it may leave `OnEvent`.
class ProtobufPacket : public xtcp::Packet {
 public:
  explicit ProtobufPacket(std::unique_ptr<google::protobuf::Message> message)
      : message_(std::move(message)) {}

  // Takes a copy: ProtobufPacket(line).
  explicit ProtobufPacket(const google::protobuf::Message& message) : message_(message.New()) {
    message_->CopyFrom(message);
  }

  // The message, null if the packet was made from none.
  const google::protobuf::Message* message() const { return message_.get(); }

  // The message as its own class, null if it is of another: As<chat::ChatLine>().
  template <typename T>
  const T* As() const {
    return google::protobuf::DynamicCastToGenerated<T>(message());
  }

  // The type's name alone: what is inside may be a password.
  std::string ToString() const override;

 private:
  std::unique_ptr<google::protobuf::Message> message_;
};

// Packs `ProtobufPacket`s, and unpacks nothing else. Every length that a peer announces is compared
// with what is there before it is used, and no memory is taken because of a length alone.
//
// protobuf writes a line to standard error when a message is not valid UTF-8. A server that faces
// the internet sends such lines elsewhere with google::protobuf::SetLogHandler.
//
// Thread safety: as every `xtcp::Protocol`; it does not change after construction.
class ProtobufProtocol : public xtcp::Protocol {
 public:
  // The two lengths.
  static constexpr std::size_t kHeaderBytes = 8;

  // The longest frame, sent or received. A parsed message can take 32 times its bytes on the wire
  // (measured with fields that its type does not know), so the limit is what a chat needs, not what
  // a server can bear.
  static constexpr std::size_t kFrameBytesMax = 64 << 10;

  // Knows the top-level messages of `file`, and those only: a peer's name makes no other type of
  // the program. `file` must be of generated code: chat::ChatLine::descriptor()->file().
  explicit ProtobufProtocol(const google::protobuf::FileDescriptor* file);

  std::size_t PackSize(const xtcp::Packet& packet) const override;
  std::error_code PackTo(const xtcp::Packet& packet, xtcp::Writer& writer) const override;
  xtcp::UnpackResult Unpack(std::span<const std::byte> buf) const override;

 private:
  // What is to be packed, measured once.
  struct Outgoing {
    const google::protobuf::Message* message = nullptr;
    std::string_view name{};
    std::size_t frame_bytes = 0;
    std::error_code error{};
  };
  Outgoing Examine(const xtcp::Packet& packet) const;

  // Type name to the instance that makes new ones; protobuf owns it.
  std::map<std::string, const google::protobuf::Message*, std::less<>> prototypes_;
};

}  // namespace demo

template <>
struct std::is_error_code_enum<demo::ProtobufErrc> : std::true_type {};
