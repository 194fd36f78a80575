// Where a server listens, and what becomes of socket files.

#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include <catch2/catch.hpp>
#include <cerrno>
#include <filesystem>
#include <fstream>
#include <memory>
#include <string>
#include <system_error>
#include <thread>
#include <vector>

#include "support/event_recorder.h"
#include "support/fake_names.h"
#include "support/fault_control.h"
#include "support/one_connection.h"
#include "support/raw_peer.h"
#include "support/temp_folder.h"
#include "support/test_client.h"
#include "support/test_protocol.h"
#include "support/test_server.h"

namespace xtcp::test {
namespace {

std::shared_ptr<EventRecorder> EchoRecorder() {
  auto events = std::make_shared<EventRecorder>();
  events->on_recv = Echo;
  return events;
}

// Whether a server that echoes answers there.
bool Answers(const std::string& address) {
  RawPeer peer(address);
  return peer.connected() && peer.SendAll(Frame("hello")) && peer.ReadFrame() == "hello";
}

std::string AbstractName() { return "unix:@xtcp-addresses-" + std::to_string(::getpid()); }

TEST_CASE("a server is reached where it says that it listens", "[M35][M36]") {
  const TempFolder folder;
  std::vector<std::string> addresses = {"127.0.0.1:0", ":0", folder.address(), AbstractName()};
  if (HasIpv6()) {
    addresses.push_back("[::1]:0");
    addresses.push_back("[::]:0");
  }
  for (const std::string& address : addresses) {
    CAPTURE(address);
    TestServer server(EchoRecorder(), {}, address);
    const Address bound = server->Addresses().at(0);
    // Port 0 became a real one; the rest is as it was asked for.
    if (bound.IsUnix()) {
      REQUIRE(bound.ToString() == address);
    } else {
      REQUIRE(bound.Port() != 0);
    }
    std::string reached = bound.ToString();
    if (bound.Host() == "::" || bound.Host() == "0.0.0.0") {
      reached = (HasIpv6() ? "[::1]:" : "127.0.0.1:") + std::to_string(bound.Port());
    }
    REQUIRE(Answers(reached));
    auto events = std::make_shared<EventRecorder>();
    TestClient client(events, reached);
    REQUIRE(events->WaitForConnected(1));
    REQUIRE(client->RemoteAddress().ToString() == reached);
    REQUIRE(client.Finish() == "");
    REQUIRE(server.Finish() == "");
    REQUIRE(server->Addresses().at(0) == bound);
  }
}

TEST_CASE("a port alone takes both families", "[M35]") {
  if (!HasIpv6()) return;
  auto events = EchoRecorder();
  TestServer both(events, {}, ":0");
  const std::string port = std::to_string(both.port());
  REQUIRE(Answers("127.0.0.1:" + port));
  REQUIRE(Answers("[::1]:" + port));
  // Each end reads as what it is.
  REQUIRE(events->WaitForClosed(2));
  REQUIRE(events->conn(0)->LocalAddress().ToString() == "127.0.0.1:" + port);
  REQUIRE(events->conn(0)->RemoteAddress().Host() == "127.0.0.1");
  REQUIRE(events->conn(1)->LocalAddress().ToString() == "[::1]:" + port);
  REQUIRE(events->conn(1)->RemoteAddress().Host() == "::1");
  REQUIRE(both.Finish() == "");
}

TEST_CASE("servers of both families share a port number", "[M35]") {
  if (!HasIpv6()) return;
  // A port that is free for IPv6 may be taken for IPv4: then the next one is tried.
  for (int tries = 1;; ++tries) {
    auto six_events = EchoRecorder();
    TestServer six(six_events, {}, "[::]:0");
    const std::string port = std::to_string(six.port());
    auto four_events = EchoRecorder();
    Server four(WithDefaults({}, four_events));
    const std::error_code error = four.Listen("0.0.0.0:" + port);
    if (error) {
      REQUIRE(error == std::errc::address_in_use);
      REQUIRE(tries < 20);
    } else {
      std::thread serving([&] { static_cast<void>(four.Serve()); });
      const bool both = Answers("127.0.0.1:" + port) && Answers("[::1]:" + port);
      static_cast<void>(four.Stop(StopMode::kImmediately));
      serving.join();
      REQUIRE(both);
      REQUIRE(six_events->totals().accepted == 1);
      REQUIRE(four_events->totals().accepted == 1);
    }
    REQUIRE(four_events->Verify() == "");
    REQUIRE(six.Finish() == "");
    if (!error) break;
  }
}

TEST_CASE("of a name with several addresses a server takes the first", "[M35]") {
  FaultPlan no_faults;
  std::vector<std::string> hosts = {"127.0.0.1", "127.0.0.2"};
  if (HasIpv6()) hosts.insert(hosts.begin() + GENERATE(0, 1), "::1");
  const FakeNames names(hosts);
  TestServer server(EchoRecorder(), {}, "some.name:0");
  REQUIRE(server->Addresses().size() == 1);
  REQUIRE(server->Addresses()[0].Host() == hosts[0]);
  REQUIRE(Answers(server.address()));
  REQUIRE(server.Finish() == "");
}

TEST_CASE("an address that is none is refused, and leaves nothing", "[M35][M36]") {
  const TempFolder folder;
  Server server(WithDefaults({}, std::make_shared<EventRecorder>()));
  const std::string longest = folder.path + "/" + std::string(107 - folder.path.size() - 1, 's');
  for (const std::string& address :
       {std::string(), std::string("127.0.0.1"), std::string("127.0.0.1:x"),
        std::string("127.0.0.1:65536"), std::string("::1:80"), std::string("[::1]"),
        std::string("127.0.0.1: 80"), std::string("unix:"), std::string("unix:@"),
        std::string("unix:relative"), "unix:" + longest + "s"}) {
    CAPTURE(address);
    REQUIRE(server.Listen(address) == Errc::kBadAddress);
    REQUIRE(server.Addresses().empty());
  }
  REQUIRE(std::filesystem::is_empty(folder.path));
  // One byte less is a path.
  TestServer reached(EchoRecorder(), {}, "unix:" + longest);
  REQUIRE(Answers("unix:" + longest));
  REQUIRE(reached.Finish() == "");
  REQUIRE(std::filesystem::is_empty(folder.path));
}

TEST_CASE("a server's socket file lives as long as it listens", "[M36]") {
  const TempFolder folder;
  const StopMode mode = GENERATE(StopMode::kImmediately, StopMode::kGracefullyButNotWait);
  {
    TestServer server(EchoRecorder(), {}, folder.address());
    REQUIRE(std::filesystem::is_socket(folder.file()));
    RawPeer peer(folder.address());
    REQUIRE(server.events().WaitForAccepted(1));
    // It is gone when the stop begins to be carried out, not when the last connection ends.
    static_cast<void>(server->Stop(StopMode::kGracefullyButNotWait));
    REQUIRE(WaitUntil([&] { return !std::filesystem::exists(folder.file()); }));
    REQUIRE(server->ConnectionCount() == 1);
    peer.Close();
    REQUIRE(server.Finish(mode) == "");
  }
  // Also of a server that never served.
  {
    Server server(WithDefaults({}, std::make_shared<EventRecorder>()));
    REQUIRE_FALSE(server.Listen(folder.address()));
    REQUIRE(std::filesystem::is_socket(folder.file()));
    if (mode == StopMode::kImmediately) static_cast<void>(server.Stop(mode));
  }
  REQUIRE_FALSE(std::filesystem::exists(folder.file()));
}

TEST_CASE("a stale socket file is removed, one that lives is in use", "[M36]") {
  const TempFolder folder;
  // What a process leaves that was killed.
  RawListener(folder.address()).Close();
  REQUIRE(std::filesystem::is_socket(folder.file()));
  TestServer first(EchoRecorder(), {}, folder.address());
  REQUIRE(Answers(folder.address()));
  Server second(WithDefaults({}, std::make_shared<EventRecorder>()));
  REQUIRE(second.Listen(folder.address()) == std::errc::address_in_use);
  REQUIRE(second.Addresses().empty());
  static_cast<void>(second.Stop(StopMode::kImmediately));
  REQUIRE(Answers(folder.address()));
  REQUIRE(first.Finish() == "");
  REQUIRE_FALSE(std::filesystem::exists(folder.file()));
}

TEST_CASE("at the end only our own socket file is removed", "[M36]") {
  const TempFolder folder;
  TestServer old(EchoRecorder(), {}, folder.address());
  std::filesystem::remove(folder.file());
  SECTION("another program took the place") {
    RawListener young(folder.address());
    REQUIRE(old.Finish() == "");
    REQUIRE(RawPeer(folder.address()).connected());
  }
  SECTION("a new server may have it once the old one has ended") {
    Server young(WithDefaults({}, std::make_shared<EventRecorder>()));
    REQUIRE(young.Listen(folder.address()) == std::errc::address_in_use);
    REQUIRE(old.Finish() == "");
    REQUIRE_FALSE(young.Listen(folder.address()));
  }
  SECTION("a file") {
    std::ofstream(folder.file()) << "precious";
    REQUIRE(old.Finish() == "");
    REQUIRE(std::filesystem::is_regular_file(folder.file()));
  }
  SECTION("nothing") { REQUIRE(old.Finish() == ""); }
}

TEST_CASE("an abstract name is free again after the end, and in use before", "[M36]") {
  TestServer first(EchoRecorder(), {}, AbstractName());
  Server second(WithDefaults({}, std::make_shared<EventRecorder>()));
  REQUIRE(second.Listen(AbstractName()) == std::errc::address_in_use);
  REQUIRE(Answers(AbstractName()));
  REQUIRE(first.Finish() == "");
  REQUIRE_FALSE(second.Listen(AbstractName()));
}

TEST_CASE("a Unix socket tells who the peer is", "[M28][M36]") {
  const TempFolder folder;
  const std::string address = GENERATE(true, false) ? folder.address() : AbstractName();
  const Kind kind = GENERATE(Kind::kAccepted, Kind::kDialled);
  ucred peer{};
  int size_given = 0;
  auto events = std::make_shared<EventRecorder>();
  events->on_accept = events->on_connected = [&](const ConnPtr& conn) {
    socklen_t size = sizeof peer;
    if (::getsockopt(conn->Descriptor(), SOL_SOCKET, SO_PEERCRED, &peer, &size) == 0) {
      size_given = static_cast<int>(size);
    }
  };
  OneConnection one(kind, {}, address, events);
  REQUIRE(one.conn->RemoteAddress().IsUnix());
  REQUIRE(one.conn->LocalAddress().IsUnix());
  REQUIRE(one.Finish() == "");
  REQUIRE(size_given == sizeof peer);
  REQUIRE(peer.pid == ::getpid());
  REQUIRE(peer.uid == ::getuid());
  REQUIRE(peer.gid == ::getgid());
}

TEST_CASE("the descriptor is there in callbacks, and gone at kClosed", "[M8][M28]") {
  const Kind kind = GENERATE(Kind::kAccepted, Kind::kDialled);
  int first = -2, later = -2, last = -2;
  auto events = std::make_shared<EventRecorder>();
  events->on_accept =
      events->on_connected = [&](const ConnPtr& conn) { first = conn->Descriptor(); };
  events->on_recv = [&](const ConnPtr& conn, std::string_view) { later = conn->Descriptor(); };
  events->on_closed = [&](const ConnPtr& conn) { last = conn->Descriptor(); };
  OneConnection one(kind, {}, "127.0.0.1:0", events);
  REQUIRE(one.peer.SendAll(Frame("x")));
  REQUIRE(events->WaitForPackets(1));
  REQUIRE(one.Finish() == "");
  REQUIRE(first >= 0);
  REQUIRE(later == first);
  REQUIRE(last == -1);
}

}  // namespace
}  // namespace xtcp::test
