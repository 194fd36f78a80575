#include <xtcp/handler.h>
#include <xtcp/options.h>
#include <xtcp/protocol.h>

#include <catch2/catch.hpp>
#include <chrono>
#include <memory>

namespace xtcp {
namespace {

using namespace std::chrono_literals;

class NullHandler : public Handler {
 public:
  void OnEvent(EventType, const ConnPtr&, PacketPtr) override {}
};

TEST_CASE("the defaults are those that the header and the pages promise", "[M39]") {
  const Options options;
  CHECK(options.handler == nullptr);
  CHECK(options.protocol == nullptr);
  CHECK(options.loops == 1);
  CHECK(options.recv_buffer_size == 4096);
  CHECK(options.max_packet_size == 16777216);
  CHECK(options.first_packet_size == 0);
  CHECK(options.send_buffer_limit == 16777216);
  CHECK(options.max_connections == 0);
  CHECK(options.no_delay);
  CHECK_FALSE(options.keep_alive);
  CHECK(options.keep_alive_period == 0s);
  CHECK(options.user_timeout == 0s);
  CHECK(options.read_deadline == 0s);
  CHECK(options.write_deadline == 0s);
  CHECK(options.packet_deadline == 0s);
  CHECK(options.connect_timeout == 10s);
  CHECK(options.linger_timeout == 10s);
  CHECK(options.backlog == 4096);
  CHECK_FALSE(options.reuse_port);
}

TEST_CASE("Hardened is a copy in which the limits are overwritten", "[M39]") {
  const auto handler = std::make_shared<NullHandler>();
  const Options options{.handler = handler,
                        .protocol = nullptr,
                        .loops = 3,
                        .recv_buffer_size = 7,
                        .max_packet_size = 9,
                        .first_packet_size = 8,
                        .send_buffer_limit = 11,
                        .max_connections = 12,
                        .no_delay = false,
                        .keep_alive = true,
                        .keep_alive_period = 13s,
                        .user_timeout = 14s,
                        .read_deadline = 15s,
                        .write_deadline = 16s,
                        .packet_deadline = 17s,
                        .connect_timeout = 18s,
                        .linger_timeout = 19s,
                        .backlog = 20,
                        .reuse_port = true};
  const Options hardened = options.Hardened();

  CHECK(hardened.max_packet_size == 1048576);
  CHECK(hardened.first_packet_size == 16384);
  CHECK(hardened.send_buffer_limit == 1048576);
  CHECK(hardened.read_deadline == 5min);
  CHECK(hardened.packet_deadline == 30s);
  CHECK(hardened.write_deadline == 60s);

  CHECK(hardened.handler == handler);
  CHECK(hardened.loops == 3);
  CHECK(hardened.recv_buffer_size == 7);
  CHECK(hardened.max_connections == 12);
  CHECK_FALSE(hardened.no_delay);
  CHECK(hardened.keep_alive);
  CHECK(hardened.keep_alive_period == 13s);
  CHECK(hardened.user_timeout == 14s);
  CHECK(hardened.connect_timeout == 18s);
  CHECK(hardened.linger_timeout == 19s);
  CHECK(hardened.backlog == 20);
  CHECK(hardened.reuse_port);

  // The original is as it was.
  CHECK(options.max_packet_size == 9);
  CHECK(options.read_deadline == 15s);
}

}  // namespace
}  // namespace xtcp
