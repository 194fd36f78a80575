#include <xtcp/conn.h>
#include <xtcp/error.h>

#include <array>
#include <catch2/catch.hpp>
#include <set>
#include <string>
#include <string_view>
#include <system_error>

namespace xtcp {
namespace {

constexpr std::array kAll = {Errc::kClosed,        Errc::kStopping,    Errc::kFull,
                             Errc::kTooLarge,      Errc::kNoMemory,    Errc::kBadPacket,
                             Errc::kProtocolError, Errc::kBadAddress,  Errc::kHostNotFound,
                             Errc::kNotListening,  Errc::kAlreadyUsed, Errc::kStopped,
                             Errc::kWouldDeadlock, Errc::kNoLoop};

TEST_CASE("every error of ours is an error of the category 'xtcp'") {
  CHECK(std::string_view(ErrorCategory().name()) == "xtcp");
  int value = 1;
  for (const Errc code : kAll) {
    const std::error_code error = code;
    CHECK(error);
    CHECK(error.value() == value++);
    CHECK(error.category() == ErrorCategory());
    CHECK(error == code);
    CHECK(error != std::error_code(error.value(), std::system_category()));
  }
  CHECK_FALSE(std::error_code{} == Errc::kClosed);
}

TEST_CASE("every error of ours has a text of its own") {
  std::set<std::string> texts;
  for (const Errc code : kAll) {
    const std::string text = make_error_code(code).message();
    CHECK(text.size() > 10);
    CHECK(text.find('\n') == std::string::npos);
    CHECK(text.find("unknown") == std::string::npos);
    texts.insert(text);
  }
  CHECK(texts.size() == kAll.size());
}

TEST_CASE("a number that is no error of ours has a text too") {
  for (const int value : {0, -1, 15, 1000}) {
    const std::string text = ErrorCategory().message(value);
    CHECK(text == "unknown error " + std::to_string(value));
  }
}

TEST_CASE("a reason's name is its constant's, without the k") {
  struct {
    CloseReason reason;
    std::string_view name;
  } const table[] = {
      {CloseReason::kNone, "None"},
      {CloseReason::kPeerClosed, "PeerClosed"},
      {CloseReason::kPeerReset, "PeerReset"},
      {CloseReason::kLocalStop, "LocalStop"},
      {CloseReason::kLingerTimeout, "LingerTimeout"},
      {CloseReason::kReadDeadline, "ReadDeadline"},
      {CloseReason::kWriteDeadline, "WriteDeadline"},
      {CloseReason::kPacketDeadline, "PacketDeadline"},
      {CloseReason::kPacketTooLarge, "PacketTooLarge"},
      {CloseReason::kProtocolError, "ProtocolError"},
      {CloseReason::kException, "Exception"},
      {CloseReason::kNoMemory, "NoMemory"},
      {CloseReason::kSystemError, "SystemError"},
      {CloseReason::kConnectFailed, "ConnectFailed"},
      {static_cast<CloseReason>(99), "Unknown"},
  };
  for (const auto& [reason, name] : table) CHECK(ToString(reason) == name);
}

}  // namespace
}  // namespace xtcp
