#include "support/test_server.h"

#include <stdexcept>

#include "support/violations.h"

namespace xtcp::test {

Options WithDefaults(Options options, std::shared_ptr<Handler> handler) {
  if (options.handler == nullptr) options.handler = std::move(handler);
  if (options.protocol == nullptr) options.protocol = std::make_shared<TestProtocol>();
  const Options defaults;
  for (const auto time : {&Options::linger_timeout, &Options::connect_timeout}) {
    if (options.*time == defaults.*time) options.*time = std::chrono::minutes(10);
  }
  return options;
}

TestServer::TestServer(std::shared_ptr<EventRecorder> events)
    : TestServer(std::move(events), Options{}) {}

TestServer::TestServer(std::shared_ptr<EventRecorder> events, Options options,
                       std::string_view address)
    : TestServer(std::move(events), std::move(options),
                 std::vector<std::string>{std::string(address)}) {}

TestServer::TestServer(std::shared_ptr<EventRecorder> events, Options options,
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

TestServer::~TestServer() {
  if (thread_.joinable()) Finish();  // a test that left early; one that forgot is found out
}

std::string TestServer::Finish(StopMode mode, std::error_code expected) {
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

std::string TestServer::CheckBooks() const {
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

}  // namespace xtcp::test
