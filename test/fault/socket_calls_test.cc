#include <fcntl.h>
#include <netdb.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/stat.h>
#include <unistd.h>
#include <xtcp/error.h>

#include <array>
#include <catch2/catch.hpp>
#include <cerrno>
#include <filesystem>
#include <string>
#include <string_view>
#include <system_error>
#include <vector>

#include "socket/resolve.h"
#include "socket/socket.h"
#include "support/fault_control.h"

namespace xtcp::internal {
namespace {

using namespace std::string_literals;
using test::CallsOf;
using test::Fault;
using test::FaultPlan;
using test::Site;

constexpr ListenOptions kListen{.backlog = 8, .reuse_port = false};
constexpr TcpOptions kTcp{};

std::error_code System(int error) { return {error, std::system_category()}; }

SocketAddress AddressOf(std::string_view text) { return ResolveForListen(text).addresses.at(0); }

// A listening socket and where it is.
struct Listening {
  Listening() {
    REQUIRE_FALSE(OpenListener(AddressOf("127.0.0.1:0"), false, kListen, &fd));
    REQUIRE_FALSE(LocalAddressOf(fd.get(), &address));
  }
  UniqueFd fd;
  SocketAddress address;
};

TEST_CASE("receiving and sending try again after EINTR", "[F1]") {
  FaultPlan plan;
  Listening listening;
  UniqueFd one;
  bool in_progress = false;
  REQUIRE_FALSE(StartConnect(listening.address, kTcp, &one, &in_progress));
  pollfd entry{.fd = listening.fd.get(), .events = POLLIN, .revents = 0};
  REQUIRE(::poll(&entry, 1, 10'000) == 1);
  const UniqueFd other = Accept(listening.fd.get()).fd;
  REQUIRE(other.valid());

  plan.Add({.site = Site::kSend, .error = EINTR, .times = 3});
  plan.Add({.site = Site::kSendMsg, .error = EINTR, .times = 3});
  plan.Add({.site = Site::kRecv, .error = EINTR, .times = 3});
  std::array<std::byte, 4> buffer{};
  iovec part{buffer.data(), buffer.size()};
  CHECK(SendSome(one.get(), buffer) == 4);
  CHECK(SendSome(one.get(), &part, 1) == 4);
  entry.fd = other.get();
  REQUIRE(::poll(&entry, 1, 10'000) == 1);
  CHECK(RecvSome(other.get(), buffer) == 4);
  CHECK(plan.injected() == 9);
}

TEST_CASE("connect is never repeated", "[F1][F2]") {
  FaultPlan plan;
  Listening listening;
  plan.Add({.site = Site::kConnect, .error = EINTR, .after_call = true});
  const std::uint64_t before = CallsOf(Site::kConnect);
  UniqueFd fd;
  bool in_progress = false;
  REQUIRE_FALSE(StartConnect(listening.address, kTcp, &fd, &in_progress));
  CHECK(in_progress);
  CHECK(CallsOf(Site::kConnect) == before + 1);
  pollfd entry{.fd = fd.get(), .events = POLLOUT, .revents = 0};
  REQUIRE(::poll(&entry, 1, 10'000) == 1);
  CHECK(TakeSocketError(fd.get()) == 0);
}

TEST_CASE("every other error of connect is final", "[F2]") {
  Listening listening;
  for (const int error :
       {EAGAIN, ECONNREFUSED, ETIMEDOUT, ENETUNREACH, EHOSTUNREACH, EADDRNOTAVAIL, EACCES}) {
    FaultPlan plan;
    plan.Add({.site = Site::kConnect, .error = error});
    const std::uint64_t before = CallsOf(Site::kConnect);
    UniqueFd fd;
    bool in_progress = false;
    CHECK(StartConnect(listening.address, kTcp, &fd, &in_progress) == System(error));
    CHECK_FALSE(fd.valid());
    CHECK(CallsOf(Site::kConnect) == before + 1);
  }
}

TEST_CASE("options that fail do not keep a connect from its way", "[F2]") {
  FaultPlan plan;
  Listening listening;
  plan.Add({.site = Site::kSetSockOpt, .error = EINVAL, .times = Fault::kAlways});
  UniqueFd fd;
  bool in_progress = false;
  CHECK_FALSE(StartConnect(listening.address, kTcp, &fd, &in_progress));
  CHECK(fd.valid());
  CHECK(plan.injected() == 1);
}

TEST_CASE("close is never repeated", "[F2]") {
  for (const int error : {EINTR, EIO}) {
    FaultPlan plan;
    const std::uint64_t before = CallsOf(Site::kClose);
    UniqueFd fd;
    REQUIRE_FALSE(OpenListener(AddressOf("127.0.0.1:0"), false, kListen, &fd));
    plan.Add({.site = Site::kClose, .error = error, .after_call = true});
    fd.Reset();
    CHECK(plan.injected() == 1);
    CHECK(CallsOf(Site::kClose) == before + 1);
  }
}

TEST_CASE("an error while a listener is made is returned, and leaves nothing", "[F2][M36]") {
  std::string folder = (std::filesystem::temp_directory_path() / "xtcp-XXXXXX").string();
  REQUIRE(::mkdtemp(folder.data()) != nullptr);
  const std::string file = folder + "/s";
  for (const std::string& address : {"127.0.0.1:0"s, "[::1]:0"s, "unix:" + file}) {
    for (const Site site : {Site::kSocket, Site::kBind, Site::kListen, Site::kSetSockOpt}) {
      for (const int error : {EMFILE, ENOBUFS, ENOMEM, EACCES, EADDRNOTAVAIL, EAFNOSUPPORT}) {
        if (site == Site::kSetSockOpt && address.starts_with("unix")) continue;
        INFO(address << ", site " << int(site) << ", error " << error);
        FaultPlan plan;
        plan.Add({.site = site, .error = error});
        UniqueFd fd;
        SocketFile socket_file;
        CHECK(OpenListener(AddressOf(address), false, kListen, &fd, &socket_file) == System(error));
        CHECK(plan.injected() == 1);
        CHECK_FALSE(fd.valid());
        CHECK(std::filesystem::is_empty(folder));
      }
    }
  }
  std::filesystem::remove_all(folder);
}

TEST_CASE("each option of an IPv6 listener counts", "[F2]") {
  for (const std::size_t first : {1, 2, 3}) {
    FaultPlan plan;
    plan.Add({.site = Site::kSetSockOpt, .error = ENOPROTOOPT, .first = first});
    UniqueFd fd;
    CHECK(OpenListener(AddressOf("[::1]:0"), false, {.backlog = 8, .reuse_port = true}, &fd) ==
          System(ENOPROTOOPT));
    CHECK_FALSE(fd.valid());
  }
}

TEST_CASE("where IPv6 is off a port alone stands for IPv4", "[M35]") {
  struct {
    Site site;
    int error;
  } const table[] = {{Site::kSocket, EAFNOSUPPORT}, {Site::kBind, EADDRNOTAVAIL}};
  for (const auto& [site, error] : table) {
    FaultPlan plan;
    plan.Add({.site = site, .error = error});
    UniqueFd fd;
    REQUIRE_FALSE(OpenListener(AddressOf(":0"), true, kListen, &fd));
    SocketAddress address;
    REQUIRE_FALSE(LocalAddressOf(fd.get(), &address));
    CHECK(ToAddress(address).Host() == "0.0.0.0");
    CHECK(ToAddress(address).Port() != 0);
  }
  // The port is kept, and the second error is told.
  Listening taken;
  FaultPlan plan;
  plan.Add({.site = Site::kSocket, .error = EAFNOSUPPORT});
  const std::string port = std::to_string(ToAddress(taken.address).Port());
  UniqueFd fd;
  CHECK(OpenListener(AddressOf(":" + port), true, kListen, &fd) == System(EADDRINUSE));
  // Another error is told at once.
  plan.Clear();
  plan.Add({.site = Site::kSocket, .error = EMFILE});
  CHECK(OpenListener(AddressOf(":0"), true, kListen, &fd) == System(EMFILE));
}

TEST_CASE("a socket file is not removed on a doubt", "[M36][F2]") {
  std::string folder = (std::filesystem::temp_directory_path() / "xtcp-XXXXXX").string();
  REQUIRE(::mkdtemp(folder.data()) != nullptr);
  const SocketAddress address = AddressOf("unix:" + folder + "/s");
  {
    UniqueFd dead;
    REQUIRE_FALSE(OpenListener(address, false, kListen, &dead));
  }
  const std::vector<Fault> doubts = {
      {.site = Site::kFlock, .error = EWOULDBLOCK},
      {.site = Site::kLstat, .error = EACCES, .first = 2},
      {.site = Site::kSocket, .error = EMFILE, .first = 2},
      {.site = Site::kConnect, .error = EAGAIN},
      {.site = Site::kConnect, .error = EINTR},
      {.site = Site::kConnect, .error = EACCES},
      {.site = Site::kUnlink, .error = EACCES},
      // A lock that has lost its name again and again is no lock.
      {.site = Site::kLstat, .error = ENOENT, .times = 16},
  };
  for (const Fault& doubt : doubts) {
    INFO("site " << int(doubt.site) << ", error " << doubt.error);
    FaultPlan plan;
    plan.Add(doubt);
    UniqueFd fd;
    CHECK(OpenListener(address, false, kListen, &fd) == System(EADDRINUSE));
    CHECK(plan.injected() == doubt.times);
    CHECK(std::filesystem::is_socket(folder + "/s"));
  }
  // Without the lock's file nothing is even looked at.
  for (const Fault& failure :
       {Fault{.site = Site::kOpenFile, .error = EMFILE},
        Fault{.site = Site::kFlock, .error = ENOLCK}, Fault{.site = Site::kFstat, .error = ENOMEM},
        Fault{.site = Site::kLstat, .error = EACCES}}) {
    INFO("site " << int(failure.site) << ", error " << failure.error);
    FaultPlan plan;
    plan.Add(failure);
    UniqueFd fd;
    CHECK(OpenListener(address, false, kListen, &fd) == System(failure.error));
    CHECK(std::filesystem::is_socket(folder + "/s"));
  }
  FaultPlan plan;
  plan.Add({.site = Site::kFlock, .error = EINTR, .times = 3});
  UniqueFd fd;
  CHECK_FALSE(OpenListener(address, false, kListen, &fd));
  std::filesystem::remove_all(folder);
}

TEST_CASE("an error of getaddrinfo has its outcome", "[M35][F2]") {
  struct {
    int code;
    std::error_code error;
  } const table[] = {
      {EAI_NONAME, Errc::kHostNotFound},  {EAI_NODATA, Errc::kHostNotFound},
      {EAI_FAIL, Errc::kHostNotFound},    {EAI_FAMILY, Errc::kHostNotFound},
      {EAI_SERVICE, Errc::kHostNotFound}, {EAI_MEMORY, Errc::kNoMemory},
      {EAI_AGAIN, System(EAGAIN)},
  };
  for (const auto& [code, error] : table) {
    INFO(code);
    FaultPlan plan;
    plan.Add({.site = Site::kGetAddrInfo, .error = code, .times = 2});
    CHECK(ResolveForDial("localhost:80").error == error);
    const Resolution listen = ResolveForListen("localhost:80");
    CHECK(listen.error == error);
    CHECK(listen.addresses.empty());
    CHECK(plan.injected() == 2);
  }
  // However it is reported, an error never reads as success.
  FaultPlan plan;
  plan.Add({.site = Site::kGetAddrInfo, .error = EAI_SYSTEM});
  CHECK(ResolveForDial("localhost:80").error);
}

TEST_CASE("numbers and paths ask nobody", "[M35]") {
  const std::uint64_t before = CallsOf(Site::kGetAddrInfo);
  for (const char* address :
       {"127.0.0.1:80", "[::1]:80", "[fe80::1%1]:80", "127.1:80", "0x7f.1:80", "1.2.3:80", "::1:80",
        "unix:/a", "unix:@a", "host", "host:", "host:99999", "host:0"}) {
    (void)ResolveForDial(address);
  }
  CHECK(CallsOf(Site::kGetAddrInfo) == before);
}

TEST_CASE("TakeSocketError tells why it could not ask", "[F2]") {
  FaultPlan plan;
  Listening listening;
  plan.Add({.site = Site::kGetSockOpt, .error = ENOBUFS});
  CHECK(TakeSocketError(listening.fd.get()) == ENOBUFS);
  CHECK(TakeSocketError(listening.fd.get()) == 0);
}

TEST_CASE("an error while a socket is adopted is the system's", "[F2]") {
  Listening listening;
  for (const Site site : {Site::kGetSockOpt, Site::kFcntlGet, Site::kFcntlSet}) {
    for (const std::size_t first : {1, 2}) {
      FaultPlan plan;
      plan.Add({.site = site, .error = ENOBUFS, .first = first});
      CHECK(PrepareAdopted(listening.fd.get()) == System(ENOBUFS));
    }
  }
  FaultPlan plan;
  CHECK_FALSE(PrepareAdopted(listening.fd.get()));
}

TEST_CASE("accept tells every error as it is, and calls once", "[F2]") {
  Listening listening;
  for (const int error : {EINTR, ECONNABORTED, EMFILE, EBADF, EAGAIN}) {
    FaultPlan plan;
    plan.Add({.site = Site::kAccept4, .error = error});
    const std::uint64_t before = CallsOf(Site::kAccept4);
    const AcceptResult result = Accept(listening.fd.get());
    CHECK_FALSE(result.fd.valid());
    CHECK(result.error == error);
    CHECK(CallsOf(Site::kAccept4) == before + 1);
  }
}

TEST_CASE("options of a connection are best effort and counted", "[F2]") {
  FaultPlan plan;
  Listening listening;
  TcpOptions options;
  options.keep_alive = true;
  options.keep_alive_period = std::chrono::seconds(1);
  options.user_timeout = std::chrono::seconds(1);
  plan.Add({.site = Site::kSetSockOpt, .error = ENOBUFS, .first = 2, .times = 2});
  CHECK(ApplyTcpOptions(listening.fd.get(), options) == 2);
}

TEST_CASE("a failing address, ioctl or shutdown is told quietly", "[F2]") {
  FaultPlan plan;
  Listening listening;
  SocketAddress address;
  plan.Add({.site = Site::kGetSockName, .error = ENOBUFS});
  CHECK(LocalAddressOf(listening.fd.get(), &address) == System(ENOBUFS));
  plan.Add({.site = Site::kGetPeerName, .error = ENOTCONN});
  CHECK(PeerAddressOf(listening.fd.get(), &address) == System(ENOTCONN));
  plan.Add({.site = Site::kIoctlOutq, .error = EINVAL});
  CHECK(UnackedBytes(listening.fd.get()) == 0);
  plan.Add({.site = Site::kShutdown, .error = ENOTCONN});
  CHECK_FALSE(ShutdownWrite(listening.fd.get()));
}

}  // namespace
}  // namespace xtcp::internal
