#pragma once

#include <xtcp/export.h>

#include <chrono>
#include <cstddef>
#include <memory>

namespace xtcp {

class Handler;
class Protocol;

// The settings of a `Server` or a dialled `Conn`. They are copied and checked when they are given;
// a null `handler` or `protocol`, or an impossible number, throws `std::invalid_argument` that
// names the field. A duration of 0 means "off" unless said otherwise; a negative one, or one that
// overflows the monotonic clock, is impossible. docs/options.md says when to touch each of them.
struct XTCP_API Options {
  // Required. It is called on the loops' threads.
  std::shared_ptr<Handler> handler;

  // Required. It is called on the loops' threads, and `PackSize` and `PackTo` on any thread that
  // sends.
  std::shared_ptr<const Protocol> protocol;

  // The number of event loops, one thread each, at most 1024. 0 means as many as processors this
  // process may run on (sched_getaffinity(2)). A dialled connection ignores it, and so does a
  // server on a `LoopGroup`.
  std::size_t loops = 1;

  // The first size, in bytes, of a connection's inbound buffer, once bytes of an unfinished packet
  // wait; it is rounded up to a power of two. From 1 to 1 GiB. An idle connection holds no buffer.
  std::size_t recv_buffer_size = 4 << 10;

  // The limit, in bytes, for one packet. At least 1.
  std::size_t max_packet_size = 16 << 20;

  // The limit, in bytes, for the first packet of a connection. 0 means `max_packet_size`, which it
  // must not exceed. When it is set, `packet_deadline` runs from the first event until the first
  // packet is complete.
  std::size_t first_packet_size = 0;

  // The limit, in bytes, for what is queued on one connection. A `Send` that does not fit now
  // returns `Errc::kFull`, one that never fits `Errc::kTooLarge`. At least 1.
  std::size_t send_buffer_limit = 16 << 20;

  // Back-pressure by itself, in bytes; 0 means none. While more than this is queued on a
  // connection, no packet of it is delivered and nothing is read, until no more than half of it is
  // queued: from one packet to the next, even within one read. Then a handler that sends only to
  // the connection whose packet it is given sees no `Errc::kFull`, unless the answer to one packet
  // exceeds `send_buffer_limit` - `pause_recv_above`. It must be less than `send_buffer_limit`.
  //
  // The application's own `PauseRecv` is separate. Meanwhile the peer's FIN is not seen, a reset
  // is; the clock of `packet_deadline` is stopped, those of `read_deadline` and `write_deadline`
  // run. It is for request and answer: two peers that both have it and flood each other stand still
  // until `write_deadline` ends them.
  std::size_t pause_recv_above = 0;

  // What the peer's FIN is. False: the end of the connection, once what is queued has been written.
  // True: an event, `Handler::OnRecvEnd`, after which `Send` works on.
  bool half_close = false;

  // How long a listener that is drained goes on accepting clients whose handshake had begun; see
  // `Server::Drain`. 0 means only those whose handshake is complete.
  std::chrono::milliseconds drain_grace{1'000};

  // The limit for connections that are open at a time; more are closed at once and counted. 0 means
  // the descriptor limit (RLIMIT_NOFILE) when the server begins, less 64 or half of it, whichever
  // is less. A dialled connection ignores it.
  std::size_t max_connections = 0;

  // Sets TCP_NODELAY (tcp(7)), so that small writes leave at once.
  //
  // This and the next three options reach accepted and dialled TCP sockets alike. An option that
  // the kernel refuses is passed over and logged (kWarn), and may be counted: see
  // `ServerStats::accept_errors`.
  bool no_delay = true;

  // `keep_alive` sets SO_KEEPALIVE (socket(7)), and a `keep_alive_period` sets TCP_KEEPIDLE and
  // TCP_KEEPINTVL (tcp(7)) in whole seconds, rounded up, at most 32767. 0 leaves the system's
  // values.
  bool keep_alive = false;
  std::chrono::milliseconds keep_alive_period{0};

  // Sets TCP_USER_TIMEOUT (tcp(7)): how long written data may stay unacknowledged. At most 2^31 - 1
  // ms. 0 leaves the system's value.
  std::chrono::milliseconds user_timeout{0};

  // Closes a connection when no byte was received, and the kernel accepted none of ours, for this
  // long (kReadDeadline).
  std::chrono::milliseconds read_deadline{0};

  // Closes a connection when bytes are queued and the kernel accepted none for this long
  // (kWriteDeadline).
  std::chrono::milliseconds write_deadline{0};

  // Closes a connection when an unfinished packet is not complete this long after its first byte;
  // further bytes do not extend the time (kPacketDeadline).
  std::chrono::milliseconds packet_deadline{0};

  // The time for all addresses of a dial together. The look-up of a name is included for `Dial`,
  // and not for a `DialAndServe` without a loop. 0 means no limit but the system's.
  std::chrono::milliseconds connect_timeout{10'000};

  // Ends a graceful stop this long after it began (kLingerTimeout). After the peer's end of stream
  // the kernel must take at least one byte in each such period. 0 means no time at all: only what
  // the kernel takes at once is written.
  std::chrono::milliseconds linger_timeout{10'000};

  // The number of connections that the kernel may hold ready for accept (listen(2)); it caps the
  // value at net.core.somaxconn. At least 1. A dialled connection ignores it.
  int backlog = 4096;

  // Sets SO_REUSEPORT (socket(7)), so that several servers may share a port. A dialled connection
  // ignores it.
  bool reuse_port = false;

  // Returns a copy with the limits of a server that faces the internet: `max_packet_size` 1 MiB,
  // `first_packet_size` 16 KiB, `send_buffer_limit` 1 MiB, `read_deadline` 5 min, `packet_deadline`
  // 30 s, `write_deadline` 60 s, `pause_recv_above` 256 KiB. Call it first, set your own values
  // after it.
  Options Hardened() const;
};

}  // namespace xtcp
