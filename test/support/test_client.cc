#include "support/test_client.h"

#include <utility>

#include "support/violations.h"

namespace xtcp::test {

TestClient::TestClient(std::shared_ptr<EventRecorder> events, Options options)
    : events_(std::move(events)), conn_(NewConn(WithDefaults(std::move(options), events_))) {
  events_->AddUser();
}

TestClient::TestClient(std::shared_ptr<EventRecorder> events, std::string_view address,
                       Options options)
    : TestClient(std::move(events), std::move(options)) {
  Dial(address);
}

TestClient::~TestClient() {
  if (!finished_) Finish();  // a test that left early; one that forgot is found out
}

void TestClient::Dial(std::string_view address) {
  thread_ = std::thread([this, conn = conn_, address = std::string(address)] {
    dialled_ = conn->DialAndServe(address);
    ended_.Set();
  });
}

std::error_code TestClient::Wait() {
  if (!ended_.Wait(3 * kDeadline)) Die("DialAndServe does not return");
  return dialled_;
}

std::string TestClient::Finish(StopMode mode, std::error_code expected) {
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

}  // namespace xtcp::test
