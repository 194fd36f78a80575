#include <xtcp/conn.h>

#include <span>

namespace xtcp {

Conn::~Conn() = default;

std::error_code Conn::Send(std::string_view text) {
  return Send(std::as_bytes(std::span(text.data(), text.size())));
}

}  // namespace xtcp
