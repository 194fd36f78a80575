#pragma once

#include <xtcp/conn.h>
#include <xtcp/handler.h>
#include <xtcp/options.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <system_error>
#include <utility>

#include "base/check.h"
#include "base/thread_end.h"
#include "buffer/block_pool.h"
#include "buffer/outbound_buffer.h"
#include "loop/totals.h"

namespace xtcp::internal {

// What a service brings to a loop on which its connections live. Loop thread only.
struct Service {
  Handler* handler = nullptr;
  const Protocol* protocol = nullptr;
  const Options* options = nullptr;
  LoopTotals* totals = nullptr;
  BlockPool* pool = nullptr;
  bool has_deadlines = false;  // it has one of those that traffic moves
};

// Logs what a callback of `conn` has thrown. To be called inside a catch block.
void LogUserExceptionOf(const Conn& conn) noexcept;

// One visit of the loop to one connection, whatever woke it. It holds what a turn needs and a
// connection need not keep: there is one object for each loop, which lends it to the connection
// whose turn it is.
//
//   Begin ─► read, unpack, callbacks ─► what they sent gathers here ─► one write ─► … ─► Leave
//               │ they note what they want:
//               └─► doom (it has to close), starvation, traffic, room to give back
//
// Callbacks, and system calls that fail, only note what is to follow; it is carried out at the end
// of the turn, in one place.
//
// Loop thread only.
class Turn {
 public:
  // How many bytes one turn may read, and how often it may read and write (R9).
  static constexpr std::size_t kReadSize = 256 << 10;
  static constexpr int kReads = 16;
  static constexpr int kWrites = 4;

  // Twice what a turn reads, so that an echo of it fits whatever is charged ahead.
  static constexpr std::size_t kGatherSize = 512 << 10;

  // Get the buffers and give them back. `Allocate` throws std::bad_alloc.
  void Allocate();
  void Free();

  // Begins the turn of `connection`, whose handle is `self` and whose socket is `fd`.
  void Begin(const void* connection, const ConnPtr& self, int fd, const Service& service);
  void Leave();

  // Forgets a turn that was left in the middle, because its thread ended.
  void Abandon();

  bool IsOf(const void* connection) const { return connection_ == connection; }

  // The turn in which this thread is just now; null outside.
  static Turn* Current() { return current_; }
  const ConnPtr& self() const { return *self_; }
  int fd() const { return fd_; }
  const Service& service() const { return *service_; }
  const Options& options() const { return *service_->options; }
  LoopTotals& totals() const { return *service_->totals; }
  BlockPool& pool() const { return *service_->pool; }

  // Calls the application. What it throws ends the connection, and is logged.
  template <typename Function>
  void Call(const Function& function) {
    try {
      function(*service_->handler);
    } catch (const ForcedUnwind&) {
      throw;
    } catch (...) {
      NoteException();
    }
  }
  void NoteException();  // to be called inside a catch block

  // Notes that the connection has to close at the end of the turn. The first cause counts.
  void Doom(CloseReason reason, std::error_code error = {});
  bool doomed() const { return doom_ != CloseReason::kNone; }
  CloseReason doom() const { return doom_; }
  std::error_code doom_error() const { return doom_error_; }

  // Does the same for a socket error.
  void DoomBySocket(int error);

  // `Starve` notes that the kernel has no memory for a read or a write (ENOBUFS, ENOMEM): nothing
  // more is tried until the connection's timer comes. `Rest` notes that it has not come yet.
  void Starve(int error) { starvation_ = error; }
  void Rest() { resting_ = true; }
  bool rests() const { return resting_ || starvation_ != 0; }
  int starvation() const { return starvation_; }

  // Has the time of each write noted, because a deadline may run from it.
  void WantTimes() { wants_times_ = true; }
  bool wants_times() const { return wants_times_; }

  // Notes that bytes were received, or taken by the kernel.
  void NoteTraffic() { traffic_ = true; }
  bool traffic() const { return traffic_; }

  // How many bytes are queued on the connection: in `account`, and gathered; and above how many no
  // packet is delivered.
  void WatchQueue(const SendAccount& account, std::size_t hold_above) {
    account_ = &account;
    hold_above_ = hold_above;
  }
  static constexpr std::size_t kNeverHold = static_cast<std::size_t>(-1);
  std::size_t hold_above() const { return hold_above_; }
  std::size_t queued() const {
    const std::uint64_t in_account = account_->accepted_bytes.load(std::memory_order_relaxed) -
                                     account_->written_bytes.load(std::memory_order_relaxed);
    return static_cast<std::size_t>(in_account) + gathered().size();
  }

  // Owners of bytes whose last one was taken in this turn. They are let go when the turn is over,
  // by `Release`, since their destructors may do what a callback may.
  OutboundBuffer& released() { return released_; }
  void Release(BlockPool& pool) {
    if (!released_.empty()) released_.Clear(pool);
  }

  // Returns the memory into which sockets are read.
  std::span<std::byte> read_buffer() { return {read_buffer_.get(), kReadSize}; }

  // What the connection sends in its own turn gathers in `gathered`, to leave in one write.
  // `charged_room` bytes after it are charged to the connection's budget already; there is `room`
  // for more.
  std::span<const std::byte> gathered() const {
    return {gather_buffer_.get(), static_cast<std::size_t>(next_ - gather_buffer_.get())};
  }
  std::size_t gathered_sends() const { return gathered_sends_; }
  std::size_t charged_room() const { return static_cast<std::size_t>(charged_end_ - next_); }
  std::size_t room() const {
    return kGatherSize - static_cast<std::size_t>(next_ - gather_buffer_.get());
  }
  void SetCharged(std::size_t bytes) { charged_end_ = next_ + std::min(bytes, room()); }
  std::byte* Gather(std::size_t bytes) {
    XTCP_DCHECK(bytes <= charged_room(), "bytes are gathered that nobody has charged");
    ++gathered_sends_;
    return std::exchange(next_, next_ + bytes);
  }
  void ClearGathered() {
    next_ = charged_end_ = gather_buffer_.get();
    gathered_sends_ = 0;
  }

  // Returns whether one more write may be made in this turn; count it.
  bool MayWrite() const { return writes_ < kWrites; }
  void CountWrite() { ++writes_; }

 private:
  static inline constinit thread_local Turn* current_ = nullptr;

  std::unique_ptr<std::byte[]> read_buffer_;
  std::unique_ptr<std::byte[]> gather_buffer_;
  std::byte* next_ = nullptr;
  std::byte* charged_end_ = nullptr;
  std::size_t gathered_sends_ = 0;

  OutboundBuffer released_;

  const void* connection_ = nullptr;
  const ConnPtr* self_ = nullptr;
  const Service* service_ = nullptr;
  const SendAccount* account_ = nullptr;
  std::size_t hold_above_ = kNeverHold;
  int fd_ = -1;
  int writes_ = 0;
  int starvation_ = 0;  // an errno
  bool resting_ = false;
  bool wants_times_ = false;
  bool traffic_ = false;
  CloseReason doom_ = CloseReason::kNone;
  std::error_code doom_error_;
};

}  // namespace xtcp::internal
