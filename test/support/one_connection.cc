#include "support/one_connection.h"

#include <stdexcept>
#include <utility>

namespace xtcp::test {

OneConnection::OneConnection(Kind kind, const Options& options, std::string_view address,
                             std::shared_ptr<EventRecorder> recorder)
    : events(recorder != nullptr ? std::move(recorder) : std::make_shared<EventRecorder>()) {
  if (kind == Kind::kAccepted) {
    server_.emplace(events, options, address);
    peer = RawPeer(server_->address());
  } else {
    RawListener listener(address);
    client_.emplace(events, listener.address(), options);
    peer = listener.Accept();
  }
  const bool open = events->WaitFor(
      [](const EventRecorder::Totals& totals) { return totals.accepted + totals.connected > 0; });
  if (!open || !peer.connected()) throw std::runtime_error("no connection");
  conn = events->conn();
}

OneConnection::~OneConnection() = default;

std::string OneConnection::Finish(StopMode mode) {
  return server_ ? server_->Finish(mode) : client_->Finish(mode);
}

}  // namespace xtcp::test
