#pragma once

#include <xtcp/handler.h>
#include <xtcp/options.h>
#include <xtcp/stop_mode.h>

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <system_error>
#include <vector>

#include "base/mutex.h"
#include "conn/conn_context.h"
#include "conn/conn_impl.h"
#include "reactor/event_loop.h"
#include "socket/socket_address.h"
#include "socket/unique_fd.h"

namespace xtcp::internal {

// An accepted socket on its way to the worker that will serve it.
struct AcceptedSocket {
  UniqueFd fd;
  ConnectionEnds ends;
};

// Totals of one loop. Single writer: the loop; read from any thread, hence relaxed atomics.
struct LoopTotals {
  std::atomic<std::uint64_t> received_bytes{0};
  std::atomic<std::uint64_t> accepted_bytes{0};  // by sends on the loop's thread
  std::atomic<std::uint64_t> written_bytes{0};
  std::atomic<std::uint64_t> unacked_bytes{0};
  std::atomic<std::uint64_t> exceptions{0};
};

// `counter += n` for its only writer. Release: whoever reads a count sees those that were counted
// before.
[[gnu::always_inline]] inline void Add(std::atomic<std::uint64_t>& counter, std::uint64_t n) {
  counter.store(counter.load(std::memory_order_relaxed) + n, std::memory_order_release);
}

// Whoever runs workers: a server, or a dial. Called on the workers' threads.
class WorkerOwner {
 public:
  // A connection is over: its descriptor is closed, and kClosed comes next.
  virtual void ConnectionEnded(const StopReport& ending) = 0;

  // An accepted socket could not be made into a connection; no error: a stop has overtaken it.
  virtual void ConnectionRefused(std::error_code error) = 0;

  // A stop has reached this worker's loop, before its connections see it.
  virtual void StopReachedLoop(class Worker& worker) = 0;

 protected:
  ~WorkerOwner() = default;
};

// One event loop and the connections on it. A connection is made, served and let go on the worker's
// thread.
//
// Thread safety: `Deal`, `NoteStop`, `Post`, `RequestQuit` and `totals` from any thread; all else on
// the worker's.
class Worker final : public Channel {
 public:
  // All must outlive the worker; `options` is the owner's copy. `own_timers`: how many channels
  // beside the connections may arm a timer on this loop.
  Worker(WorkerOwner& owner, const Options& options, std::shared_ptr<ConnContext> context,
         std::size_t own_timers);
  ~Worker();

  std::error_code Open();

  // Serves until `RequestQuit` was called and the last connection is gone. With an error the loop
  // itself is broken; all connections have been closed with it. So they have when the thread ends
  // inside (ForcedUnwind).
  std::error_code Run();

  // Closes what `Open` opened, and sockets that were dealt too late. After `Run`, or instead.
  void Close();

  // Hands over a socket, or closes it and tells the owner that it was refused.
  void Deal(AcceptedSocket socket) XTCP_EXCLUDES(mu_);

  // How far a stop has gone; it only rises.
  enum class StopLevel : std::uint8_t { kNone, kGraceful, kNow, kNowAfterGraceful };

  // Refuses all sends from now on, and notes that all connections are to be stopped; `Post` tells the
  // loop. Needs no memory, and makes no system call. A lower level than before changes nothing.
  void NoteStop(StopLevel level);
  bool IsStopping() const { return context_->stopping.load(std::memory_order_relaxed); }

  // Makes the loop look at what was noted.
  void Post();

  // Ends `Run` once no connection is left.
  void RequestQuit();

  // Makes and opens a connection from an accepted socket.
  void Admit(AcceptedSocket socket);

  // Serves a connection that was made elsewhere.
  std::error_code Adopt(std::shared_ptr<ConnImpl> conn, AcceptedSocket socket, EventType first);

  // For ConnImpl.
  const ConnPtr& PtrOf(const ConnImpl& conn) const { return conns_[conn.worker_index()]; }
  void Erase(ConnImpl& conn);
  WorkerOwner& owner() { return owner_; }
  Handler& handler() { return *options_.handler; }
  const Options& options() const { return options_; }
  bool has_deadlines() const { return has_deadlines_; }
  EventLoop& loop() { return loop_; }
  ConnContext& context() { return *context_; }
  const LoopTotals& totals() const { return totals_; }
  LoopTotals& totals() { return totals_; }

  // Where a turn's first read goes: behind the bytes of an unfinished packet, if there are any.
  std::span<std::byte> read_buffer() { return {read_buffer_.get(), kReadSize}; }

  // What a turn of a connection needs and the connection need not keep.
  struct Turn {
    // Twice what a turn reads, so that an echo of it fits whatever is charged ahead.
    static constexpr std::size_t kCapacity = 512 << 10;

    ConnImpl* conn = nullptr;  // whose turn it is

    // What the connection sends gathers in `bytes`, up to `next`, to leave in one write. The bytes
    // from there to `ahead` are charged to its budget already.
    std::unique_ptr<std::byte[]> bytes;
    std::byte* next = nullptr;
    std::byte* ahead = nullptr;

    bool traffic = false;  // bytes were received, or taken by the kernel
    int writes = 0;
    std::size_t release = 0;                // bytes to give back to its budget
    CloseReason doom = CloseReason::kNone;  // it closes at the end of the turn
    std::error_code doom_error;

    std::size_t size() const { return static_cast<std::size_t>(next - bytes.get()); }
    std::size_t lump() const { return static_cast<std::size_t>(ahead - next); }
    std::size_t room() const { return kCapacity - static_cast<std::size_t>(ahead - bytes.get()); }
    void Clear() {
      release += lump();
      next = ahead = bytes.get();
    }
    void Reset() {
      Clear();
      release = 0;
      conn = nullptr;
    }
  };
  Turn turn;

  // R9: what one turn may read.
  static constexpr std::size_t kReadSize = 256 << 10;
  static constexpr int kReadsPerTurn = 16;

  // So many connections learn of a stop in one iteration.
  static constexpr int kStopsPerIteration = 1024;

 private:
  void HandleEvents(std::uint32_t) override {}
  void HandleTimer() override {}
  void HandlePosted() override;
  void HandleRetired() override {}

  void TakeDealt();
  void CarryStopOn();
  void Fail(std::error_code error);
  void RefuseDealt();

  WorkerOwner& owner_;
  const Options& options_;
  const std::shared_ptr<ConnContext> context_;
  const bool has_deadlines_;
  const std::size_t own_timers_;
  EventLoop loop_;
  std::unique_ptr<std::byte[]> read_buffer_;
  LoopTotals totals_;

  // All of them are ConnImpls. Callbacks get a reference to the element, so that no count is
  // touched; the vector changes only between turns.
  std::vector<ConnPtr> conns_;

  std::atomic<StopLevel> stop_{StopLevel::kNone};  // asked for
  StopLevel stop_done_ = StopLevel::kNone;         // begun to be carried out; loop thread only
  std::size_t stop_next_ =
      0;  // connections below this index are still to be told; loop thread only
  std::atomic<bool> quit_{false};

  Mutex mu_;
  std::vector<AcceptedSocket> dealt_ XTCP_GUARDED_BY(mu_);
  bool gone_ XTCP_GUARDED_BY(mu_) = false;  // takes no more sockets
};

}  // namespace xtcp::internal
