#include <xtcp/protocol.h>

#include <stdexcept>

#include "types/pack.h"

namespace xtcp {

std::string Packet::ToString() const { return "packet"; }

Protocol::~Protocol() = default;

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
