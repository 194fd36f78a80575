// The main demo: one process serves and dials itself over TCP. The client logs in, chats, and stops
// gracefully; then the server stops gracefully and waits. protobuf is inside the packets, spdlog
// prints the conversation. Exits 0 if it ran to its end and nothing was lost.

#include <spdlog/sinks/stdout_color_sinks.h>
#include <spdlog/spdlog.h>
#include <xtcp/spdlog_logger.h>
#include <xtcp/xtcp.h>

#include <any>
#include <chrono>
#include <iostream>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <system_error>
#include <thread>
#include <utility>

#include "chat.pb.h"
#include "protobuf_protocol.h"

namespace {

using namespace std::chrono_literals;
using demo::ProtobufPacket;
using demo::ProtobufProtocol;
using xtcp::ConnPtr;
using LogPtr = std::shared_ptr<spdlog::logger>;

constexpr std::string_view kAccount = "alice";
constexpr std::string_view kPassword = "open sesame";

// What the two ends have in common: a name in the log, and a way to say something. Speech is in
// quotes there, and stands before the answer because it is logged before it is sent.
class Speaker : public xtcp::Handler {
 public:
  explicit Speaker(LogPtr log) : log_(std::move(log)) {}

  void OnUnpackError(const ConnPtr& conn, std::span<const std::byte> bad,
                     std::error_code error) override {
    log_->error("{} bytes make no sense: {}", bad.size(), error.message());
    conn->Stop(xtcp::StopMode::kImmediately);
  }

 protected:
  void Say(const ConnPtr& conn, std::string_view speech, const google::protobuf::Message& message) {
    log_->info("\"{}\"", speech);
    if (const auto error = conn->SendPacket(ProtobufPacket(message))) {
      log_->error("nobody hears that: {}", error.message());
      conn->Stop(xtcp::StopMode::kImmediately);
    }
  }

  void SayLine(const ConnPtr& conn, std::string_view text) {
    chat::ChatLine line;
    line.set_text(std::string(text));
    Say(conn, text, line);
  }

  // For what the other end should not have said. Its bytes stay out of the log.
  void Refuse(const ConnPtr& conn, const ProtobufPacket& packet) {
    log_->error("did not expect this {}", packet.ToString());
    conn->Stop(xtcp::StopMode::kImmediately);
  }

  void LogEnd(const ConnPtr& conn) {
    const xtcp::ConnStats stats = conn->Stats();
    log_->info("closed ({}): {} messages sent, {} received", xtcp::ToString(stats.reason),
               stats.accepted_sends, stats.received_packets);
  }

  const LogPtr log_;
};

class ChatServer : public Speaker {
 public:
  using Speaker::Speaker;

  void OnEvent(xtcp::EventType event, const ConnPtr& conn, xtcp::PacketPtr packet) override {
    switch (event) {
      case xtcp::EventType::kAccept:
        log_->info("accepted {}", conn->ToString());
        return;
      case xtcp::EventType::kConnected:
        return;  // for the end that dialled
      case xtcp::EventType::kRecv:
        // The protocol makes no packets of another class.
        OnMessage(conn, static_cast<const ProtobufPacket&>(*packet));
        return;
      case xtcp::EventType::kClosed:
        LogEnd(conn);
        return;
    }
  }

 private:
  // Who logged in is kept with the connection; nobody has while there is nothing.
  void OnMessage(const ConnPtr& conn, const ProtobufPacket& packet) {
    const bool logged_in = conn->UserData().has_value();
    const auto* login = packet.As<chat::LoginRequest>();
    const auto* line = packet.As<chat::ChatLine>();
    if (login != nullptr && !logged_in) {
      OnLogin(conn, *login);
    } else if (line != nullptr && logged_in && line->text() == "hello") {
      SayLine(conn, "hi");
    } else if (line != nullptr && logged_in && line->text() == "bye-bye") {
      SayLine(conn, "bye");
    } else {
      Refuse(conn, packet);
    }
  }

  void OnLogin(const ConnPtr& conn, const chat::LoginRequest& login) {
    chat::LoginResponse response;
    if (login.account() == kAccount && login.password() == kPassword) {
      conn->UserData() = login.account();
      response.set_result(chat::LoginResponse::RESULT_WELCOME);
      Say(conn, "welcome, " + login.account(), response);
    } else {
      response.set_result(chat::LoginResponse::RESULT_REFUSED);
      Say(conn, "I do not know you", response);
      conn->Stop(xtcp::StopMode::kGracefullyButNotWait);
    }
  }
};

class ChatClient : public Speaker {
 public:
  using Speaker::Speaker;

  // Whether the conversation ran to its end. After `DialAndServe`, on its thread.
  bool finished() const { return finished_; }

  void OnEvent(xtcp::EventType event, const ConnPtr& conn, xtcp::PacketPtr packet) override {
    switch (event) {
      case xtcp::EventType::kAccept:
        return;  // for the end that listens
      case xtcp::EventType::kConnected:
        log_->info("connected {}", conn->ToString());
        LogIn(conn);
        return;
      case xtcp::EventType::kRecv:
        OnMessage(conn, static_cast<const ProtobufPacket&>(*packet));
        return;
      case xtcp::EventType::kClosed:
        LogEnd(conn);
        return;
    }
  }

 private:
  void LogIn(const ConnPtr& conn) {
    chat::LoginRequest login;
    login.set_account(std::string(kAccount));
    login.set_password(std::string(kPassword));
    Say(conn, "I am " + login.account() + ", and you know my password", login);
  }

  void OnMessage(const ConnPtr& conn, const ProtobufPacket& packet) {
    const auto* login = packet.As<chat::LoginResponse>();
    const auto* line = packet.As<chat::ChatLine>();
    if (login != nullptr && login->result() == chat::LoginResponse::RESULT_WELCOME) {
      SayLine(conn, "hello");
    } else if (line != nullptr && line->text() == "hi") {
      SayLine(conn, "bye-bye");
    } else if (line != nullptr && line->text() == "bye") {
      finished_ = true;
      log_->info("stops gracefully");
      conn->Stop(xtcp::StopMode::kGracefullyButNotWait);
    } else {
      Refuse(conn, packet);
    }
  }

  bool finished_ = false;
};

// Low limits: the messages are small, and whatever goes wrong, the demo ends within seconds.
xtcp::Options MakeOptions(std::shared_ptr<xtcp::Handler> handler) {
  return {
      .handler = std::move(handler),
      .protocol = std::make_shared<ProtobufProtocol>(chat::ChatLine::descriptor()->file()),
      .max_packet_size = ProtobufProtocol::kFrameBytesMax,
      .read_deadline = 5s,
      .connect_timeout = 5s,
      .linger_timeout = 5s,
  };
}

// Logs what a stop did, and returns whether nothing was lost.
bool CheckReport(const LogPtr& log, const xtcp::StopReport& report) {
  log->info("stop report: {} open, {} cut, {} bytes unsent, {} bytes unacknowledged",
            report.connections, report.cut, report.unsent_bytes, report.unacked_bytes);
  return report.cut == 0 && report.unsent_bytes == 0 && report.unacked_bytes == 0;
}

bool Chat() {
  const LogPtr server_log = spdlog::stdout_color_mt("server");
  const LogPtr client_log = spdlog::stdout_color_mt("client");
  xtcp::SetLogger(std::make_shared<xtcp::SpdlogLogger>(spdlog::stdout_color_mt("xtcp")));
  spdlog::set_pattern("%H:%M:%S.%e  %-6n  %^%v%$");

  xtcp::Server server(MakeOptions(std::make_shared<ChatServer>(server_log)));
  if (const auto error = server.Listen("127.0.0.1:0")) {
    server_log->error("cannot listen: {}", error.message());
    return false;
  }
  const std::string address = server.Addresses().front().ToString();
  server_log->info("listens on {}", address);

  std::error_code serve_error;
  std::thread serving([&] { serve_error = server.Serve(); });

  const auto chatter = std::make_shared<ChatClient>(client_log);
  const ConnPtr client = xtcp::NewConn(MakeOptions(chatter));
  if (const auto error = client->DialAndServe(address)) {
    client_log->error("cannot connect: {}", error.message());
  }
  if (!chatter->finished()) client_log->error("the conversation did not run to its end");

  server_log->info("stops gracefully and waits");
  const xtcp::StopReport server_report = server.Stop(xtcp::StopMode::kGracefullyAndWait);
  serving.join();
  if (serve_error) server_log->error("serving failed: {}", serve_error.message());

  // The client has ended: it does not wait, and tells how that went.
  const xtcp::StopReport client_report = client->Stop(xtcp::StopMode::kGracefullyAndWait);
  const bool client_kept_all = CheckReport(client_log, client_report);
  const bool server_kept_all = CheckReport(server_log, server_report);

  // The stop's report does not cover connections that had closed before it; the totals do.
  const xtcp::ServerStats totals = server.Stats();
  server_log->info("in all: {} bytes sent, {} unsent, {} unacknowledged", totals.accepted_bytes,
                   totals.unsent_bytes, totals.unacked_bytes);
  const bool totals_agree = totals.unsent_bytes == 0 && totals.unacked_bytes == 0;
  return chatter->finished() && !serve_error && client_kept_all && server_kept_all && totals_agree;
}

}  // namespace

int main(int argc, char** argv) {
  constexpr std::string_view kUsage =
      "usage: protobuf_chat\n"
      "Serves and dials itself over TCP, and prints the conversation. It ends by itself.\n";
  if (argc == 2 && std::string_view(argv[1]) == "--help") {
    std::cout << kUsage;
    return 0;
  }
  if (argc != 1) {
    std::cerr << kUsage;
    return 2;
  }
  return Chat() ? 0 : 1;
}
