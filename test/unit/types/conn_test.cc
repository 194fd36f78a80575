#include <xtcp/conn.h>
#include <xtcp/error.h>

#include <any>
#include <array>
#include <catch2/catch.hpp>
#include <memory>
#include <string>
#include <system_error>
#include <vector>

#include "support/alloc_hook.h"

namespace xtcp {
namespace {

// A fake of a user: it overrides what has to be overridden, and no more.
class FakeConn final : public Conn {
 public:
  using Conn::Send;
  std::error_code Send(std::span<const std::byte> bytes) override {
    sent.emplace_back(AsText(bytes));
    return result;
  }
  std::error_code SendPacket(const Packet&) override { return {}; }
  StopReport Stop(StopMode) override { return {}; }
  std::error_code DialAndServe(std::string_view) override { return {}; }
  void PauseRecv() override {}
  void ResumeRecv() override {}
  bool IsStopped() const override { return false; }
  ConnStats Stats() const override { return {}; }
  Address LocalAddress() const override { return {}; }
  Address RemoteAddress() const override { return {}; }
  std::any& UserData() override { return data_; }
  int Descriptor() const override { return -1; }
  std::string ToString() const override { return "fake"; }

  std::vector<std::string> sent;
  std::error_code result;

 private:
  std::any data_;
};

TEST_CASE("a fake connection without a loop says so", "[M47][M51]") {
  FakeConn conn;
  const auto held = std::make_shared<int>();
  CHECK(conn.Post([held] {}) == Errc::kNoLoop);
  CHECK(held.use_count() == 1);
  CHECK(conn.Dial("127.0.0.1:1") == Errc::kNoLoop);
  CHECK(conn.loop().Post([] {}) == Errc::kNoLoop);
  CHECK(conn.decoder() == nullptr);
  conn.SetTimer(std::chrono::milliseconds(1));
  conn.CancelTimer();
  conn.EndSend();
}

TEST_CASE("the parts that a fake connection sends are one send, whose result is theirs", "[M61]") {
  FakeConn conn;
  const auto shared = std::make_shared<std::string>("shared");
  const std::array<Part, 4> parts{"a ", Part(shared), Part(), " b"};
  CHECK_FALSE(conn.SendParts(parts));
  conn.result = Errc::kFull;
  CHECK(conn.SendParts(parts) == Errc::kFull);
  CHECK(conn.sent == std::vector<std::string>(2, "a shared b"));
  CHECK(shared.use_count() == 2);  // the array's
}

TEST_CASE("the parts of a fake connection without memory are not sent", "[M61][F4]") {
  FakeConn conn;
  const std::array<Part, 1> parts{"text"};
  std::error_code error;
  {
    const test::NoMemory none;
    error = conn.SendParts(parts);
  }
  CHECK(error == Errc::kNoMemory);
  CHECK(conn.sent.empty());
}

TEST_CASE("text is sent as its bytes, zeros too", "[M9]") {
  FakeConn conn;
  CHECK_FALSE(conn.Send(std::string_view("a\0b", 3)));
  CHECK(conn.sent == std::vector<std::string>{std::string("a\0b", 3)});
}

}  // namespace
}  // namespace xtcp
