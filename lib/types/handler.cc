#include <xtcp/handler.h>

namespace xtcp {

Handler::~Handler() = default;

void Handler::OnUnpackError(const ConnPtr&, std::span<const std::byte>, std::error_code) {}

void Handler::OnSendReady(const ConnPtr&) {}

void Handler::OnDialFailed(const ConnPtr&, std::error_code) {}

void Handler::OnTimer(const ConnPtr&) {}

}  // namespace xtcp
