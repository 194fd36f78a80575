// Threads that end: what their destructors may still call, and what becomes of a loop whose thread
// ends by pthread_exit(3) or pthread_cancel(3).

// The address sanitizer cannot follow a thread that is unwound by force (pthread_exit(3),
// pthread_cancel(3)): it looks for frames of callees that are gone, and aborts in a check of its own.
#if !defined(__SANITIZE_ADDRESS__)

#include <pthread.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <catch2/catch.hpp>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <iostream>
#include <memory>
#include <mutex>
#include <span>
#include <string>
#include <string_view>
#include <system_error>
#include <thread>
#include <utility>
#include <vector>

#include "support/deadline.h"
#include "support/event_recorder.h"
#include "support/raw_peer.h"
#include "support/test_protocol.h"
#include "support/test_server.h"
#include "support/violations.h"

namespace xtcp::test {
namespace {

// --- Destructors at a thread's end ---------------------------------------------------------------

constexpr std::size_t kSizes[] = {100, 3'000, 100'000};

// Sends packets and bytes when it is destroyed, then stops and lets go.
struct Goodbye {
  ~Goodbye() {
    if (conn == nullptr) return;
    bool good = true;
    for (const std::size_t size : kSizes) {
      good = !conn->SendPacket(BytesPacket(std::string(size, 'b'))) && good;
      good = !conn->Send(Frame("bytes")) && good;
    }
    if (!good) AddViolation("a Send at the end of a thread was refused");
    static_cast<void>(conn->Stop(StopMode::kGracefullyButNotWait));
    static_cast<void>(conn->Stats());
    conn.reset();
  }
  ConnPtr conn;
};

std::vector<std::string> GoodbyePayloads() {
  std::vector<std::string> payloads;
  for (const std::size_t size : kSizes) {
    payloads.emplace_back(size, 'b');
    payloads.emplace_back("bytes");
  }
  return payloads;
}

thread_local Goodbye goodbye;

TEST_CASE("a thread's oldest destructor may send", "[M28][seen-1]") {
  TestServer server(std::make_shared<EventRecorder>());
  RawPeer peer(server.port());
  REQUIRE(server.events().WaitForAccepted(1));
  ConnPtr conn = server.events().conn();
  bool sent = false;
  std::thread([&] {
    goodbye.conn = std::move(conn);  // made before all that the library has for this thread
    // What a thread keeps is made now, and goes first.
    sent = true;
    for (const std::size_t size : kSizes) {
      const auto packet = std::make_unique<BytesPacket>(std::string(size, 'h'));
      sent = !goodbye.conn->SendPacket(*packet) && sent;
    }
  }).join();
  REQUIRE(sent);
  std::string stream;
  REQUIRE(peer.ReadAll(&stream) == End::kEof);
  peer.Close();
  REQUIRE(server.Finish() == "");
  std::vector<std::string> expected;
  for (const std::size_t size : kSizes) expected.emplace_back(size, 'h');
  for (std::string& payload : GoodbyePayloads()) expected.push_back(std::move(payload));
  const bool same = PayloadsIn(stream) == expected;
  CHECK(same);
}

TEST_CASE("a static object's destructor may send", "[M28][seen-1]") {
  const ConnPtr conn = NewConn(WithDefaults({}, std::make_shared<EventRecorder>()));
  std::cout.flush();
  std::fflush(nullptr);  // or the child would write it once more
  const pid_t child = ::fork();
  if (child == 0) {
    // Destroyed in the reverse order, after the main thread's own objects.
    static struct Look {
      ~Look() {
        if (!TakeViolations().empty()) ::_exit(3);
      }
    } look;
    static Goodbye last_words;
    last_words.conn = conn;
    if (conn->SendPacket(BytesPacket(std::string(1000, 'h')))) ::_exit(2);
    std::exit(0);
  }
  int status = -1;
  REQUIRE(::waitpid(child, &status, 0) == child);
  CHECK(WIFEXITED(status));
  CHECK(WEXITSTATUS(status) == 0);
}

// --- pthread_exit and pthread_cancel -------------------------------------------------------------

// Where a thread leaves.
enum class Place { kFirst, kRecv, kClosed, kUnpackError, kSendReady, kUnpack };

constexpr Place kPlaces[] = {Place::kFirst,       Place::kRecv,      Place::kClosed,
                             Place::kUnpackError, Place::kSendReady, Place::kUnpack};

// Counts events, and ends its thread once, at one place, for a connection that sends "leave".
class Leaving : public Handler {
 public:
  explicit Leaving(Place place) : place_(place) {}

  void OnEvent(EventType event, const ConnPtr& conn, PacketPtr packet) override {
    if (event == EventType::kClosed) {
      closed.Add();
      LeaveAt(Place::kClosed, conn);
    } else if (event == EventType::kRecv) {
      const std::string& payload = static_cast<const BytesPacket&>(*packet).payload();
      if (payload != "leave") return;
      leaves_ = conn.get();
      LeaveAt(Place::kRecv, conn);
      if (place_ == Place::kSendReady) {
        static_cast<void>(conn->Send(std::string(kLimit, 'x')));
        static_cast<void>(conn->Send("refused"));
      } else {
        static_cast<void>(conn->Stop(StopMode::kImmediately));
      }
    } else {
      {
        std::lock_guard lock(mutex_);
        conns_.push_back(conn);
      }
      const bool leaves = leave_at_first && place_ == Place::kFirst;
      opened.Add();
      if (leaves) Leave();
    }
  }
  void OnUnpackError(const ConnPtr&, std::span<const std::byte>, std::error_code) override {
    if (place_ == Place::kUnpackError) Leave();
  }
  void OnSendReady(const ConnPtr& conn) override { LeaveAt(Place::kSendReady, conn); }

  // A handler that returns in between would be an error of the library.
  void Leave() {
    if (left_.exchange(true)) return;
    ::pthread_exit(nullptr);
  }

  bool has_left() const { return left_; }

  ConnPtr conn(std::size_t i) const {
    std::lock_guard lock(mutex_);
    return conns_.at(i);
  }

  static constexpr std::size_t kLimit = 1000;
  Tally opened, closed;
  std::atomic<bool> leave_at_first{false};

 private:
  void LeaveAt(Place place, const ConnPtr& conn) {
    if (place == place_ && conn.get() == leaves_) Leave();
  }

  const Place place_;
  std::atomic<bool> left_{false};
  std::atomic<const Conn*> leaves_{nullptr};
  mutable std::mutex mutex_;
  std::vector<ConnPtr> conns_;
};

// Leaves in `Unpack`.
class LeavingProtocol : public TestProtocol {
 public:
  LeavingProtocol(std::shared_ptr<Leaving> handler, Place place)
      : handler_(std::move(handler)), place_(place) {}
  UnpackResult Unpack(std::span<const std::byte> buf) const override {
    if (place_ == Place::kUnpack && AsText(buf).ends_with("leave")) handler_->Leave();
    return TestProtocol::Unpack(buf);
  }

 private:
  const std::shared_ptr<Leaving> handler_;
  const Place place_;
};

Options OptionsFor(const std::shared_ptr<Leaving>& handler, Place place) {
  Options options;
  options.handler = handler;
  options.protocol = std::make_shared<LeavingProtocol>(handler, place);
  options.send_buffer_limit = Leaving::kLimit;
  return options;
}

// A thread that a test may cancel, which std::thread does not promise.
class Pthread {
 public:
  explicit Pthread(std::function<void()> body) : body_(std::move(body)) {
    const auto run = [](void* self) -> void* {
      static_cast<Pthread*>(self)->body_();
      return self;
    };
    if (::pthread_create(&thread_, nullptr, run, this) != 0) Die("no thread");
  }

  void Cancel() { ::pthread_cancel(thread_); }

  // Whether it returned; else it was ended.
  bool Join() {
    void* result = nullptr;
    WithinDeadline("a thread's end", [&] { ::pthread_join(thread_, &result); });
    return result == this;
  }

 private:
  const std::function<void()> body_;
  pthread_t thread_{};
};

// A server of which one thread ends: four connections, in turn on its loops.
struct Scene {
  explicit Scene(Place place, std::size_t loops = 1) : handler(std::make_shared<Leaving>(place)) {
    Options options = OptionsFor(handler, place);
    options.loops = loops;
    server = std::make_unique<Server>(std::move(options));
    REQUIRE_FALSE(server->Listen("127.0.0.1:0"));
    port = server->Addresses().at(0).Port();
    serving = std::make_unique<Pthread>([this] { served = server->Serve(); });
    for (std::size_t i = 0; i < kConnections; ++i) {
      peers.emplace_back(port);
      REQUIRE(handler->opened.WaitFor(i + 1));
    }
    // They wait for the ends of two connections, whose peers are silent.
    for (const std::size_t i : {2, 3}) {
      waiting.emplace_back([this, conn = handler->conn(i)] {
        static_cast<void>(conn->Stop(StopMode::kGracefullyAndWait));
        released.Add();
      });
    }
    for (const std::size_t i : {2, 3}) REQUIRE(peers[i].ReadAll() == End::kEof);
  }

  // All that must come when one of its threads has ended.
  void MustEnd(bool first_loop_ends) {
    // The loops that are left stop gracefully: their peers end their streams.
    if (!first_loop_ends) CHECK(WaitUntil([&] { return server->IsStopped(); }));
    for (RawPeer& peer : peers) peer.HalfClose();
    const bool returned = serving->Join();
    CHECK(returned != first_loop_ends);
    CHECK(handler->closed.WaitFor(handler->opened.count()));
    CHECK(released.WaitFor(2));
    for (std::thread& thread : waiting) thread.join();
    CHECK(server->IsStopped());
    CHECK(server->ConnectionCount() == 0);
    WithinDeadline("a stop", [&] { server->Stop(StopMode::kGracefullyAndWait); });
    CHECK(server->Serve() == Errc::kAlreadyUsed);
    CHECK(handler->conn(0)->Send("x") == Errc::kClosed);
    WithinDeadline("~Server", [&] { server.reset(); });
    CHECK(handler->closed.count() == handler->opened.count());
  }

  static constexpr std::size_t kConnections = 4;
  const std::shared_ptr<Leaving> handler;
  std::unique_ptr<Server> server;
  std::uint16_t port = 0;
  std::error_code served;
  std::unique_ptr<Pthread> serving;
  std::vector<RawPeer> peers;
  std::vector<std::thread> waiting;
  Tally released;
};

TEST_CASE("a serving thread may end in each callback", "[M20][M24][seen-17]") {
  const std::size_t loops = GENERATE(1u, 2u);
  const bool second_loop = GENERATE(false, true);
  if (second_loop && loops == 1) return;
  for (const Place place : kPlaces) {
    CAPTURE(loops, second_loop, static_cast<int>(place));
    Scene scene(place, loops);
    const std::size_t leaving = second_loop ? 1 : 0;
    if (place == Place::kFirst) {
      // Connections go to the loops in turn: the fifth to the first one.
      if (second_loop) {
        scene.peers.emplace_back(scene.port);
        REQUIRE(scene.handler->opened.WaitFor(5));
      }
      scene.handler->leave_at_first = true;
      scene.peers.emplace_back(scene.port);
    } else {
      const std::string bytes =
          place == Place::kUnpackError ? MarkedFrame(Marker::kBad, "leave") : Frame("leave");
      REQUIRE(scene.peers[leaving].SendAll(bytes));
    }
    // The end of the peer's stream must not come first.
    REQUIRE(WaitUntil([&] { return scene.handler->has_left(); }));
    scene.MustEnd(!second_loop);
    if (second_loop) CHECK(scene.served == std::errc::operation_canceled);
  }
}

// A dialled connection whose thread ends.
struct Dialled {
  explicit Dialled(std::shared_ptr<Leaving> with, Place place)
      : handler(std::move(with)), conn(NewConn(OptionsFor(handler, place))) {}

  void Dial(const std::string& address) {
    dialling = std::make_unique<Pthread>([this, address] { result = conn->DialAndServe(address); });
  }

  // Waits for its end from a thread of its own.
  void Wait() {
    waiting = std::thread([this] {
      static_cast<void>(conn->Stop(StopMode::kGracefullyAndWait));
      released.Set();
    });
  }

  void MustEnd() {
    CHECK_FALSE(dialling->Join());
    if (waiting.joinable()) {
      CHECK(released.Wait());
      waiting.join();
    }
    CHECK(handler->closed.count() == handler->opened.count());
    CHECK(conn->IsStopped());
    CHECK(conn->Send("x") == Errc::kClosed);
    CHECK(conn->Stats().reason != CloseReason::kNone);
    CHECK(conn->DialAndServe("127.0.0.1:1") == Errc::kAlreadyUsed);
  }

  const std::shared_ptr<Leaving> handler;
  const ConnPtr conn;
  std::error_code result;
  std::unique_ptr<Pthread> dialling;
  std::thread waiting;
  Signal released;
};

TEST_CASE("a dialling thread may end in each callback", "[M20][M31][seen-17]") {
  for (const Place place : kPlaces) {
    CAPTURE(static_cast<int>(place));
    RawListener listener;
    Dialled dialled(std::make_shared<Leaving>(place), place);
    dialled.handler->leave_at_first = true;
    dialled.Dial(listener.address());
    RawPeer peer = listener.Accept();
    REQUIRE(dialled.handler->opened.WaitFor(1));
    const std::string bytes =
        place == Place::kUnpackError ? MarkedFrame(Marker::kBad, "leave") : Frame("leave");
    static_cast<void>(peer.SendAll(bytes));
    static_cast<void>(peer.ReadAll());
    dialled.MustEnd();
  }
}

// The thread sanitizer leaves a call that blocks by a return only: after a thread was cancelled in it,
// it sees none of the thread's locks any more, and reports races where they are what orders.
#if !defined(__SANITIZE_THREAD__)

TEST_CASE("a serving thread may be cancelled while it waits", "[M20][M24][seen-17]") {
  const std::size_t loops = GENERATE(1u, 2u);
  Scene scene(Place::kRecv, loops);
  scene.serving->Cancel();
  scene.MustEnd(true);
}

// Keeps a callback until the test has asked for its thread's end. Whether the callback came to its
// end all the same.
class Busy : public Leaving {
 public:
  Busy() : Leaving(Place::kRecv) {}
  void OnEvent(EventType event, const ConnPtr& conn, PacketPtr packet) override {
    if (event != EventType::kRecv) {
      Leaving::OnEvent(event, conn, std::move(packet));
      return;
    }
    inside.Set();
    if (!go.Wait()) AddViolation("nobody lets the callback go on");
    ::pthread_testcancel();
    if (conn->Send("answer")) AddViolation("a Send was refused");
    finished = true;
  }
  Signal inside, go;
  std::atomic<bool> finished{false};
};

TEST_CASE("a serving thread that is cancelled finishes its callbacks first", "[M24][seen-17]") {
  const auto handler = std::make_shared<Busy>();
  Server server(WithDefaults({}, handler));
  REQUIRE_FALSE(server.Listen("127.0.0.1:0"));
  Pthread serving([&] { static_cast<void>(server.Serve()); });
  RawPeer peer(server.Addresses().at(0).Port());
  REQUIRE(peer.SendAll(Frame("x")));
  REQUIRE(handler->inside.Wait());
  serving.Cancel();
  handler->go.Set();
  CHECK_FALSE(serving.Join());
  CHECK(handler->finished);
  CHECK(handler->closed.count() == 1);
  CHECK(handler->conn(0)->Stats().reason == CloseReason::kSystemError);
  CHECK(handler->conn(0)->Stats().error == std::errc::operation_canceled);
}

TEST_CASE("a dialling thread may be cancelled", "[M20][M31][seen-17]") {
  SECTION("while its connect is under way") {
    RawListener hung(0);
    RawPeer fills_it(hung.port());  // the queue is full: further SYNs are dropped
    Dialled dialled(std::make_shared<Leaving>(Place::kRecv), Place::kRecv);
    REQUIRE_FALSE(dialled.conn->Send("lost"));
    dialled.Dial(hung.address());
    dialled.dialling->Cancel();
    dialled.MustEnd();
    CHECK(dialled.conn->Stats().reason == CloseReason::kConnectFailed);
    CHECK(dialled.conn->Stats().error == std::errc::operation_canceled);
    CHECK(dialled.conn->Stats().unsent_bytes() == 4);
  }
  SECTION("while it waits") {
    RawListener listener;
    Dialled dialled(std::make_shared<Leaving>(Place::kRecv), Place::kRecv);
    dialled.Dial(listener.address());
    RawPeer peer = listener.Accept();
    REQUIRE(dialled.handler->opened.WaitFor(1));
    dialled.Wait();
    REQUIRE(peer.ReadAll() == End::kEof);  // the stop waits for this peer
    dialled.dialling->Cancel();
    dialled.MustEnd();
    CHECK(dialled.conn->Stats().reason == CloseReason::kSystemError);
  }
  SECTION("while it is busy") {
    RawListener listener;
    const auto handler = std::make_shared<Busy>();
    Dialled dialled(handler, Place::kRecv);
    dialled.Dial(listener.address());
    RawPeer peer = listener.Accept();
    REQUIRE(peer.SendAll(Frame("x")));
    REQUIRE(handler->inside.Wait());
    dialled.dialling->Cancel();
    handler->go.Set();
    dialled.MustEnd();
    CHECK(handler->finished);
  }
}

#endif

}  // namespace
}  // namespace xtcp::test

#endif
