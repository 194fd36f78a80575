#include "support/stop_books.h"

#include <sys/ioctl.h>

namespace xtcp::test {

std::string_view NameOf(Target target) {
  switch (target) {
    case Target::kServer:
      return "server";
    case Target::kAccepted:
      return "accepted connection";
    case Target::kDialled:
      return "dialled connection";
  }
  return "?";
}

std::string_view Name(StopMode mode) {
  switch (mode) {
    case StopMode::kImmediately:
      return "immediately";
    case StopMode::kGracefullyButNotWait:
      return "gracefully, not waiting";
    case StopMode::kGracefullyAndWait:
      return "gracefully and wait";
  }
  return "?";
}

std::string Text(const StopReport& report) {
  return std::to_string(report.connections) + " connections, " + std::to_string(report.cut) +
         " cut, " + std::to_string(report.unsent_bytes) + " unsent, " +
         std::to_string(report.unacked_bytes) + " unacked" +
         (report.error ? ", " + report.error.message() : "");
}

std::string OnlyConnections(std::size_t connections) { return Text({.connections = connections}); }

std::string BookProblems(const ConnStats& stats, std::uint64_t got, bool peer_read_all) {
  std::string problems;
  const auto check = [&](bool holds, std::string_view text) {
    if (!holds) problems.append(text).append("\n");
  };
  check(stats.accepted_bytes == stats.written_bytes + stats.unsent_bytes(),
        "B1: accepted is not written + unsent");
  check(stats.written_bytes <= stats.accepted_bytes, "B1: more written than accepted");
  check(stats.unacked_bytes <= stats.written_bytes, "B1: more unacknowledged than written");
  check(got <= stats.written_bytes, "B1: the peer got more than was written");
  if (peer_read_all) {
    check(got + stats.unacked_bytes >= stats.written_bytes,
          "B1: bytes are neither at the peer nor unacknowledged");
  }
  if (problems.empty()) return problems;
  return problems + "  accepted " + std::to_string(stats.accepted_bytes) + ", written " +
         std::to_string(stats.written_bytes) + ", unacknowledged " +
         std::to_string(stats.unacked_bytes) + ", the peer got " + std::to_string(got) + "\n";
}

bool BackTo(const Holdings& before) {
  return WaitUntil([&] {
    const Holdings now = Holdings::Now();
    return now.descriptors <= before.descriptors && now.threads <= before.threads;
  });
}

std::size_t Unread(int fd) {
  int bytes = 0;
  return ::ioctl(fd, FIONREAD, &bytes) == 0 ? static_cast<std::size_t>(bytes) : 0;
}

End ReadToEnd(RawPeer& peer) {
  const End end = peer.ReadAll(nullptr, std::chrono::seconds(1));
  if (end != End::kTimeout) return end;
  static_cast<void>(peer.SendAll("?"));
  return peer.ReadAll();
}

Threads::Threads() = default;
Threads::Threads(std::function<void()> before_join) : before_join_(std::move(before_join)) {}
Threads::~Threads() { Join(); }

void Threads::Join() {
  if (before_join_) before_join_();
  for (std::thread& thread : threads_) thread.join();
  threads_.clear();
}

}  // namespace xtcp::test
