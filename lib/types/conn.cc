#include <xtcp/conn.h>
#include <xtcp/error.h>

#include <span>

namespace xtcp {

Conn::~Conn() = default;

std::error_code Conn::Dial(std::string_view) { return Errc::kNoLoop; }

std::error_code Conn::Post(Task) { return Errc::kNoLoop; }

void Conn::SetTimer(std::chrono::milliseconds) {}

void Conn::CancelTimer() {}

Loop Conn::loop() const { return {}; }

std::error_code Conn::Send(std::string_view text) {
  return Send(std::as_bytes(std::span(text.data(), text.size())));
}

}  // namespace xtcp
