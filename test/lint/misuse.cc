// What check_misuse.sh runs: an application's errors with packets and views. The argument says which;
// without one it makes none.

#include <xtcp/xtcp.h>

#include <chrono>
#include <cstddef>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <system_error>

namespace {

struct Frame : xtcp::Packet {
  explicit Frame(std::span<const std::byte> bytes) : view(bytes) {}
  std::span<const std::byte> view;
  int number = 1;
};

// A byte that says how many follow.
struct FrameProtocol : xtcp::Protocol {
  std::size_t PackSize(const xtcp::Packet&) const override { return 0; }
  std::error_code PackTo(const xtcp::Packet&, xtcp::Writer&) const override { return {}; }
  xtcp::UnpackResult Unpack(std::span<const std::byte> all) const override {
    const auto size = 1 + std::to_integer<std::size_t>(all[0]);
    if (all.size() < size) return {};
    return {std::make_unique<Frame>(all.subspan(1, size - 1)), size, {}};
  }
};

// The end that has accepted sends frames. The other one keeps the view of a packet, and reads it in
// kClosed if it is `late`.
struct Keeper : xtcp::Handler {
  void OnEvent(xtcp::EventType event, const xtcp::ConnPtr& conn, xtcp::PacketPtr packet) override {
    if (event == xtcp::EventType::kAccept) {
      static_cast<void>(conn->Send(std::string(frames)));
      conn->Stop(xtcp::StopMode::kGracefullyButNotWait);
    }
    if (event == xtcp::EventType::kClosed && late && !kept.empty())
      first = kept.front();  // the error
    if (packet != nullptr) kept = static_cast<Frame&>(*packet).view;
  }
  std::string_view frames;
  bool late = false;
  std::span<const std::byte> kept;
  std::byte first{};
};

int ReadView(std::string_view frames, bool late) {
  const auto protocol = std::make_shared<FrameProtocol>();
  const auto handler = std::make_shared<Keeper>();
  handler->frames = frames;
  handler->late = late;
  xtcp::LoopGroup group;
  xtcp::Server server({handler, protocol}, group);
  if (server.Listen("127.0.0.1:0") || server.Start()) return 2;
  const xtcp::ConnPtr conn = xtcp::NewConn({handler, protocol}, group[0]);
  if (conn->Dial(server.Addresses()[0].ToString())) return 2;
  const xtcp::Timer end = group[0].RunEvery(std::chrono::milliseconds(1), [&] {
    if (conn->Stats().reason != xtcp::CloseReason::kNone) group.Stop(xtcp::StopMode::kImmediately);
  });
  if (group.Run()) return 2;
  return handler->kept.empty() ? 2 : 0;
}

// A packet that is gone lies in the list of its thread, if there is one.
int UsePacket(bool twice) {
  for (int i = 0; i < 4; ++i) std::make_unique<Frame>(std::span<const std::byte>());
  auto* const frame = new Frame({});
  delete frame;
  if (twice) {
    delete frame;
  } else {
    frame->number = 2;
  }
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  const std::string_view what = argc == 2 ? argv[1] : "";
  const std::string_view short_frame = "\x05words";
  std::string
      long_frames;  // more than one read, so that one frame waits in the connection's buffer
  for (int i = 0; i < 3000; ++i) long_frames += "\xc8" + std::string(200, 'x');
  if (what == "packet") return UsePacket(false);
  if (what == "packet-twice") return UsePacket(true);
  if (what == "view") return ReadView(short_frame, true);
  if (what == "view-of-many") return ReadView(long_frames, true);
  return ReadView(short_frame, false) + ReadView(long_frames, false);
}
