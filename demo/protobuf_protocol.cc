#include "protobuf_protocol.h"

#include <cstdint>
#include <string_view>

namespace demo {
namespace {

using google::protobuf::Message;

class ProtobufCategory : public std::error_category {
 public:
  const char* name() const noexcept override { return "protobuf-frame"; }

  std::string message(int code) const override {
    switch (static_cast<ProtobufErrc>(code)) {
      case ProtobufErrc::kFrameTooShort:
        return "the frame is announced shorter than its header";
      case ProtobufErrc::kFrameTooLong:
        return "the frame is longer than the protocol allows";
      case ProtobufErrc::kBadName:
        return "the message's name is empty or longer than its frame";
      case ProtobufErrc::kUnknownMessage:
        return "the protocol has no message of this name";
      case ProtobufErrc::kBadMessage:
        return "the message does not parse";
      case ProtobufErrc::kNoMessage:
        return "the packet holds no protobuf message";
    }
    return "unknown error";
  }
};

}  // namespace

const std::error_category& ProtobufErrorCategory() noexcept {
  static const ProtobufCategory category;
  return category;
}

std::string ProtobufPacket::ToString() const {
  return message_ ? std::string(message_->GetDescriptor()->full_name()) : "no message";
}

ProtobufProtocol::ProtobufProtocol(const google::protobuf::FileDescriptor* file) {
  auto* factory = google::protobuf::MessageFactory::generated_factory();
  for (int i = 0; i < file->message_type_count(); ++i) {
    const google::protobuf::Descriptor* type = file->message_type(i);
    prototypes_.emplace(type->full_name(), factory->GetPrototype(type));
  }
}

ProtobufProtocol::Outgoing ProtobufProtocol::Examine(const xtcp::Packet& packet) const {
  const auto* ours = dynamic_cast<const ProtobufPacket*>(&packet);
  if (ours == nullptr || ours->message() == nullptr) return {.error = ProtobufErrc::kNoMessage};

  Outgoing out{.message = ours->message(), .name = ours->message()->GetDescriptor()->full_name()};
  if (!prototypes_.contains(out.name)) return {.error = ProtobufErrc::kUnknownMessage};
  out.frame_bytes = kHeaderBytes + out.name.size() + out.message->ByteSizeLong();
  if (out.frame_bytes > kFrameBytesMax) return {.error = ProtobufErrc::kFrameTooLong};
  return out;
}

std::size_t ProtobufProtocol::PackSize(const xtcp::Packet& packet) const {
  return Examine(packet).frame_bytes;  // 0 with an error, which `PackTo` then tells
}

std::error_code ProtobufProtocol::PackTo(const xtcp::Packet& packet, xtcp::Writer& writer) const {
  const Outgoing out = Examine(packet);
  if (out.error) return out.error;

  writer.U32Be(static_cast<std::uint32_t>(out.frame_bytes));
  writer.U32Be(static_cast<std::uint32_t>(out.name.size()));
  writer.Write(out.name);
  const auto body = writer.Claim(out.frame_bytes - kHeaderBytes - out.name.size());
  // Never the serializer with less room than it was measured for: it does not look.
  if (writer.failed()) return xtcp::Errc::kBadPacket;
  out.message->SerializeWithCachedSizesToArray(reinterpret_cast<std::uint8_t*>(body.data()));
  return {};
}

xtcp::UnpackResult ProtobufProtocol::Unpack(std::span<const std::byte> buf) const {
  xtcp::Reader outer(buf);
  const std::size_t frame_bytes = outer.U32Be();
  if (outer.failed()) return {.need = sizeof(std::uint32_t)};
  if (frame_bytes < kHeaderBytes) return {.error = ProtobufErrc::kFrameTooShort};
  if (frame_bytes > kFrameBytesMax) return {.error = ProtobufErrc::kFrameTooLong};
  if (frame_bytes > buf.size()) return {.need = frame_bytes};

  // The whole frame is there: whatever is wrong inside it, the next one begins behind it.
  const auto bad = [&](ProtobufErrc error) {
    return xtcp::UnpackResult{.size = frame_bytes, .error = error};
  };
  xtcp::Reader inner(buf.first(frame_bytes).subspan(outer.consumed()));
  const std::size_t name_bytes = inner.U32Be();
  if (name_bytes == 0 || name_bytes > inner.remaining()) return bad(ProtobufErrc::kBadName);

  const auto prototype = prototypes_.find(inner.Text(name_bytes));
  if (prototype == prototypes_.end()) return bad(ProtobufErrc::kUnknownMessage);

  const auto body = inner.Bytes(inner.remaining());
  std::unique_ptr<Message> message(prototype->second->New());
  // The cast loses nothing: a body is shorter than kFrameBytesMax.
  if (!message->ParseFromArray(body.data(), static_cast<int>(body.size()))) {
    return bad(ProtobufErrc::kBadMessage);
  }
  return {.packet = std::make_unique<ProtobufPacket>(std::move(message)), .size = frame_bytes};
}

}  // namespace demo
