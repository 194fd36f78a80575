#pragma once

#include <xtcp/export.h>

#include <chrono>
#include <cstddef>
#include <memory>

namespace xtcp {

class Handler;
class Protocol;

// What a `Server` or a dialled `Conn` is made from. It is copied and checked where it is given; a
// null `handler` or `protocol`, or an impossible number, throws `std::invalid_argument` that names
// the field. A duration of 0 means "off" unless said otherwise; a negative one, or one that
// overflows the monotonic clock, is impossible. docs/options.md says when to touch each of them.
struct XTCP_API Options {
  // Required. Called on the loops' threads.
  std::shared_ptr<Handler> handler;

  // Required. Called on the loops' threads, and `PackSize` and `PackTo` on any thread that sends.
  std::shared_ptr<const Protocol> protocol;

  // Event loops, one thread each. 0: as many as processors this process may run on
  // (sched_getaffinity(2)). At most 1024. A dialled connection ignores it.
  std::size_t loops = 1;

  // Bytes. First size of a connection's ring buffer, once bytes of an unfinished packet wait;
  // rounded up to a power of two. From 1 to 1 GiB. An idle connection holds none.
  std::size_t recv_buffer_size = 4 << 10;

  // Bytes that may wait for one packet. At least 1.
  std::size_t max_packet_size = 16 << 20;

  // Bytes. The same, until the first packet is complete. 0: as `max_packet_size`, which it must not
  // exceed. When set, `packet_deadline` also runs from `kAccept` until then.
  std::size_t first_packet_size = 0;

  // Bytes that may be queued on one connection. A `Send` that does not fit now is `Errc::kFull`, a
  // larger one `Errc::kTooLarge`. At least 1.
  std::size_t send_buffer_limit = 16 << 20;

  // More connections than this are closed at once and counted. 0: the descriptor limit
  // (RLIMIT_NOFILE) when `Serve` starts, less 64 or half of it, whichever is less. A dialled
  // connection ignores it.
  std::size_t max_connections = 0;

  // This and the next three reach accepted and dialled TCP sockets alike. What the kernel refuses
  // is passed over and logged (kWarn), and may be counted: see `ServerStats::accept_errors`.
  //
  // TCP_NODELAY (tcp(7)): small writes leave at once.
  bool no_delay = true;

  // SO_KEEPALIVE (socket(7)); a `keep_alive_period` sets TCP_KEEPIDLE and TCP_KEEPINTVL (tcp(7)),
  // in whole seconds, rounded up, at most 32767. 0: the system's.
  bool keep_alive = false;
  std::chrono::milliseconds keep_alive_period{0};

  // TCP_USER_TIMEOUT (tcp(7)): how long written data may stay unacknowledged. At most 2^31 - 1 ms.
  // 0: the system's.
  std::chrono::milliseconds user_timeout{0};

  // No byte received, and none of ours taken by the kernel, for this long: closed (kReadDeadline).
  std::chrono::milliseconds read_deadline{0};

  // Bytes are queued, and none was taken by the kernel for this long: closed (kWriteDeadline).
  std::chrono::milliseconds write_deadline{0};

  // From the first byte of an unfinished packet to its last, not extended by further bytes
  // (kPacketDeadline).
  std::chrono::milliseconds packet_deadline{0};

  // For all addresses of a dial together, after the name look-up. 0: no limit but the system's.
  std::chrono::milliseconds connect_timeout{10'000};

  // Ends a graceful stop, this long after it began (kLingerTimeout). After the peer's end of
  // stream: each such period must see the kernel take at least one byte. 0: no time at all; only
  // what the kernel takes at once is written.
  std::chrono::milliseconds linger_timeout{10'000};

  // Connections that the kernel may hold ready for accept (listen(2)); it caps the value at
  // net.core.somaxconn. At least 1. A dialled connection ignores it.
  int backlog = 4096;

  // SO_REUSEPORT (socket(7)): several servers may share a port. A dialled connection ignores it.
  bool reuse_port = false;

  // A copy with the limits of a server that faces the internet: `max_packet_size` 1 MiB,
  // `first_packet_size` 16 KiB, `send_buffer_limit` 1 MiB, `read_deadline` 5 min, `packet_deadline`
  // 30 s, `write_deadline` 60 s. Call it first, set your own values after it.
  Options Hardened() const;
};

}  // namespace xtcp
