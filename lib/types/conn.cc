#include <xtcp/conn.h>
#include <xtcp/error.h>

#include <new>
#include <span>
#include <vector>

namespace xtcp {

Conn::~Conn() = default;

std::error_code Conn::Dial(std::string_view) { return Errc::kNoLoop; }

std::error_code Conn::Post(Task) { return Errc::kNoLoop; }

void Conn::SetTimer(std::chrono::milliseconds) {}

void Conn::CancelTimer() {}

Loop Conn::loop() const { return {}; }

Protocol::Decoder* Conn::decoder() { return nullptr; }

std::error_code Conn::SendParts(std::span<const Part> parts) {
  // For a fake: one `Send` of all of them.
  try {
    std::vector<std::byte> bytes;
    for (const Part& part : parts) {
      bytes.insert(bytes.end(), part.bytes.begin(), part.bytes.end());
    }
    return Send(bytes);
  } catch (const std::bad_alloc&) {
    return Errc::kNoMemory;
  }
}

void Conn::EndSend() {}

}  // namespace xtcp
