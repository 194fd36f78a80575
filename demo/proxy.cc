// A TCP proxy: for each client it dials the target, on the client's loop. So the two ends of a
// session never run at the same time, and what they share needs no lock.
//
//   proxy 127.0.0.1:7001 127.0.0.1:7000
//
// It reads from each end only as fast as the other one takes. A session that is idle for a minute,
// or for the seconds of a third argument, ends. When one stream ends, so does the session, once
// what had come is written. SIGTERM or Ctrl-C ends all of them gracefully.

#include <signal.h>
#include <xtcp/xtcp.h>

#include <algorithm>
#include <any>
#include <chrono>
#include <cstdlib>
#include <iostream>
#include <memory>
#include <span>
#include <string>
#include <system_error>
#include <thread>
#include <utility>
#include <vector>

using namespace std::chrono_literals;

namespace {

// Bytes as they come, in the receive buffer.
struct Chunk : xtcp::Packet {
  explicit Chunk(std::span<const std::byte> view) : bytes(view) {}
  std::span<const std::byte> bytes;
};

class ChunkProtocol : public xtcp::Protocol {
 public:
  std::size_t PackSize(const xtcp::Packet&) const override { return 0; }  // bytes are sent
  std::error_code PackTo(const xtcp::Packet&, xtcp::Writer&) const override {
    return xtcp::Errc::kBadPacket;
  }
  xtcp::UnpackResult Unpack(std::span<const std::byte> buf) const override {
    // Not more than an empty queue takes.
    const auto bytes = buf.first(std::min<std::size_t>(buf.size(), 64 << 10));
    return {.packet = std::make_unique<Chunk>(bytes), .size = bytes.size()};
  }
};

// What an end keeps in its UserData. The two hold each other until they have closed.
struct End {
  xtcp::ConnPtr other;
  std::vector<std::byte> waiting;  // came from the other one, and did not fit into this one's queue
};
End& EndOf(const xtcp::ConnPtr& conn) { return std::any_cast<End&>(conn->UserData()); }

class Proxy : public xtcp::Handler, public std::enable_shared_from_this<Proxy> {
 public:
  Proxy(std::string target, std::chrono::milliseconds idle) : target_(target), idle_(idle) {}

  // For both ends. A peer that takes nothing for as long as it may be idle has gone.
  xtcp::Options OptionsOfEnd() {
    return {.handler = shared_from_this(),
            .protocol = protocol_,
            .send_buffer_limit = 256 << 10,
            .write_deadline = idle_};
  }

  void OnEvent(xtcp::EventType event, const xtcp::ConnPtr& conn, xtcp::PacketPtr packet) override {
    switch (event) {
      case xtcp::EventType::kAccept:
        return DialFor(conn);
      case xtcp::EventType::kConnected:
        return EndOf(conn).other->ResumeRecv();
      case xtcp::EventType::kRecv:
        return Pass(conn, static_cast<const Chunk&>(*packet).bytes);
      case xtcp::EventType::kClosed:
        return StopOther(conn);
    }
  }

  void OnDialFailed(const xtcp::ConnPtr& conn, std::error_code error) override {
    std::cerr << target_ << ": " << error.message() << '\n';
    EndOf(conn).other->Stop(xtcp::StopMode::kImmediately);
  }

  // There is room again: first for what was left over, then for what its sender has to say.
  void OnSendReady(const xtcp::ConnPtr& conn) override {
    End& end = EndOf(conn);
    if (conn->Send(end.waiting)) return;  // it has not become room enough, or the end comes
    end.waiting.clear();
    end.other->ResumeRecv();
  }

  // Nothing came from either end. While one still takes what is queued, `write_deadline` watches.
  void OnTimer(const xtcp::ConnPtr& conn) override {
    const xtcp::ConnPtr& other = EndOf(conn).other;
    if (conn->Stats().unsent_bytes() + other->Stats().unsent_bytes() != 0) {
      conn->SetTimer(idle_);
    } else {
      conn->Stop(xtcp::StopMode::kGracefullyButNotWait);  // and its kClosed stops the other
    }
  }

 private:
  void DialFor(const xtcp::ConnPtr& client) {
    const xtcp::ConnPtr target = xtcp::NewConn(OptionsOfEnd(), client->loop());
    client->UserData() = End{.other = target, .waiting = {}};
    target->UserData() = End{.other = client, .waiting = {}};
    client->SetTimer(idle_);
    client->PauseRecv();  // nothing is read, not even its end, before there is somebody to tell
    if (const std::error_code error = target->Dial(target_)) {
      std::cerr << target_ << ": " << error.message() << '\n';
      client->Stop(xtcp::StopMode::kImmediately);
    }
  }

  void Pass(const xtcp::ConnPtr& from, std::span<const std::byte> bytes) {
    const xtcp::ConnPtr& to = EndOf(from).other;
    for (const xtcp::ConnPtr& end : {from, to}) end->SetTimer(idle_);
    if (to->Send(bytes) != xtcp::Errc::kFull) return;  // sent, or else its kClosed will come
    // From this pause on no kRecv comes, so one chunk at most waits.
    EndOf(to).waiting.assign(bytes.begin(), bytes.end());
    from->PauseRecv();
  }

  // The other end gets all that came, unless the stream is broken anyway.
  void StopOther(const xtcp::ConnPtr& conn) {
    const bool broken = conn->Stats().reason == xtcp::CloseReason::kPeerReset;
    EndOf(conn).other->Stop(broken ? xtcp::StopMode::kImmediately
                                   : xtcp::StopMode::kGracefullyButNotWait);
  }

  const std::shared_ptr<ChunkProtocol> protocol_ = std::make_shared<ChunkProtocol>();
  const std::string target_;
  const std::chrono::milliseconds idle_;
};

}  // namespace

int main(int argc, char** argv) {
  const std::chrono::duration<double> idle(argc == 4 ? std::atof(argv[3]) : 60);
  if (argc < 3 || argc > 4 || idle < 1ms) {
    std::cerr << "usage: proxy FROM TO [IDLE_SECONDS]\n";
    return 2;
  }
  sigset_t signals;  // blocked before any thread starts, so that only sigwait takes them
  sigemptyset(&signals);
  for (const int signal : {SIGINT, SIGTERM}) sigaddset(&signals, signal);
  pthread_sigmask(SIG_BLOCK, &signals, nullptr);

  xtcp::LoopGroup group(0);  // a loop for each processor
  const auto proxy =
      std::make_shared<Proxy>(argv[2], std::chrono::duration_cast<std::chrono::milliseconds>(idle));
  xtcp::Server server(proxy->OptionsOfEnd(), group);
  std::error_code error = server.Listen(argv[1]);
  if (!error) error = server.Start();
  if (error) {
    std::cerr << argv[1] << ": " << error.message() << '\n';
    return 1;
  }
  std::cout << "passes on what comes to " << server.Addresses().front().ToString() << std::endl;
  std::jthread stopper([&, signal = 0]() mutable {
    sigwait(&signals, &signal);
    group.Stop(xtcp::StopMode::kGracefullyButNotWait);
  });
  error = group.Run();
  if (error) std::cerr << error.message() << '\n';
  pthread_kill(stopper.native_handle(), SIGTERM);  // it still waits if no signal came
  return error ? 1 : 0;
}
