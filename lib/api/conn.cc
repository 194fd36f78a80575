#include <xtcp/conn.h>

#include <span>
#include <utility>

#include "base/validate_options.h"
#include "conn/dialed_conn.h"

namespace xtcp {

Conn::~Conn() = default;

std::error_code Conn::Send(std::string_view text) { return Send(std::as_bytes(std::span(text))); }

ConnPtr NewConn(Options options) {
  internal::ValidateOptions(options);
  return std::make_shared<internal::DialedConn>(std::move(options));
}

}  // namespace xtcp
