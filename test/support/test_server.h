#pragma once

#include <xtcp/server.h>

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <system_error>
#include <thread>
#include <utility>
#include <vector>

#include "support/deadline.h"
#include "support/event_recorder.h"
#include "support/test_protocol.h"

namespace xtcp::test {

// `options` with the tests' handler and protocol where there is none yet. And where the test has not
// said how long a stop may linger and a dial may take, as long as a busy machine needs.
Options WithDefaults(Options options, std::shared_ptr<Handler> handler);

// A server that serves on a thread of its own, from construction on. Every test ends with
//
//   REQUIRE(server.Finish() == "");
//
// Thread safety: the test's thread.
class TestServer {
 public:
  explicit TestServer(std::shared_ptr<EventRecorder> events);
  TestServer(std::shared_ptr<EventRecorder> events, Options options,
             std::string_view address = "127.0.0.1:0");

  // One that listens at several addresses.
  TestServer(std::shared_ptr<EventRecorder> events, Options options,
             const std::vector<std::string>& addresses);

  ~TestServer();
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
  std::string Finish(StopMode mode = StopMode::kImmediately, std::error_code expected = {});

  // After `Finish`: what the waiting stop reported.
  const StopReport& report() const { return report_; }

 private:
  std::string CheckBooks() const;

  std::shared_ptr<EventRecorder> events_;
  std::unique_ptr<Server> server_;
  std::vector<Address> addresses_;
  std::thread thread_;
  Signal ended_;
  std::error_code served_;
  StopReport report_;
};

}  // namespace xtcp::test
