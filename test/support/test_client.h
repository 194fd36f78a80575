#pragma once

#include <xtcp/conn.h>

#include <memory>
#include <string>
#include <string_view>
#include <system_error>
#include <thread>

#include "support/deadline.h"
#include "support/event_recorder.h"
#include "support/test_server.h"

namespace xtcp::test {

// A dialled connection whose `DialAndServe` runs on a thread of its own. Every test ends with
//
//   REQUIRE(client.Finish() == "");
//
// Thread safety: the test's thread.
class TestClient {
 public:
  // Does not dial yet.
  explicit TestClient(std::shared_ptr<EventRecorder> events, Options options = {});

  // Dials.
  TestClient(std::shared_ptr<EventRecorder> events, std::string_view address, Options options = {});

  ~TestClient();
  TestClient(const TestClient&) = delete;
  TestClient& operator=(const TestClient&) = delete;

  void Dial(std::string_view address);

  Conn* operator->() const { return conn_.get(); }
  const ConnPtr& conn() const { return conn_; }
  EventRecorder& events() const { return *events_; }

  // Waits for `DialAndServe` to return without stopping it, and gives its result.
  std::error_code Wait();

  // Stops with `mode`, waits for the end, joins, and checks what must hold for every connection,
  // that `DialAndServe` returned `expected`, and the recorder when nobody else uses it any more.
  // Returns what was wrong, a line each.
  std::string Finish(StopMode mode = StopMode::kImmediately, std::error_code expected = {});

  // After `Finish`: what the waiting stop reported.
  const StopReport& report() const { return report_; }

 private:
  std::shared_ptr<EventRecorder> events_;
  ConnPtr conn_;
  std::thread thread_;
  Signal ended_;
  std::error_code dialled_;
  StopReport report_;
  bool finished_ = false;
};

}  // namespace xtcp::test
