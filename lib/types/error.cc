#include <xtcp/conn.h>
#include <xtcp/error.h>

#include <array>
#include <cstddef>
#include <new>
#include <string>

namespace xtcp {
namespace {

class Category final : public std::error_category {
 public:
  const char* name() const noexcept override { return "xtcp"; }

  std::string message(int code) const override {
    switch (static_cast<Errc>(code)) {
      case Errc::kClosed:
        return "the connection is closed";
      case Errc::kStopping:
        return "the connection is stopping and takes no more";
      case Errc::kFull:
        return "the send buffer has no room for this now";
      case Errc::kTooLarge:
        return "larger than the send buffer's limit";
      case Errc::kNoMemory:
        return "out of memory";
      case Errc::kBadPacket:
        return "the packet could not be packed as its protocol said";
      case Errc::kProtocolError:
        return "the bytes received do not follow the protocol";
      case Errc::kBadAddress:
        return "the address does not parse";
      case Errc::kHostNotFound:
        return "the host name has no address";
      case Errc::kNotListening:
        return "there is no listening socket";
      case Errc::kAlreadyUsed:
        return "already served or dialled";
      case Errc::kStopped:
        return "a stop came first";
      case Errc::kNoLoop:
        return "there is no loop that could serve it";
      case Errc::kWouldDeadlock:
        return "a call that waits was made inside a callback";
    }
    return "unknown error " + std::to_string(code);
  }
};

}  // namespace

const std::error_category& ErrorCategory() noexcept {
  // It is never destroyed, since an error code may be looked at while the process ends.
  alignas(Category) static std::array<std::byte, sizeof(Category)> storage;
  static const Category* const category = new (storage.data()) Category;
  return *category;
}

std::string_view ToString(CloseReason reason) noexcept {
  switch (reason) {
    case CloseReason::kNone:
      return "None";
    case CloseReason::kPeerClosed:
      return "PeerClosed";
    case CloseReason::kPeerReset:
      return "PeerReset";
    case CloseReason::kLocalStop:
      return "LocalStop";
    case CloseReason::kLingerTimeout:
      return "LingerTimeout";
    case CloseReason::kReadDeadline:
      return "ReadDeadline";
    case CloseReason::kWriteDeadline:
      return "WriteDeadline";
    case CloseReason::kPacketDeadline:
      return "PacketDeadline";
    case CloseReason::kPacketTooLarge:
      return "PacketTooLarge";
    case CloseReason::kProtocolError:
      return "ProtocolError";
    case CloseReason::kException:
      return "Exception";
    case CloseReason::kNoMemory:
      return "NoMemory";
    case CloseReason::kSystemError:
      return "SystemError";
    case CloseReason::kConnectFailed:
      return "ConnectFailed";
  }
  return "Unknown";
}

}  // namespace xtcp
