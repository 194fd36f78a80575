#pragma once

#include <xtcp/server.h>

#include <cstdint>
#include <memory>
#include <stdexcept>
#include <string>
#include <string_view>
#include <system_error>
#include <thread>
#include <utility>

#include "support/deadline.h"
#include "support/event_recorder.h"
#include "support/test_protocol.h"
#include "support/violations.h"

namespace xtcp::test {

// `options` with the tests' handler and protocol where there is none yet.
inline Options WithDefaults(Options options, std::shared_ptr<Handler> handler) {
  if (options.handler == nullptr) options.handler = std::move(handler);
  if (options.protocol == nullptr) options.protocol = std::make_shared<TestProtocol>();
  return options;
}

// A server that serves on a thread of its own, from construction on. Every test ends with
//
//   REQUIRE(server.Finish() == "");
//
// Thread safety: the test's thread.
class TestServer {
 public:
  explicit TestServer(std::shared_ptr<EventRecorder> events, Options options = {},
                      std::string_view address = "127.0.0.1:0")
      : TestServer(std::move(events), std::move(options),
                   std::vector<std::string>{std::string(address)}) {}

  // One that listens at several addresses.
  TestServer(std::shared_ptr<EventRecorder> events, Options options,
             const std::vector<std::string>& addresses)
      : events_(std::move(events)),
        server_(std::make_unique<Server>(WithDefaults(std::move(options), events_))) {
    for (const std::string& address : addresses) {
      if (const std::error_code error = server_->Listen(address)) {
        throw std::runtime_error("Listen " + address + ": " + error.message());
      }
    }
    addresses_ = server_->Addresses();
    events_->AddUser();
    // The thread must not look at `server_`, which a test may destroy.
    thread_ = std::thread([this, server = server_.get()] {
      served_ = server->Serve();
      ended_.Set();
    });
  }

  ~TestServer() {
    if (thread_.joinable()) Finish();  // a test that left early; one that forgot is found out
  }

  TestServer(const TestServer&) = delete;
  TestServer& operator=(const TestServer&) = delete;

  Server* operator->() const { return server_.get(); }
  EventRecorder& events() const { return *events_; }
  std::uint16_t port(std::size_t i = 0) const { return addresses_.at(i).Port(); }
  std::string address(std::size_t i = 0) const { return addresses_.at(i).ToString(); }

  // Waits for `Serve` to return without stopping it. False when the deadline passed first.
  bool WaitForEnd() { return ended_.Wait(); }

  // The server object, to destroy it wherever the test likes. `Finish` then only joins.
  std::unique_ptr<Server> Release() { return std::move(server_); }

  // Stops with `mode`, waits for the end, joins, and checks what must hold for every server: the
  // books, that `Serve` returned `expected` and, when nobody else uses it any more, the recorder.
  // Returns what was wrong, a line each.
  std::string Finish(StopMode mode = StopMode::kImmediately, std::error_code expected = {}) {
    std::string problems;
    if (server_ != nullptr) {
      WithinDeadline("a stop", [&] {
        static_cast<void>(server_->Stop(mode));
        report_ = server_->Stop(StopMode::kGracefullyAndWait);
      });
      if (!server_->IsStopped()) problems += "IsStopped() is false after Stop\n";
    }
    if (!ended_.Wait(3 * kDeadline)) Die("Serve does not return");
    thread_.join();
    if (served_ != expected) problems += "Serve returned " + served_.message() + "\n";
    if (server_ != nullptr) problems += CheckBooks();
    if (events_->ReleaseUser()) problems += events_->Verify();
    return problems;
  }

  // After `Finish`: what the waiting stop reported.
  const StopReport& report() const { return report_; }

 private:
  std::string CheckBooks() const {
    std::string problems;
    const auto check = [&](bool holds, std::string_view text) {
      if (!holds) problems.append(text).append("\n");
    };
    const ServerStats stats = server_->Stats();
    check(server_->ConnectionCount() == 0, "M20: connections are left");
    check(stats.accepted == stats.closed, "E2: admitted and closed connections differ");
    check(stats.accepted_bytes == stats.written_bytes + stats.unsent_bytes,
          "M11: the server's books do not add up");
    check(report_.cut <= report_.connections, "M21: more cut than there were");
    check(report_.error == std::error_code(), "M21: the report has an error");
    const StopReport again = server_->Stop(StopMode::kGracefullyAndWait);
    check(again.connections == report_.connections && again.cut == report_.cut &&
              again.unsent_bytes == report_.unsent_bytes &&
              again.unacked_bytes == report_.unacked_bytes,
          "M20: a later waiting stop reports something else");
    const auto connections = events_->connections();
    // Not when another server or client shares the recorder, or the test has its own handler.
    if (events_->shared() || connections.size() != stats.accepted) return problems;
    ServerStats sum;
    for (const auto& connection : connections) {
      sum.received_bytes += connection.at_closed.received_bytes;
      sum.accepted_bytes += connection.at_closed.accepted_bytes;
      sum.written_bytes += connection.at_closed.written_bytes;
      sum.unsent_bytes += connection.at_closed.unsent_bytes();
      sum.unacked_bytes += connection.at_closed.unacked_bytes;
    }
    check(sum.received_bytes == stats.received_bytes, "server: received_bytes is not the sum");
    check(sum.accepted_bytes == stats.accepted_bytes, "server: accepted_bytes is not the sum");
    check(sum.written_bytes == stats.written_bytes, "server: written_bytes is not the sum");
    check(sum.unsent_bytes == stats.unsent_bytes, "server: unsent_bytes is not the sum");
    check(sum.unacked_bytes == stats.unacked_bytes, "server: unacked_bytes is not the sum");
    return problems;
  }

  std::shared_ptr<EventRecorder> events_;
  std::unique_ptr<Server> server_;
  std::vector<Address> addresses_;
  std::thread thread_;
  Signal ended_;
  std::error_code served_;
  StopReport report_;
};

}  // namespace xtcp::test
