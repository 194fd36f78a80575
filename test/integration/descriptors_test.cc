// What a program that the user starts inherits from the library: nothing.

#include <fcntl.h>
#include <unistd.h>

#include <catch2/catch.hpp>
#include <filesystem>
#include <memory>
#include <set>
#include <string>
#include <system_error>
#include <thread>

#include "support/event_recorder.h"
#include "support/raw_peer.h"
#include "support/test_client.h"
#include "support/test_protocol.h"
#include "support/test_server.h"

namespace xtcp::test {
namespace {

// The descriptors that are open, less the one that looks.
std::set<int> OpenDescriptors() {
  std::set<int> open;
  for (const auto& entry : std::filesystem::directory_iterator("/proc/self/fd")) {
    open.insert(std::stoi(entry.path().filename().string()));
  }
  std::erase_if(open, [](int fd) { return ::fcntl(fd, F_GETFD) < 0; });
  return open;
}

// What it is, of each descriptor of `open` that a program started now would inherit.
std::string Inherited(const std::set<int>& open) {
  std::string inherited;
  for (const int fd : open) {
    const int flags = ::fcntl(fd, F_GETFD);
    if (flags < 0 || (flags & FD_CLOEXEC) != 0) continue;
    std::error_code gone;
    const std::string link = "/proc/self/fd/" + std::to_string(fd);
    inherited += std::filesystem::read_symlink(link, gone).string() + "\n";
  }
  return inherited;
}

TEST_CASE("every descriptor of servers and dials is close-on-exec", "[R5]") {
  const std::set<int> before = OpenDescriptors();
  Options options;
  options.loops = 3;
  auto events = std::make_shared<EventRecorder>();
  RawListener adopted;
  const int adopted_fd = adopted.fd();
  // An adopted one is made so.
  REQUIRE(::fcntl(adopted_fd, F_SETFD, 0) == 0);
  Server server(WithDefaults(options, events));
  const std::string local = "unix:@xtcp-test-descriptors-" + std::to_string(::getpid());
  REQUIRE_FALSE(server.Listen("127.0.0.1:0"));
  REQUIRE_FALSE(server.Listen(local));
  REQUIRE_FALSE(server.Adopt(adopted_fd));
  REQUIRE((::fcntl(adopted_fd, F_GETFD) & FD_CLOEXEC) != 0);
  static_cast<void>(adopted.Release());
  std::thread serving([&] { static_cast<void>(server.Serve()); });
  auto dialled = std::make_shared<EventRecorder>();
  std::string inherited;
  std::size_t ours = 0;
  bool stood = false;
  {
    TestClient over_tcp(dialled, server.Addresses().at(0).ToString());
    TestClient over_unix(dialled, local);
    TestClient to_adopted(dialled, server.Addresses().at(2).ToString());
    stood = events->WaitForAccepted(3) && dialled->WaitForConnected(3);
    // 3 listeners, 6 ends of connections, an epoll and an eventfd for each of 3 + 3 loops. A sanitizer
    // has a pipe of its own now and then, so it may take several looks.
    static_cast<void>(WaitUntil([&] {
      std::set<int> open = OpenDescriptors();
      std::erase_if(open, [&](int fd) { return before.contains(fd); });
      ours = open.size();
      inherited = Inherited(open);
      return ours == 3 + 6 + 12 && inherited.empty();
    }));
    CHECK(over_tcp.Finish() == "");
    CHECK(over_unix.Finish() == "");
    CHECK(to_adopted.Finish() == "");
  }
  static_cast<void>(server.Stop(StopMode::kImmediately));
  WithinDeadline("Serve", [&] { serving.join(); });
  REQUIRE(stood);
  REQUIRE(inherited == "");
  REQUIRE(ours == 3 + 6 + 12);
  REQUIRE(events->Verify() == "");
}

}  // namespace
}  // namespace xtcp::test
