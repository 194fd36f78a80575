#include <xtcp/handler.h>

#include <catch2/catch.hpp>

namespace xtcp {
namespace {

class Minimal : public Handler {
 public:
  void OnEvent(EventType, const ConnPtr&, PacketPtr) override { ++events; }
  int events = 0;
};

TEST_CASE("a handler needs OnEvent only; the rest does nothing") {
  Minimal minimal;
  Handler& handler = minimal;
  handler.OnUnpackError(nullptr, {}, {});
  handler.OnSendReady(nullptr);
  CHECK(minimal.events == 0);
  handler.OnEvent(EventType::kAccept, nullptr, nullptr);
  CHECK(minimal.events == 1);
}

}  // namespace
}  // namespace xtcp
