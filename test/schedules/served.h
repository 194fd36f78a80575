#pragma once

#include <sys/socket.h>
#include <unistd.h>
#include <xtcp/handler.h>
#include <xtcp/server.h>

#include <array>
#include <functional>
#include <memory>
#include <stdexcept>
#include <string>
#include <string_view>
#include <utility>

#include "support/explorer.h"
#include "support/raw_peer.h"
#include "support/test_protocol.h"

namespace xtcp::test {

// A server with one connection. Its loop is a thread of the schedule, "loop", and sleeps when this is
// made. The peer's end is a Unix socket, where what is written has arrived.
//
// Its handler has no locks: a thread that is held there would hold them, and the schedule would not
// know.
class Served {
 public:
  // What the handler does, on the loop's thread.
  struct Hooks {
    std::function<void(const ConnPtr&)> on_recv{};
    std::function<void(const ConnPtr&)> on_send_ready{};
  };

  Served(Schedule& schedule, Hooks hooks, Options options = {})
      : schedule_(schedule), watcher_(std::make_shared<Watcher>(std::move(hooks))) {
    options.handler = watcher_;
    options.protocol = std::make_shared<TestProtocol>();
    server_ = std::make_unique<Server>(std::move(options));
    const std::string address = "unix:@xtcp-schedules-" + std::to_string(::getpid());
    if (server_->Listen(address)) throw std::runtime_error("nobody listens");
    schedule.Add("loop", [this] { static_cast<void>(server_->Serve()); });
    schedule.Settle();
    peer_ = RawPeer(address);
    schedule.Settle();
    if (watcher_->conn == nullptr) throw std::runtime_error("no connection");
  }
  ~Served() { End(); }
  Served(const Served&) = delete;
  Served& operator=(const Served&) = delete;

  Conn& conn() const { return *watcher_->conn; }
  Server& server() const { return *server_; }
  int send_ready() const { return watcher_->send_ready; }
  bool closed() const { return watcher_->closed; }

  // A frame for the handler.
  void PeerSends(std::string_view payload) {
    if (!peer_.SendAll(Frame(payload))) throw std::runtime_error("the peer cannot send");
  }

  // All that has come since the last time.
  std::string PeerReads() {
    std::string bytes;
    std::array<char, 4096> buffer{};
    ssize_t n = 0;
    while ((n = ::recv(peer_.fd(), buffer.data(), buffer.size(), MSG_DONTWAIT)) > 0) {
      bytes.append(buffer.data(), static_cast<std::size_t>(n));
    }
    saw_end_ = n == 0;
    return bytes;
  }
  bool PeerSawEnd() const { return saw_end_; }
  void PeerCloses() { peer_.Close(); }

  // Stops, and lets the threads go. What is below them must live until then.
  void End() {
    if (server_ == nullptr) return;
    server_->Stop(StopMode::kImmediately);
    schedule_.Finish();
    server_.reset();
  }

 private:
  struct Watcher : Handler {
    explicit Watcher(Hooks with) : hooks(std::move(with)) {}
    void OnEvent(EventType event, const ConnPtr& with, PacketPtr) override {
      if (event == EventType::kAccept) conn = with;
      if (event == EventType::kClosed) closed = true;
      if (event == EventType::kRecv && hooks.on_recv) hooks.on_recv(with);
    }
    void OnSendReady(const ConnPtr& with) override {
      ++send_ready;
      if (hooks.on_send_ready) hooks.on_send_ready(with);
    }

    Hooks hooks;
    ConnPtr conn;
    int send_ready = 0;
    bool closed = false;
  };

  Schedule& schedule_;
  const std::shared_ptr<Watcher> watcher_;
  std::unique_ptr<Server> server_;
  RawPeer peer_;
  bool saw_end_ = false;
};

}  // namespace xtcp::test
