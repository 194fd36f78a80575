#include <atomic>
#include <catch2/catch.hpp>
#include <functional>
#include <memory>
#include <mutex>
#include <stdexcept>
#include <string>
#include <vector>

#include "support/deadline.h"
#include "support/event_recorder.h"
#include "support/raw_peer.h"
#include "support/test_client.h"
#include "support/test_protocol.h"
#include "support/test_server.h"

namespace xtcp::test {
namespace {

std::shared_ptr<EventRecorder> NewRecorder() { return std::make_shared<EventRecorder>(); }

// Counts the lines of the library's log while it lives.
class LineCounter {
 public:
  LineCounter() { SetLogger(std::make_shared<Counter>(&lines_)); }
  ~LineCounter() { SetLogger(nullptr); }

  int lines() const { return lines_; }

 private:
  class Counter : public Logger {
   public:
    explicit Counter(std::atomic<int>* lines) : lines_(lines) {}
    bool Enabled(LogLevel level) const override { return level <= LogLevel::kWarn; }
    void Log(LogLevel, std::string_view, const char*, int) override { ++*lines_; }

   private:
    std::atomic<int>* lines_;
  };

  std::atomic<int> lines_{0};
};

// Throws what it says, once for each name.
void ThrowOne(int which) {
  if (which == 0) throw std::runtime_error("the handler throws");
  throw 42;
}

enum class Where { kAccept, kRecv, kUnpackError, kSendReady, kUnpack };

TEST_CASE("an exception from user code ends that connection only", "[M38][F5][E2][E5]") {
  const Where where = GENERATE(Where::kAccept, Where::kRecv, Where::kUnpackError, Where::kSendReady,
                               Where::kUnpack);
  const int which = GENERATE(0, 1);
  CAPTURE(static_cast<int>(where), which);
  Options options;
  options.send_buffer_limit = 1000;
  auto events = NewRecorder();
  std::atomic<int> accepts{0};
  const LineCounter log;
  events->on_accept = [&](const ConnPtr&) {
    if (accepts++ == 10 && where == Where::kAccept) ThrowOne(which);
  };
  events->on_recv = [&](const ConnPtr& conn, std::string_view payload) {
    if (payload == "throw" && where == Where::kRecv) ThrowOne(which);
    if (payload == "fill") {
      static_cast<void>(conn->Send(std::string(1000, 'x')));
      static_cast<void>(conn->Send("x"));  // refused, so OnSendReady follows
    }
    if (payload == "echo") Echo(conn, payload);
  };
  events->on_unpack_error = [&](auto&&...) { ThrowOne(which); };
  events->on_send_ready = [&](const ConnPtr&) { ThrowOne(which); };

  TestServer server(events, options);
  std::vector<RawPeer> others;
  for (int i = 0; i < 10; ++i) others.emplace_back(server.port());
  REQUIRE(events->WaitForAccepted(10));
  RawPeer peer(server.port());
  switch (where) {
    case Where::kAccept:
      break;
    case Where::kRecv:
      REQUIRE(peer.SendAll(Frame("throw") + Frame("never seen")));
      break;
    case Where::kUnpackError:
      REQUIRE(peer.SendAll(MarkedFrame(Marker::kBad) + Frame("never seen")));
      break;
    case Where::kSendReady:
      REQUIRE(peer.SendAll(Frame("fill")));
      break;
    case Where::kUnpack:
      REQUIRE(peer.SendAll(MarkedFrame(which == 0 ? Marker::kThrow : Marker::kThrowInt)));
      break;
  }
  REQUIRE(events->WaitForClosed(1));
  REQUIRE(peer.ReadAll() != End::kTimeout);
  const auto connection = events->connection(10);
  REQUIRE(connection.closed);
  REQUIRE(connection.at_closed.reason == CloseReason::kException);
  REQUIRE(server->Stats().exceptions == 1);
  REQUIRE(log.lines() >= 1);

  for (RawPeer& other : others) {
    REQUIRE(other.SendAll(Frame("echo")));
    REQUIRE(other.ReadFrame() == "echo");
  }
  others.clear();
  REQUIRE(server.Finish(StopMode::kGracefullyAndWait) == "");
  for (const auto& each : events->connections()) {
    for (const std::string& payload : each.payloads) REQUIRE(payload != "never seen");
  }
}

TEST_CASE("an exception from kClosed is swallowed and counted", "[M38][F5][E2]") {
  const StopMode mode = GENERATE(StopMode::kImmediately, StopMode::kGracefullyButNotWait,
                                 StopMode::kGracefullyAndWait);
  auto events = NewRecorder();
  events->on_closed = [](const ConnPtr&) { throw std::runtime_error("kClosed throws"); };
  TestServer server(events);
  { RawPeer gone(server.port()); }
  REQUIRE(events->WaitForClosed(1));
  REQUIRE(events->connection().at_closed.reason == CloseReason::kPeerClosed);
  RawPeer stays(server.port());
  REQUIRE(events->WaitForAccepted(2));
  stays.HalfClose();
  REQUIRE(server.Finish(mode) == "");
  REQUIRE(server->Stats().exceptions == 2);
}

TEST_CASE("an exception in a dialled connection's callback ends it; DialAndServe returns",
          "[M31][M38][F5]") {
  const bool connected = GENERATE(true, false);
  auto events = NewRecorder();
  events->on_connected = [=](const ConnPtr&) {
    if (connected) throw std::runtime_error("kConnected throws");
  };
  events->on_recv = [](const ConnPtr&, std::string_view) { throw 42; };
  events->on_closed = [](const ConnPtr&) { throw 43; };
  RawListener listener;
  TestClient client(events, listener.address());
  RawPeer peer = listener.Accept();
  if (!connected) REQUIRE(peer.SendAll(Frame("go")));
  REQUIRE_FALSE(client.Wait());
  REQUIRE(client->Stats().reason == CloseReason::kException);
  REQUIRE(client.Finish() == "");
}

TEST_CASE("what a logger throws is swallowed", "[M40][F5]") {
  struct Thrower : Logger {
    bool Enabled(LogLevel) const override { return true; }
    void Log(LogLevel, std::string_view, const char*, int) override {
      throw std::runtime_error("the logger throws");
    }
  };
  SetLogger(std::make_shared<Thrower>());
  auto events = NewRecorder();
  events->on_recv = [](const ConnPtr& conn, std::string_view payload) {
    if (payload == "throw") throw std::runtime_error("the handler throws");
    Echo(conn, payload);
  };
  {
    TestServer server(events);
    RawPeer bad(server.port()), good(server.port());
    REQUIRE(bad.SendAll(Frame("throw")));
    REQUIRE(events->WaitForClosed(1));
    REQUIRE(good.SendAll(Frame("echo")));
    REQUIRE(good.ReadFrame() == "echo");
    REQUIRE(server.Finish() == "");
  }
  SetLogger(nullptr);
}

// --- M39: options are checked where they are given
// ------------------------------------------------

// The name of the field in the message of what was thrown, "" when nothing was.
std::string Refused(const std::function<void(Options&)>& spoil) {
  Options options = WithDefaults({}, NewRecorder());
  spoil(options);
  std::string server_says, conn_says;
  try {
    Server server(options);
  } catch (const std::invalid_argument& error) {
    server_says = error.what();
  }
  try {
    static_cast<void>(NewConn(options));
  } catch (const std::invalid_argument& error) {
    conn_says = error.what();
  }
  // Both check all of it.
  if (server_says.empty() != conn_says.empty()) return "only one of Server and NewConn";
  return server_says;
}

TEST_CASE("an impossible option is refused by its name", "[M39][X4]") {
  using Catch::Contains;
  using std::chrono::milliseconds;
  static constexpr auto kForever = milliseconds::max();
  REQUIRE(Refused([](Options&) {}) == "");
  REQUIRE_THAT(Refused([](Options& o) { o.handler = nullptr; }), Contains("handler"));
  REQUIRE_THAT(Refused([](Options& o) { o.protocol = nullptr; }), Contains("protocol"));
  REQUIRE_THAT(Refused([](Options& o) { o.loops = 1025; }), Contains("loops"));
  REQUIRE_THAT(Refused([](Options& o) { o.loops = SIZE_MAX; }), Contains("loops"));
  REQUIRE_THAT(Refused([](Options& o) { o.recv_buffer_size = 0; }), Contains("recv_buffer_size"));
  REQUIRE_THAT(Refused([](Options& o) { o.recv_buffer_size = SIZE_MAX; }),
               Contains("recv_buffer_size"));
  REQUIRE_THAT(Refused([](Options& o) { o.max_packet_size = 0; }), Contains("max_packet_size"));
  REQUIRE_THAT(Refused([](Options& o) { o.first_packet_size = o.max_packet_size + 1; }),
               Contains("first_packet_size"));
  REQUIRE_THAT(Refused([](Options& o) { o.send_buffer_limit = 0; }), Contains("send_buffer_limit"));
  REQUIRE_THAT(Refused([](Options& o) { o.backlog = 0; }), Contains("backlog"));
  REQUIRE_THAT(Refused([](Options& o) { o.backlog = -1; }), Contains("backlog"));
  REQUIRE_THAT(Refused([](Options& o) { o.keep_alive_period = milliseconds(-1); }),
               Contains("keep_alive_period"));
  REQUIRE_THAT(Refused([](Options& o) { o.keep_alive_period = kForever; }),
               Contains("keep_alive_period"));
  REQUIRE_THAT(Refused([](Options& o) { o.user_timeout = milliseconds(-1); }),
               Contains("user_timeout"));
  REQUIRE_THAT(Refused([](Options& o) { o.user_timeout = kForever; }), Contains("user_timeout"));

  struct Duration {
    const char* name;
    milliseconds Options::*field;
  };
  for (const Duration& duration : {Duration{"read_deadline", &Options::read_deadline},
                                   Duration{"write_deadline", &Options::write_deadline},
                                   Duration{"packet_deadline", &Options::packet_deadline},
                                   Duration{"connect_timeout", &Options::connect_timeout},
                                   Duration{"linger_timeout", &Options::linger_timeout}}) {
    const auto set = [&](milliseconds value) {
      return Refused([&](Options& options) { options.*duration.field = value; });
    };
    REQUIRE_THAT(set(milliseconds(-1)), Contains(duration.name));
    REQUIRE_THAT(set(kForever), Contains(duration.name));
    REQUIRE_THAT(set(milliseconds::min()), Contains(duration.name));
    REQUIRE(set(milliseconds(0)) == "");
    REQUIRE(set(std::chrono::hours(24 * 365)) == "");
  }
}

TEST_CASE("odd but possible options serve", "[M39][X4]") {
  Options options;
  options.recv_buffer_size = 1;
  options.max_packet_size = kHeaderSize + 4;
  options.first_packet_size = kHeaderSize + 4;
  options.send_buffer_limit = kHeaderSize + 4;
  options.loops = GENERATE(1u, 0u);
  options.keep_alive = true;
  options.keep_alive_period = std::chrono::milliseconds(GENERATE(0, 1, 500));
  options.backlog = GENERATE(1, 2147483647);
  auto events = NewRecorder();
  events->on_recv = Echo;
  TestServer server(events, options);
  RawPeer peer(server.port());
  for (int i = 0; i < 10; ++i) {
    REQUIRE(peer.SendAll(Frame("four")));
    REQUIRE(peer.ReadFrame() == "four");
  }
  REQUIRE(server.Finish() == "");
}

TEST_CASE("the options are copied: what their owner does with them later has no effect", "[M39]") {
  auto events = NewRecorder();
  events->on_recv = Echo;
  Options options = WithDefaults({}, events);
  Server server(options);
  options = Options{};
  REQUIRE_FALSE(server.Listen("127.0.0.1:0"));
  std::thread serving([&] { static_cast<void>(server.Serve()); });
  RawPeer peer(server.Addresses().at(0).Port());
  REQUIRE(peer.SendAll(Frame("still served")));
  REQUIRE(peer.ReadFrame() == "still served");
  server.Stop(StopMode::kImmediately);
  serving.join();
  REQUIRE(events->Verify() == "");
}

}  // namespace
}  // namespace xtcp::test
