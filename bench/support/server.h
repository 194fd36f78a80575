#pragma once

#include <xtcp/xtcp.h>

#include <iostream>
#include <memory>
#include <mutex>
#include <string>
#include <system_error>
#include <thread>
#include <utility>
#include <vector>

#include "support/frames.h"

namespace bench {

// Echoes, and keeps the connections that it was given.
class Collector : public Echo {
 public:
  void OnEvent(xtcp::EventType event, const xtcp::ConnPtr& conn, xtcp::PacketPtr packet) override {
    if (event == xtcp::EventType::kAccept) {
      const std::lock_guard lock(mutex_);
      conns_.push_back(conn);
    }
    Echo::OnEvent(event, conn, std::move(packet));
  }

  std::vector<xtcp::ConnPtr> conns() const {
    const std::lock_guard lock(mutex_);
    return conns_;
  }

 private:
  mutable std::mutex mutex_;
  std::vector<xtcp::ConnPtr> conns_;
};

// Listens on a free port of this machine, says on which, and serves. Throws std::system_error.
inline void ServeAndSayWhere(xtcp::Server& server) {
  if (const auto error = server.Listen("127.0.0.1:0")) throw std::system_error(error);
  std::cout << "on " << server.Addresses().front().ToString() << std::endl;
  if (const auto error = server.Serve()) throw std::system_error(error);
}

// A server in this process, with its loop on a thread of its own.
class RunningServer {
 public:
  explicit RunningServer(const xtcp::Options& options) : server_(options) {
    std::error_code error = server_.Listen("127.0.0.1:0");
    if (error) throw std::system_error(error);
    thread_ = std::thread([this] {
      if (const std::error_code failure = server_.Serve()) std::cerr << failure.message() << '\n';
    });
  }
  ~RunningServer() {
    if (thread_.joinable()) Stop(xtcp::StopMode::kImmediately);
  }
  RunningServer(const RunningServer&) = delete;
  RunningServer& operator=(const RunningServer&) = delete;

  std::string Port() const { return std::to_string(server_.Addresses().front().Port()); }
  std::size_t ConnectionCount() const { return server_.ConnectionCount(); }

  // Returns when `Serve` has, whatever the mode.
  void Stop(xtcp::StopMode mode) {
    server_.Stop(mode);
    thread_.join();
  }

 private:
  xtcp::Server server_;
  std::thread thread_;
};

}  // namespace bench
