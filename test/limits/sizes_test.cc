// Sizes at the edge: descriptors that select(2) could not name, gigabytes, and small stacks.

#include <fcntl.h>
#include <pthread.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <unistd.h>
#include <xtcp/error.h>

#include <algorithm>
#include <catch2/catch.hpp>
#include <cstddef>
#include <memory>
#include <span>
#include <string>
#include <system_error>
#include <vector>

#include "support/alloc_hook.h"
#include "support/event_recorder.h"
#include "support/one_connection.h"
#include "support/raw_peer.h"
#include "support/test_protocol.h"
#include "support/test_server.h"

namespace xtcp::test {
namespace {

// Takes all descriptors below `first`, for as long as it lives.
class Descriptors {
 public:
  explicit Descriptors(int first) {
    ::getrlimit(RLIMIT_NOFILE, &before_);
    rlimit more = before_;
    more.rlim_cur = std::min<rlim_t>(more.rlim_max, static_cast<rlim_t>(first) + 256);
    ::setrlimit(RLIMIT_NOFILE, &more);
    int fd = ::open("/dev/null", O_RDONLY | O_CLOEXEC);
    for (; fd >= 0 && fd < first; fd = ::fcntl(fd, F_DUPFD_CLOEXEC, 0)) taken_.push_back(fd);
    reached_ = fd >= 0;
    if (reached_) ::close(fd);
  }
  ~Descriptors() {
    for (const int fd : taken_) ::close(fd);
    ::setrlimit(RLIMIT_NOFILE, &before_);
  }
  Descriptors(const Descriptors&) = delete;
  Descriptors& operator=(const Descriptors&) = delete;

  bool reached() const { return reached_; }

 private:
  rlimit before_{};
  std::vector<int> taken_;
  bool reached_ = false;
};

std::shared_ptr<EventRecorder> Echo() {
  auto events = std::make_shared<EventRecorder>();
  events->on_recv = [](const ConnPtr& conn, std::string_view payload) {
    static_cast<void>(conn->Send(Frame(payload)));
  };
  return events;
}

// A packet goes to the server and comes back.
void MustEcho(std::uint16_t port) {
  RawPeer peer(port);
  const std::string frame = Frame(std::string(10'000, 'e'));
  std::string echo;
  REQUIRE(peer.SendAll(frame));
  REQUIRE(peer.ReadExactly(frame.size(), &echo) == End::kOpen);
  CHECK(echo == frame);
}

TEST_CASE("descriptors above 1,024 are as good as any other", "[R3][R5][X4][seen-29]") {
  const Descriptors taken(2'000);
  if (!taken.reached()) return;  // the hard limit is lower
  auto events = Echo();
  TestServer server(events);
  MustEcho(server.port());
  REQUIRE(events->WaitForClosed(1));
  REQUIRE(server.Finish() == "");
}

// Memory that is there to be named, and never touched.
class Gigabytes {
 public:
  explicit Gigabytes(std::size_t size) : size_(size) {
    constexpr int kFlags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE;
    memory_ = ::mmap(nullptr, size, PROT_READ, kFlags, -1, 0);
  }
  ~Gigabytes() {
    if (there()) ::munmap(memory_, size_);
  }
  Gigabytes(const Gigabytes&) = delete;
  Gigabytes& operator=(const Gigabytes&) = delete;

  bool there() const { return memory_ != MAP_FAILED; }
  std::span<const std::byte> bytes() const {
    return {static_cast<const std::byte*>(memory_), size_};
  }

 private:
  std::size_t size_;
  void* memory_;
};

TEST_CASE("a Send of two gigabytes and more is refused whole, or for want of memory",
          "[M9][B3][F4][X4][seen-29]") {
  if constexpr (sizeof(std::size_t) == 4) return;
  const Kind kind = GENERATE(Kind::kAccepted, Kind::kDialled);
  for (const std::size_t size : {std::size_t{1} << 31, (std::size_t{1} << 32) + 5}) {
    CAPTURE(static_cast<int>(kind), size);
    const Gigabytes gigabytes(size);
    REQUIRE(gigabytes.there());
    Options options;
    options.send_buffer_limit = size;
    OneConnection any_size(kind, options);
    std::error_code answer;
    {
      const NoMemoryHere here;
      answer = any_size.conn->Send(gigabytes.bytes());
    }
    CHECK(answer == Errc::kNoMemory);
    // It has left nothing, of the limit either.
    REQUIRE_FALSE(any_size.conn->Send("small"));
    std::string got;
    REQUIRE(any_size.peer.ReadExactly(5, &got) == End::kOpen);
    CHECK(got == "small");
    CHECK(any_size.conn->Stats().accepted_bytes == 5);
    REQUIRE(any_size.Finish() == "");

    OneConnection limited(kind, {});
    CHECK(limited.conn->Send(gigabytes.bytes()) == Errc::kTooLarge);
    CHECK(limited.conn->Stats().accepted_bytes == 0);
    REQUIRE(limited.Finish() == "");
  }
}

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
constexpr std::size_t kSmallStack = 512 << 10;  // their frames are far larger
#else
constexpr std::size_t kSmallStack = 64 << 10;
#endif

TEST_CASE("a loop runs on a small stack", "[X5][seen-29]") {
  auto events = Echo();
  Server server(WithDefaults({}, events));
  REQUIRE_FALSE(server.Listen("127.0.0.1:0"));
  pthread_attr_t attributes;
  ::pthread_attr_init(&attributes);
  REQUIRE(::pthread_attr_setstacksize(&attributes, kSmallStack) == 0);
  pthread_t serving{};
  const auto serve = [](void* with) -> void* {
    static_cast<void>(static_cast<Server*>(with)->Serve());
    return nullptr;
  };
  REQUIRE(::pthread_create(&serving, &attributes, serve, &server) == 0);
  ::pthread_attr_destroy(&attributes);
  MustEcho(server.Addresses().at(0).Port());
  // Large packets, and a close of many at once.
  std::vector<RawPeer> peers;
  for (int i = 0; i < 100; ++i) peers.emplace_back(server.Addresses().at(0).Port());
  for (RawPeer& peer : peers) REQUIRE(peer.SendAll(Frame(std::string(100'000, 'l'))));
  REQUIRE(events->WaitForPackets(101));
  WithinDeadline("a stop", [&] {
    server.Stop(StopMode::kImmediately);
    ::pthread_join(serving, nullptr);
  });
  REQUIRE(events->Verify() == "");
}

}  // namespace
}  // namespace xtcp::test
