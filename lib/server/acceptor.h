#pragma once

#include <xtcp/address.h>
#include <xtcp/stop_mode.h>

#include <atomic>
#include <chrono>
#include <cstdint>
#include <system_error>

#include "conn/service_loop.h"
#include "reactor/channel.h"
#include "reactor/event_loop.h"
#include "socket/socket.h"

namespace xtcp::internal {

// The server, as an acceptor sees it. It is called on the accepting loops' threads.
class AcceptSink {
 public:
  // Returns whether to accept at all: no stop has begun, and an adopted listener was not let go.
  virtual bool MayAccept(bool adopted) const = 0;

  // Returns whether one more connection may be admitted. If so, it counts from now on.
  virtual bool MayAdmit() = 0;

  // Takes the socket of an admitted connection, accepted on `loop`.
  virtual void Accepted(ConnectedSocket socket, EventLoop& loop) XTCP_ON_LOOP = 0;

  // The set-up of an admitted connection has failed.
  virtual void SetUpFailed(std::error_code error) = 0;

  // accept4(2) failed, or an accepted socket refused an option and is served without it.
  virtual void AcceptFailed() = 0;

  // The listener is of no use any more, and has been closed.
  virtual void ListenerDied(std::error_code error) = 0;

  // The listener has been drained and closed.
  virtual void ListenerDrained() = 0;

 protected:
  ~AcceptSink() = default;
};

// What the listeners of a server share: when descriptors or memory run out, all of them together
// try no more often, and log no more, than one would (R4). In nanoseconds of sys::Now; relaxed,
// they order nothing.
struct AcceptPause {
  std::atomic<std::int64_t> until{0};  // no listener accepts before
  std::atomic<std::int64_t> logged_at{0};
};

// A listening socket. When descriptors or memory run out it stops watching, and tries again a
// little later (R4): a readable listener that cannot be accepted from would wake the loop for ever.
class Acceptor final : public Channel {
 public:
  // `address` is where `fd` listens. `file` is what to remove at the end, and may be empty. `apply`
  // are the options to set on each accepted socket, for a listener from which they are not
  // inherited; null means none.
  Acceptor(UniqueFd fd, const SocketAddress& address, SocketFile file, const TcpOptions* apply,
           bool adopted);
  ~Acceptor() { Close(); }

  // Begins to accept on `loop`. All must outlive the acceptor.
  std::error_code Start(EventLoop& loop, AcceptSink& sink, AcceptPause& pause) XTCP_ON_LOOP;

  // The first half of a drain, which needs no loop: nobody finds the listener any more. One that
  // was adopted is closed, unless `mode` says otherwise.
  void Hide(DrainMode mode);

  // Hides the listener if that was not done, accepts clients that wait or had begun for `grace`
  // more, and closes. Loop thread only.
  void Drain(DrainMode mode, std::chrono::nanoseconds grace) XTCP_ON_LOOP;

  // Stops listening. Call it on the loop's thread, or while no loop runs.
  void Close();

  bool closed() const { return !fd_.valid(); }
  bool Owns(int fd) const { return fd_.get() == fd; }

 private:
  static constexpr int kAcceptsPerTurn = 64;                       // R9
  static constexpr std::chrono::milliseconds kExhaustedPause{75};  // R4

  void HandleEvents(std::uint32_t events) XTCP_ON_LOOP override;
  void HandleTimer() XTCP_ON_LOOP override;

  bool DrainIsOver() const XTCP_ON_LOOP;
  void EndDrain() XTCP_ON_LOOP;

  // Admits an accepted socket, or closes it.
  void Take(AcceptResult accepted) XTCP_ON_LOOP;

  // Begins a pause of all listeners, for lack of descriptors or memory.
  void Rest(int error) XTCP_ON_LOOP;

  // Watches nothing until this time.
  void Sleep(std::chrono::nanoseconds until) XTCP_ON_LOOP;

  EventLoop* loop_ = nullptr;
  AcceptSink* sink_ = nullptr;
  AcceptPause* pause_ = nullptr;
  const SocketAddress address_;
  SocketFile file_;
  const TcpOptions* const apply_;
  const bool adopted_;
  bool hidden_ = false;
  std::chrono::nanoseconds drain_until_{0};  // 0: it does not drain
  const bool every_address_;  // it is a wildcard: each socket has to be asked for its own address
};

}  // namespace xtcp::internal
