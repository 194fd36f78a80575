#pragma once

#include <xtcp/loop.h>
#include <xtcp/server.h>

#include <cstddef>
#include <functional>
#include <memory>
#include <string>
#include <system_error>
#include <thread>
#include <utility>

#include "support/deadline.h"
#include "support/event_recorder.h"
#include "support/test_server.h"
#include "support/violations.h"

namespace xtcp::test {

// A group of loops that runs on a thread of its own, all of it when the constructor returns. Every
// test ends with
//
//   REQUIRE(group.Finish() == "");
//
// Thread safety: the test's thread.
class TestGroup {
 public:
  explicit TestGroup(std::size_t loops = 1) : group_(std::make_unique<LoopGroup>(loops)) {
    thread_ = std::thread([this, group = group_.get()] {
      ran_ = group->Run();
      ended_.Set();
    });
    for (std::size_t i = 0; i < loops; ++i) {
      if (!On(loop(i), [] {})) Die("a group does not begin to run");
    }
  }
  ~TestGroup() {
    if (thread_.joinable()) Finish();  // a test that left early
  }
  TestGroup(const TestGroup&) = delete;
  TestGroup& operator=(const TestGroup&) = delete;

  LoopGroup* operator->() const { return group_.get(); }
  LoopGroup& operator*() const { return *group_; }
  Loop loop(std::size_t i = 0) const { return (*group_)[i]; }

  // Runs `body` as a task of the loop, and waits until it has run; false when it was refused.
  bool On(const Loop& loop, std::function<void()> body) const {
    const auto done = std::make_shared<Signal>();
    if (loop.Post([body = std::move(body), done] {
          body();
          done->Set();
        })) {
      return false;
    }
    return done->Wait();
  }
  bool On(std::function<void()> body) const { return On(loop(), std::move(body)); }

  // The group's object, to destroy it wherever the test likes. `Finish` then only joins.
  std::unique_ptr<LoopGroup> Release() { return std::move(group_); }

  bool WaitForEnd() { return ended_.Wait(); }

  // Stops with `mode`, waits for the end, joins. Returns what was wrong.
  std::string Finish(StopMode mode = StopMode::kImmediately, std::error_code expected = {}) {
    std::string problems;
    if (group_ != nullptr) {
      WithinDeadline("a group's stop", [&] {
        static_cast<void>(group_->Stop(mode));
        report_ = group_->Stop(StopMode::kGracefullyAndWait);
      });
      if (!group_->IsStopped()) problems += "IsStopped() is false after Stop\n";
    }
    if (!ended_.Wait(3 * kDeadline)) Die("LoopGroup::Run does not return");
    thread_.join();
    if (ran_ != expected) problems += "Run returned " + ran_.message() + "\n";
    return problems;
  }
  const StopReport& report() const { return report_; }

 private:
  std::unique_ptr<LoopGroup> group_;
  std::thread thread_;
  Signal ended_;
  std::error_code ran_;
  StopReport report_;
};

// A server on somebody's group, which listens on 127.0.0.1 and has been started.
inline std::unique_ptr<Server> StartServer(LoopGroup& group, std::shared_ptr<Handler> handler,
                                           Options options = {}) {
  auto server =
      std::make_unique<Server>(WithDefaults(std::move(options), std::move(handler)), group);
  std::error_code error = server->Listen("127.0.0.1:0");
  if (!error) error = server->Start();
  if (error) throw std::runtime_error("a server does not start: " + error.message());
  return server;
}
inline std::string AddressOf(const Server& server) { return server.Addresses().at(0).ToString(); }

}  // namespace xtcp::test
