#include <xtcp/error.h>
#include <xtcp/protocol.h>

#include <stdexcept>

#include "types/pack.h"

namespace xtcp {

std::string Packet::ToString() const { return "packet"; }

Protocol::~Protocol() = default;

Protocol::Decoder::~Decoder() = default;

std::size_t Protocol::PackSize(const Packet&) const { return 0; }

std::error_code Protocol::PackTo(const Packet&, Writer&) const { return Errc::kBadPacket; }

UnpackResult Protocol::Unpack(std::span<const std::byte>) const {
  return {.error = Errc::kProtocolError};
}

std::unique_ptr<Protocol::Decoder> Protocol::NewDecoder() const { return nullptr; }

std::error_code Protocol::Pack(const Packet& packet, std::vector<std::byte>* out) const {
  out->clear();
  const auto allocate = [out](std::size_t size, std::span<std::byte>* room) {
    try {
      out->resize(size);
    } catch (const std::bad_alloc&) {
      return false;
    } catch (const std::length_error&) {  // a wrong, huge PackSize
      return false;
    }
    *room = *out;
    return true;
  };
  const std::error_code error = internal::PackPacket(*this, packet, allocate);
  if (error) out->clear();
  return error;
}

}  // namespace xtcp
