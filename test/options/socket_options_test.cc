// What the options of sockets do, seen through getsockopt(2) inside the callbacks. That they reach
// TCP sockets at all is in test/integration/echo_test.cc.

#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>
#include <unistd.h>

#include <catch2/catch.hpp>
#include <cerrno>
#include <chrono>
#include <memory>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "support/event_recorder.h"
#include "support/fault_control.h"
#include "support/one_connection.h"
#include "support/raw_peer.h"
#include "support/test_server.h"

namespace xtcp::test {
namespace {

using namespace std::chrono_literals;

int IntOption(int fd, int level, int name) {
  int value = -1;
  socklen_t size = sizeof value;
  return ::getsockopt(fd, level, name, &value, &size) == 0 ? value : -1;
}

struct Found {
  int no_delay = -1, keep_alive = -1, idle = -1, interval = -1, user_timeout = -1;
  bool operator==(const Found&) const = default;
};

Found Look(int fd) {
  return {IntOption(fd, IPPROTO_TCP, TCP_NODELAY), IntOption(fd, SOL_SOCKET, SO_KEEPALIVE),
          IntOption(fd, IPPROTO_TCP, TCP_KEEPIDLE), IntOption(fd, IPPROTO_TCP, TCP_KEEPINTVL),
          IntOption(fd, IPPROTO_TCP, TCP_USER_TIMEOUT)};
}

Found SystemDefaults() {
  const int fd = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  const Found found = Look(fd);
  ::close(fd);
  return found;
}

// What a connection has in its first event.
Found InFirstEvent(Kind kind, const Options& options, std::string_view address) {
  Found found;
  auto events = std::make_shared<EventRecorder>();
  events->on_accept =
      events->on_connected = [&](const ConnPtr& conn) { found = Look(conn->Descriptor()); };
  OneConnection one(kind, options, address, events);
  REQUIRE(one.Finish() == "");
  return found;
}

TEST_CASE("a keep-alive period under a second is one, and 0 is the system's", "[M28]") {
  const Kind kind = GENERATE(Kind::kAccepted, Kind::kDialled);
  const std::string address = GENERATE("127.0.0.1:0", "[::1]:0");
  if (address[0] == '[' && !HasIpv6()) return;
  CAPTURE(address);
  const Found system = SystemDefaults();
  Options options;
  options.keep_alive = true;
  Found found = InFirstEvent(kind, options, address);
  REQUIRE(found.keep_alive == 1);
  REQUIRE(found.idle == system.idle);
  REQUIRE(found.interval == system.interval);
  for (const auto& [period, seconds] : {std::pair(1ms, 1), std::pair(999ms, 1),
                                        std::pair(1001ms, 2), std::pair(32'767'000ms, 32767)}) {
    options.keep_alive_period = period;
    found = InFirstEvent(kind, options, address);
    REQUIRE(found.idle == seconds);
    REQUIRE(found.interval == seconds);
  }
}

TEST_CASE("by default only TCP_NODELAY differs from what the system gives", "[M28]") {
  const Kind kind = GENERATE(Kind::kAccepted, Kind::kDialled);
  Found expected = SystemDefaults();
  expected.no_delay = 1;
  REQUIRE(InFirstEvent(kind, {}, "127.0.0.1:0") == expected);
  // A period alone turns nothing on.
  Options options;
  options.keep_alive_period = 5s;
  REQUIRE(InFirstEvent(kind, options, "127.0.0.1:0") == expected);
}

TEST_CASE("options of TCP are not tried on Unix sockets", "[M36]") {
  const Kind kind = GENERATE(Kind::kAccepted, Kind::kDialled);
  FaultPlan plan;
  Options options;
  options.keep_alive = true;
  options.user_timeout = 5s;
  options.reuse_port = true;
  const std::uint64_t before = CallsOf(Site::kSetSockOpt);
  OneConnection one(kind, options, "unix:@xtcp-options-" + std::to_string(::getpid()));
  REQUIRE(one.peer.SendAll(Frame("x")));
  REQUIRE(one.events->WaitForPackets(1));
  REQUIRE(one.Finish() == "");
  REQUIRE(CallsOf(Site::kSetSockOpt) == before);
}

TEST_CASE("an option that the kernel refuses is passed over", "[M28][F2]") {
  const Kind kind = GENERATE(Kind::kAccepted, Kind::kDialled);
  FaultPlan plan;
  for (const int name :
       {TCP_NODELAY, SO_KEEPALIVE, TCP_KEEPIDLE, TCP_KEEPINTVL, TCP_USER_TIMEOUT}) {
    plan.Add({.site = Site::kSetSockOpt,
              .error = ENOPROTOOPT,
              .times = Fault::kAlways,
              .operation = name});
  }
  Options options;
  options.keep_alive = true;
  options.keep_alive_period = 5s;
  options.user_timeout = 5s;
  OneConnection one(kind, options);
  REQUIRE(plan.injected() > 0);
  REQUIRE(one.peer.SendAll(Frame("x")));
  REQUIRE(one.events->WaitForPackets(1));
  REQUIRE(one.Finish() == "");
}

TEST_CASE("connections of an adopted listener have the server's options", "[M28][M36]") {
  Options options;
  options.no_delay = GENERATE(true, false);
  options.keep_alive = true;
  options.keep_alive_period = 1500ms;
  options.user_timeout = 4321ms;
  Found found;
  auto events = std::make_shared<EventRecorder>();
  events->on_accept = [&](const ConnPtr& conn) { found = Look(conn->Descriptor()); };
  RawListener listener;
  Server server(WithDefaults(options, events));
  REQUIRE_FALSE(server.Adopt(listener.Release()));
  std::thread serving([&] { static_cast<void>(server.Serve()); });
  const RawPeer peer(listener.port());
  const bool accepted = events->WaitForAccepted(1);
  static_cast<void>(server.Stop(StopMode::kImmediately));
  serving.join();
  REQUIRE(accepted);
  REQUIRE(events->Verify() == "");
  REQUIRE(found == Found{options.no_delay ? 1 : 0, 1, 2, 2, 4321});
}

TEST_CASE("with reuse_port two servers share a port, and both are served", "[M28]") {
  Options options;
  options.reuse_port = true;
  auto first_events = std::make_shared<EventRecorder>();
  auto second_events = std::make_shared<EventRecorder>();
  TestServer first(first_events, options);
  TestServer second(second_events, options, first.address());
  REQUIRE(second.port() == first.port());
  // The kernel deals by a hash of the addresses: one of many ports falls to each.
  std::vector<RawPeer> peers;
  REQUIRE(WaitUntil([&] {
    if (peers.size() < 500) peers.emplace_back(first.port());
    return first_events->totals().accepted > 0 && second_events->totals().accepted > 0;
  }));
  // Only who asks for it takes part.
  Server third(WithDefaults({}, first_events));
  REQUIRE(third.Listen(first.address()) == std::errc::address_in_use);
  peers.clear();
  REQUIRE(first.Finish() == "");
  REQUIRE(second.Finish() == "");
}

TEST_CASE("without reuse_port a second server fails", "[M28]") {
  auto events = std::make_shared<EventRecorder>();
  TestServer first(events);
  Options options;
  options.reuse_port = GENERATE(true, false);
  Server second(WithDefaults(options, events));
  REQUIRE(second.Listen(first.address()) == std::errc::address_in_use);
  REQUIRE(first.Finish() == "");
}

TEST_CASE("backlog is how many may wait to be accepted", "[M28]") {
  // Nobody accepts before Serve. Linux lets one more than the backlog wait (unix(7), listen(2)).
  for (const int backlog : {1, 5}) {
    auto events = std::make_shared<EventRecorder>();
    Options options;
    options.backlog = backlog;
    Server server(WithDefaults(options, events));
    const std::string name = "unix:@xtcp-backlog-" + std::to_string(::getpid());
    REQUIRE_FALSE(server.Listen(name));
    std::vector<RawPeer> waiting;
    const auto connect = [&] {
      // The next one would wait for ever, so it must not.
      const ConnPtr conn = NewConn(WithDefaults({}, events));
      std::error_code error;
      WithinDeadline("a dial", [&] { error = conn->DialAndServe(name); });
      return error;
    };
    for (int i = 0; i <= backlog; ++i) {
      waiting.emplace_back(name);
      REQUIRE(waiting.back().connected());
    }
    REQUIRE(connect() == std::error_code(EAGAIN, std::system_category()));
    static_cast<void>(server.Stop(StopMode::kImmediately));
    REQUIRE(events->Verify() == "");
  }
}

}  // namespace
}  // namespace xtcp::test
