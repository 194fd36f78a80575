#pragma once

#include <xtcp/conn.h>

#include <memory>
#include <string>
#include <string_view>
#include <system_error>
#include <thread>
#include <utility>

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
  explicit TestClient(std::shared_ptr<EventRecorder> events, Options options = {})
      : events_(std::move(events)), conn_(NewConn(WithDefaults(std::move(options), events_))) {
    events_->AddUser();
  }

  // Dials.
  TestClient(std::shared_ptr<EventRecorder> events, std::string_view address, Options options = {})
      : TestClient(std::move(events), std::move(options)) {
    Dial(address);
  }

  ~TestClient() {
    if (!finished_) Finish();  // a test that left early; one that forgot is found out
  }

  TestClient(const TestClient&) = delete;
  TestClient& operator=(const TestClient&) = delete;

  void Dial(std::string_view address) {
    thread_ = std::thread([this, conn = conn_, address = std::string(address)] {
      dialled_ = conn->DialAndServe(address);
      ended_.Set();
    });
  }

  Conn* operator->() const { return conn_.get(); }
  const ConnPtr& conn() const { return conn_; }
  EventRecorder& events() const { return *events_; }

  // Waits for `DialAndServe` to return without stopping it, and gives its result.
  std::error_code Wait() {
    if (!ended_.Wait(3 * kDeadline)) Die("DialAndServe does not return");
    return dialled_;
  }

  // Stops with `mode`, waits for the end, joins, and checks what must hold for every connection,
  // that `DialAndServe` returned `expected`, and the recorder when nobody else uses it any more.
  // Returns what was wrong, a line each.
  std::string Finish(StopMode mode = StopMode::kImmediately, std::error_code expected = {}) {
    finished_ = true;
    std::string problems;
    WithinDeadline("a stop", [&] {
      static_cast<void>(conn_->Stop(mode));
      report_ = conn_->Stop(StopMode::kGracefullyAndWait);
    });
    if (thread_.joinable()) {
      const std::error_code dialled = Wait();
      thread_.join();
      if (dialled != expected) problems += "DialAndServe returned " + dialled.message() + "\n";
      if (conn_->Stats().reason == CloseReason::kNone) problems += "E5: no reason after the end\n";
    }
    if (!conn_->IsStopped()) problems += "IsStopped() is false after Stop\n";
    if (events_->ReleaseUser()) problems += events_->Verify();
    return problems;
  }

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
