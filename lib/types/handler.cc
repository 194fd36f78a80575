#include <xtcp/conn.h>
#include <xtcp/handler.h>
#include <xtcp/stop_mode.h>

namespace xtcp {

Handler::~Handler() = default;

void Handler::OnUnpackError(const ConnPtr&, std::span<const std::byte>, std::error_code) {}

void Handler::OnSendReady(const ConnPtr&) {}

void Handler::OnDialFailed(const ConnPtr&, std::error_code) {}

void Handler::OnRecvEnd(const ConnPtr& conn) { conn->Stop(StopMode::kGracefullyButNotWait); }

void Handler::OnDrain(const ConnPtr&) {}

void Handler::OnTimer(const ConnPtr&) {}

}  // namespace xtcp
