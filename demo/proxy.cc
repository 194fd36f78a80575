// A TCP proxy: for each client it dials the target, on the client's loop. So the two ends of a
// session never run at the same time, and what they share needs no lock.
//
//   proxy 127.0.0.1:7001 127.0.0.1:7000
//
// It reads from each end only as fast as the other one takes. When one stream ends, its end is
// passed on, and the other one goes on. A session that is idle for a minute, or for the seconds of
// a third argument, ends. SIGTERM or Ctrl-C ends all of them gracefully.

#include <xtcp/daemon.h>
#include <xtcp/xtcp.h>

#include <chrono>
#include <cstdlib>
#include <iostream>
#include <memory>
#include <span>
#include <string>
#include <system_error>
#include <vector>

using namespace std::chrono_literals;

namespace {

// What an end keeps. The two hold each other until they have closed.
struct End {
  xtcp::ConnPtr other;
  std::vector<std::byte> waiting;  // came from the other one, and did not fit into the queue
};

class Proxy : public xtcp::Handler, public std::enable_shared_from_this<Proxy> {
 public:
  Proxy(std::string target, std::chrono::milliseconds idle) : target_(target), idle_(idle) {}

  // For both ends. A peer that takes nothing for as long as it may be idle has gone.
  xtcp::Options OptionsOfEnd() {
    return {.handler = shared_from_this(),
            .protocol = protocol_,
            .max_packet_size = 64 << 10,  // an empty queue takes what comes at once
            .send_buffer_limit = 256 << 10,
            .half_close = true,
            .write_deadline = idle_};
  }

  void OnEvent(xtcp::EventType event, const xtcp::ConnPtr& conn, xtcp::PacketPtr packet) override {
    if (event == xtcp::EventType::kAccept) DialFor(conn);
    if (event == xtcp::EventType::kConnected) OtherOf(conn)->ResumeRecv();
    if (event == xtcp::EventType::kRecv)
      Pass(conn, static_cast<const xtcp::BytesPacket&>(*packet).bytes());
    if (event == xtcp::EventType::kClosed) StopOther(conn);
  }

  void OnDialFailed(const xtcp::ConnPtr& conn, std::error_code error) override {
    std::cerr << target_ << ": " << error.message() << '\n';
    OtherOf(conn)->Stop(xtcp::StopMode::kImmediately);
  }

  // Nothing of it waits: an end is paused, and so not seen, while something does.
  void OnRecvEnd(const xtcp::ConnPtr& conn) override { OtherOf(conn)->EndSend(); }

  // There is room again: first for what was left over, then for what its sender has to say.
  void OnSendReady(const xtcp::ConnPtr& conn) override {
    End& end = *conn->Data<End>();
    if (conn->Send(end.waiting)) return;  // it has not become room enough, or the end comes
    end.waiting.clear();
    end.other->ResumeRecv();
  }

  // Nothing came from either end. While one still takes what is queued, `write_deadline` watches.
  void OnTimer(const xtcp::ConnPtr& conn) override {
    const xtcp::ConnStats one = conn->Stats(), other = OtherOf(conn)->Stats();
    if (one.unsent_bytes() + other.unsent_bytes() != 0) return conn->SetTimer(idle_);
    conn->Stop(xtcp::StopMode::kGracefullyButNotWait);  // and its kClosed stops the other
  }

 private:
  static const xtcp::ConnPtr& OtherOf(const xtcp::ConnPtr& conn) {
    return conn->Data<End>()->other;
  }

  void DialFor(const xtcp::ConnPtr& client) {
    const xtcp::ConnPtr target = xtcp::NewConn(OptionsOfEnd(), client->loop());
    client->EmplaceData<End>().other = target;
    target->EmplaceData<End>().other = client;
    client->SetTimer(idle_);
    client->PauseRecv();  // nothing is read, not even its end, before there is somebody to tell
    if (const std::error_code error = target->Dial(target_)) OnDialFailed(target, error);
  }

  void Pass(const xtcp::ConnPtr& from, std::span<const std::byte> bytes) {
    const xtcp::ConnPtr& to = OtherOf(from);
    for (const xtcp::ConnPtr& end : {from, to}) end->SetTimer(idle_);
    if (to->Send(bytes) != xtcp::Errc::kFull) return;  // sent, or else its kClosed will come
    // From this pause on no kRecv comes, so one chunk at most waits.
    to->Data<End>()->waiting.assign(bytes.begin(), bytes.end());
    from->PauseRecv();
  }

  // When both streams had ended, the other one ends by itself, and may still have something to
  // write. Otherwise it gets all that came, unless the stream is broken anyway.
  static void StopOther(const xtcp::ConnPtr& conn) {
    const xtcp::CloseReason reason = conn->Stats().reason;
    if (reason == xtcp::CloseReason::kPeerClosed) return;
    OtherOf(conn)->Stop(reason == xtcp::CloseReason::kPeerReset
                            ? xtcp::StopMode::kImmediately
                            : xtcp::StopMode::kGracefullyButNotWait);
  }

  const std::shared_ptr<xtcp::RawProtocol> protocol_ = std::make_shared<xtcp::RawProtocol>();
  const std::string target_;
  const std::chrono::milliseconds idle_;
};

}  // namespace

int main(int argc, char** argv) {
  const std::chrono::seconds idle(argc == 4 ? std::atoi(argv[3]) : 60);
  if (argc < 3 || argc > 4 || idle < 1s) {
    std::cerr << "usage: proxy FROM TO [IDLE_SECONDS]\n";
    return 2;
  }
  xtcp::LoopGroup group(0);  // a loop for each processor
  const auto proxy = std::make_shared<Proxy>(argv[2], idle);
  xtcp::Server server(proxy->OptionsOfEnd(), group);
  std::error_code error = server.Listen(argv[1]);
  if (!error) error = server.Start();
  if (!error) {
    std::cout << "passes on what comes to " << server.Addresses().front().ToString() << std::endl;
    error = xtcp::RunUntilSignal(group);
  }
  if (error) std::cerr << argv[1] << ": " << error.message() << '\n';
  return error ? 1 : 0;
}
