// Sends of several parts, some of them shared.

#include <xtcp/xtcp.h>

#include <array>
#include <atomic>
#include <catch2/catch.hpp>
#include <chrono>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "support/alloc_hook.h"
#include "support/fault_control.h"
#include "support/one_of.h"
#include "support/random.h"

namespace xtcp::test {
namespace {

using namespace std::chrono_literals;

Kind AnyKind() { return GENERATE(Kind::kAccepted, Kind::kDialled, Kind::kOwnServer); }

// Where a send is made.
enum class From { kOtherThread, kOwnTurn, kOtherTurn };

// Runs `body` there, and waits for it.
void RunFrom(From from, OneOf& c, const std::function<void()>& body) {
  Signal done;
  const auto run = [&] {
    body();
    done.Set();
  };
  if (from == From::kOtherThread) run();
  if (from == From::kOwnTurn) REQUIRE_FALSE(c.conn->Post(run));
  if (from == From::kOtherTurn) REQUIRE_FALSE(c.conn->loop().Post(run));
  REQUIRE(done.Wait());
}

TEST_CASE("what a part is made from", "[M61]") {
  const std::string text = "text";
  const auto shared = std::make_shared<std::string>("shared");
  const auto vector = std::make_shared<const std::vector<std::byte>>(7);
  const auto array = std::make_shared<std::array<char, 3>>();
  REQUIRE(Part(std::string_view(text)).bytes.size() == 4);
  REQUIRE(Part(text.c_str()).owner == nullptr);
  REQUIRE(Part(shared).owner == shared);
  REQUIRE(Part(shared).bytes.size() == 6);
  REQUIRE(Part(vector).bytes.data() == vector->data());
  REQUIRE(Part(array).bytes.size() == 3);
  REQUIRE(Part(std::shared_ptr<std::string>()).bytes.empty());
  REQUIRE(Part(std::as_bytes(std::span(text)), shared).owner == shared);
}

TEST_CASE("SendParts is one send: contiguous, in order, counted once", "[M61][M9]") {
  const From from = GENERATE(From::kOtherThread, From::kOwnTurn, From::kOtherTurn);
  OneOf c(AnyKind());
  const auto body = std::make_shared<std::string>(100'000, 'b');
  std::vector<std::error_code> errors;
  RunFrom(from, c, [&] {
    errors.push_back(c.conn->Send("first,"));
    errors.push_back(
        c.conn->SendParts({"head,", body, ",small,", std::make_shared<std::string>("tiny")}));
    errors.push_back(c.conn->Send(",last"));
    errors.push_back(c.conn->SendParts({}));
    errors.push_back(c.conn->SendParts({"", std::shared_ptr<std::string>()}));
  });
  for (const std::error_code& error : errors) REQUIRE_FALSE(error);
  const std::string expected = "first,head," + *body + ",small,tiny,last";
  std::string got;
  REQUIRE(c.peer.ReadExactly(expected.size(), &got) == End::kOpen);
  REQUIRE(got == expected);
  REQUIRE(WaitUntil([&] { return c.conn->Stats().unsent_bytes() == 0; }));
  REQUIRE(c.conn->Stats().accepted_sends == 3);
  REQUIRE(c.conn->Stats().accepted_bytes == expected.size());
  // Let go after the last byte was taken, though the connection lives.
  REQUIRE(WaitUntil([&] { return body.use_count() == 1; }));
  c.Finish();
}

TEST_CASE("the limit counts every byte, shared ones too; a refusal lets go at once", "[M61][M10]") {
  const From from = GENERATE(From::kOtherThread, From::kOwnTurn, From::kOtherTurn);
  Options options;
  options.send_buffer_limit = 1 << 20;
  OneOf c(AnyKind(), options);
  const auto body = std::make_shared<std::string>(600 << 10, 'b');
  const auto too_large = std::make_shared<std::string>(1 << 20, 'b');
  std::error_code large, full, stopping;
  long after_large = 0, after_stop = 0;
  c.conn->PauseRecv();
  // More than the kernel takes, so that the budget stays used.
  std::size_t accepted = 0;
  RunFrom(from, c, [&] {
    large = c.conn->SendParts({"x", too_large});
    after_large = too_large.use_count();
  });
  REQUIRE(WaitUntil([&] {
    RunFrom(from, c, [&] {
      full = c.conn->SendParts({"head", body});
      accepted += full ? 0 : 1;
    });
    return full == Errc::kFull;
  }));
  REQUIRE(large == Errc::kTooLarge);
  REQUIRE(after_large == 1);
  REQUIRE(c.conn->Stats().accepted_sends == accepted);
  REQUIRE(body.use_count() <= 3);  // here, and at most once queued twice over
  static_cast<void>(c.conn->Stop(StopMode::kGracefullyButNotWait));
  RunFrom(From::kOtherThread, c, [&] {
    stopping = c.conn->SendParts({"x", too_large});
    after_stop = too_large.use_count();
  });
  REQUIRE(stopping == Errc::kStopping);
  REQUIRE(after_stop == 1);
  std::string got;
  REQUIRE(c.peer.ReadAll(&got) == End::kEof);
  REQUIRE(got.size() == accepted * (4 + body->size()));
  c.peer.Close();
  REQUIRE(c.events->WaitForClosed(1));
  REQUIRE(body.use_count() == 1);
  c.Finish();
}

TEST_CASE("an owner is let go on the loop's thread, outside callbacks, with no lock held",
          "[M61]") {
  const From from = GENERATE(From::kOtherThread, From::kOwnTurn, From::kOtherTurn);
  const bool cut = GENERATE(false, true);
  CAPTURE(static_cast<int>(from), cut);
  Options options;
  options.send_buffer_limit = 64 << 20;
  OneOf c(AnyKind(), options);
  const auto thread = c.events->connection().thread;
  std::thread::id let_go_on;
  std::error_code sent, waited;
  std::size_t closed_then = 99;
  Signal let_go;
  std::atomic<bool> in_hook{false};
  bool inside_hook = false;
  c.events->on_closed = [&](const ConnPtr&) { in_hook = true; };
  const std::string bytes(40 << 20, 'b');
  RunFrom(from, c, [&] {
    // It does what a callback may, also to the same connection.
    std::shared_ptr<const char> owner(bytes.data(), [&, conn = c.conn](const char*) {
      let_go_on = std::this_thread::get_id();
      inside_hook = in_hook;
      sent = conn->Send("from a destructor");
      waited = conn->Stop(StopMode::kGracefullyAndWait).error;
      closed_then = c.events->totals().closed;
      let_go.Set();
    });
    sent = c.conn->SendParts({"head", Part(AsBytes(bytes), std::move(owner))});
  });
  REQUIRE_FALSE(sent);
  if (cut) {
    c.peer.Reset();
  } else {
    std::string got;
    REQUIRE(c.peer.ReadExactly(4 + bytes.size(), &got) == End::kOpen);
  }
  REQUIRE(let_go.Wait());
  REQUIRE(let_go_on == thread);
  REQUIRE(waited == Errc::kWouldDeadlock);
  REQUIRE(closed_then == 0);  // before kClosed
  REQUIRE_FALSE(inside_hook);
  if (cut) {
    REQUIRE(sent == Errc::kClosed);
  } else {
    REQUIRE_FALSE(sent);
    std::string rest;
    REQUIRE(c.peer.ReadAll(&rest) == End::kEof);
    REQUIRE(rest == "from a destructor");
    c.peer.Close();
  }
  REQUIRE(c.events->WaitForClosed(1));
  c.Finish();
}

TEST_CASE("a broadcast holds its bytes once", "[M61]") {
  auto events = std::make_shared<EventRecorder>();
  TestGroup group(2);
  const auto server = StartServer(*group, events);
  constexpr std::size_t kReaders = 50;
  std::vector<RawPeer> peers;
  for (std::size_t i = 0; i < kReaders; ++i) peers.emplace_back(AddressOf(*server));
  REQUIRE(events->WaitForAccepted(kReaders));
  const auto body = std::make_shared<std::string>(64 << 10, 'b');
  for (const auto& connection : events->connections()) {
    REQUIRE_FALSE(connection.conn->SendParts({body}));
  }
  for (RawPeer& peer : peers) {
    std::string got;
    REQUIRE(peer.ReadExactly(body->size(), &got) == End::kOpen);
    REQUIRE(got == *body);
  }
  REQUIRE(WaitUntil([&] { return body.use_count() == 1; }));
  REQUIRE(group.Finish() == "");
  REQUIRE(events->Verify() == "");
}

TEST_CASE("SendParts without memory sends nothing, and lets go", "[M61][F4]") {
  const From from = GENERATE(From::kOtherThread, From::kOwnTurn, From::kOtherTurn);
  OneOf c(AnyKind());
  const auto body = std::make_shared<std::string>(100'000, 'b');
  std::error_code error;
  long held = 0;
  RunFrom(from, c, [&] {
    const std::string head(20'000, 'h');
    const NoMemory none;
    error = c.conn->SendParts({std::string_view(head), body});
    held = body.use_count();
  });
  REQUIRE(error == Errc::kNoMemory);
  REQUIRE(held == 1);
  REQUIRE_FALSE(c.conn->Send("and on it goes"));
  std::string got;
  REQUIRE(c.peer.ReadExactly(14, &got) == End::kOpen);
  REQUIRE(got == "and on it goes");
  c.Finish();
}

TEST_CASE("parts from several threads never mix", "[M61][M9]") {
  OneOf c(AnyKind());
  constexpr int kThreads = 3, kEach = 300;
  std::vector<std::thread> senders;
  std::atomic<int> refused{0};
  for (int t = 0; t < kThreads; ++t) {
    senders.emplace_back([&, t] {
      Random random(static_cast<std::uint64_t>(t) + 1);
      for (int i = 0; i < kEach; ++i) {
        const auto body =
            std::make_shared<std::string>(random.Between(1, 5'000), static_cast<char>('a' + t));
        const std::string head = Header(static_cast<std::uint32_t>(body->size()));
        while (const std::error_code error = c.conn->SendParts({std::string_view(head), body})) {
          if (error != Errc::kFull) ++refused;
          std::this_thread::yield();
        }
      }
    });
  }
  bool whole = true;
  for (int i = 0; i < kThreads * kEach; ++i) {
    const std::string payload = c.peer.ReadFrame();
    whole = whole && !payload.empty() && payload == std::string(payload.size(), payload[0]);
  }
  for (std::thread& sender : senders) sender.join();
  REQUIRE(whole);
  REQUIRE(refused == 0);
  c.Finish();
}

}  // namespace
}  // namespace xtcp::test
