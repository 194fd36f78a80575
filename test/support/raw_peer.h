#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

#include "support/deadline.h"

namespace xtcp::test {

// How reading from a peer ended.
enum class End {
  kOpen,     // as many bytes came as were asked for
  kEof,      // the other side's FIN
  kReset,    // its RST
  kTimeout,  // nothing more came in time
  kError,    // another error
};

// A peer with blocking calls and no code of the library in it. Every call has a deadline. When it
// closes, what it received is held against the books of the connection; see books.h.
//
// Thread safety: one thread reads while another one sends; everything else on one thread.
class RawPeer {
 public:
  RawPeer() = default;

  // Connects to "127.0.0.1:port", "[::1]:port", "unix:/path" or "unix:@abstract"; `connected` tells
  // whether it worked. A `receive_buffer` sets SO_RCVBUF before the connect, so that the window is
  // small from the start.
  explicit RawPeer(std::string_view address, int receive_buffer = 0);

  // To 127.0.0.1.
  explicit RawPeer(std::uint16_t port, int receive_buffer = 0);

  ~RawPeer() { Close(); }
  RawPeer(RawPeer&& other) noexcept;
  RawPeer& operator=(RawPeer&& other) noexcept;

  bool connected() const { return fd_ >= 0; }
  int fd() const { return fd_; }

  // Sends all of it; false on an error or at the deadline.
  bool SendAll(std::string_view bytes, std::chrono::milliseconds deadline = kDeadline);

  // The same in pieces of `piece` bytes, each in a segment of its own where the system allows.
  bool Dribble(std::string_view bytes, std::size_t piece = 1);

  // Reads to the end of the stream, into `*bytes` (appended) unless it is null. Each read may take
  // `deadline`.
  End ReadAll(std::string* bytes = nullptr, std::chrono::milliseconds deadline = kDeadline);

  // Reads `size` bytes into `*bytes`, unless it is null; kOpen when all of them came.
  End ReadExactly(std::size_t size, std::string* bytes,
                  std::chrono::milliseconds deadline = kDeadline);

  // Reads one frame of the test protocol and gives its payload; "" and an `*end` other than kOpen
  // when none came.
  std::string ReadFrame(End* end = nullptr);

  // Bytes read so far.
  std::uint64_t received() const { return received_; }

  void HalfClose();  // FIN
  void Reset();      // RST, and closes
  void Close();      // FIN, or RST when unread bytes wait

 private:
  friend class RawListener;
  explicit RawPeer(int fd);

  End ReadUpTo(std::size_t size, std::string* bytes, std::chrono::milliseconds deadline);
  End ReadSome(char* buffer, std::size_t size, std::chrono::milliseconds deadline,
               std::size_t* count);

  int fd_ = -1;
  std::uint64_t received_ = 0;
  bool saw_end_ = false;
  std::string own_;  // the names of the two ends, for the books
  std::string peer_;
};

// A listener without library code, for tests of the dialling side: on 127.0.0.1 and a port that the
// system chooses, or where `address` says.
class RawListener {
 public:
  explicit RawListener(int backlog = 128) : RawListener("127.0.0.1:0", backlog) {}
  explicit RawListener(std::string_view address, int backlog = 128);
  ~RawListener() { Close(); }
  RawListener(const RawListener&) = delete;
  RawListener& operator=(const RawListener&) = delete;

  std::uint16_t port() const { return port_; }  // 0 for a Unix socket
  std::string address() const { return address_; }
  int fd() const { return fd_; }

  // Not connected when the deadline passed.
  RawPeer Accept(std::chrono::milliseconds deadline = kDeadline);

  // Gives the descriptor away.
  int Release();

  void Close();

 private:
  int fd_ = -1;
  std::uint16_t port_ = 0;
  std::string address_;
};

// Whether this machine has an IPv6 loopback.
bool HasIpv6();

// Whether this machine knows the name "localhost": a bare one without /etc/hosts does not.
bool HasLocalhost();

}  // namespace xtcp::test
