#pragma once

#include <xtcp/error.h>
#include <xtcp/protocol.h>

#include <cstddef>
#include <exception>
#include <new>
#include <span>
#include <system_error>

#include "base/callback_scope.h"
#include "base/log.h"
#include "base/thread_end.h"

namespace xtcp::internal {

// The common part of `Conn::SendPacket` and `Protocol::Pack`. It lets the protocol pack `packet`
// into the room that `bool allocate(std::size_t size, std::span<std::byte>* room)` finds for
// exactly that many bytes. If that returns false the result is kNoMemory. Whatever goes wrong is
// the result, and then the caller drops the room. An exception is logged as well (F5). No lock is
// held.
template <typename Allocate>
std::error_code PackPacket(const Protocol& protocol, const Packet& packet,
                           const Allocate& allocate) {
  const CallbackScope scope;
  try {
    const std::size_t size = protocol.PackSize(packet);
    std::span<std::byte> room;
    if (size > 0 && !allocate(size, &room)) return Errc::kNoMemory;
    Writer writer(room);
    if (const std::error_code error = protocol.PackTo(packet, writer)) return error;
    // A size of 0 says that the packet cannot be packed. A packer that then names no error has
    // still not packed it.
    if (size == 0 || writer.failed() || writer.written() != size) return Errc::kBadPacket;
    return {};
  } catch (const std::bad_alloc&) {
    return Errc::kNoMemory;
  } catch (const ForcedUnwind&) {
    throw;
  } catch (const std::exception& exception) {
    XTCP_LOG_LIMITED(kError, "an exception left PackSize or PackTo: %s", exception.what());
    return Errc::kBadPacket;
  } catch (...) {
    XTCP_LOG_LIMITED(kError, "an exception left PackSize or PackTo");
    return Errc::kBadPacket;
  }
}

}  // namespace xtcp::internal
