#pragma once

#include <xtcp/conn.h>

#include <memory>
#include <optional>
#include <string>
#include <string_view>

#include "support/event_recorder.h"
#include "support/raw_peer.h"
#include "support/test_client.h"
#include "support/test_server.h"

namespace xtcp::test {

enum class Kind { kAccepted, kDialled };

// One connection of either kind, open, and the peer at its other end. Every test ends with
//
//   REQUIRE(one.Finish() == "");
//
// Thread safety: the test's thread.
class OneConnection {
 public:
  // `address` is where the listening side listens, whichever that is.
  explicit OneConnection(Kind kind, const Options& options = {},
                         std::string_view address = "127.0.0.1:0",
                         std::shared_ptr<EventRecorder> recorder = nullptr);
  ~OneConnection();

  bool closed() const { return events->totals().closed > 0; }
  CloseReason reason() const { return conn->Stats().reason; }

  std::string Finish(StopMode mode = StopMode::kImmediately);

  const std::shared_ptr<EventRecorder> events;
  RawPeer peer;
  ConnPtr conn;

 private:
  std::optional<TestServer> server_;
  std::optional<TestClient> client_;
};

}  // namespace xtcp::test
