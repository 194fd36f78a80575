#pragma once

#include <xtcp/conn.h>
#include <xtcp/handler.h>

#include <atomic>
#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <exception>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <span>
#include <string>
#include <string_view>
#include <system_error>
#include <thread>
#include <utility>
#include <vector>

#include "support/deadline.h"

namespace xtcp::test {

// A handler that writes down what it is told, and checks it: the order of events (M5), that those
// of a connection never overlap, run on one thread, and that no callback is nested in another one.
//
// The hooks let a test act inside the callbacks. Set them before anything starts. They run after
// the event was written down, with no lock held, and may throw.
//
// Every test asks for the result: `TestServer::Finish` and `TestClient::Finish` do it, and a
// recorder that nobody asked fails its test.
//
// Thread safety: any thread, but for the hooks and settings.
class EventRecorder : public Handler {
 public:
  // What one connection went through.
  struct Connection {
    ConnPtr conn;  // null when `hold_handles` is off
    std::vector<EventType> events;
    std::vector<std::string> payloads;  // of kRecv; empty when `keep_payloads` is off
    std::vector<std::pair<std::string, std::error_code>> unpack_errors;
    std::size_t packets = 0;
    std::size_t send_ready = 0;
    std::thread::id thread;  // the one on which the first event came
    bool closed = false;     // kClosed has returned
    ConnStats at_closed;     // as kClosed found it
  };

  // Over all connections.
  struct Totals {
    std::size_t accepted = 0;
    std::size_t connected = 0;
    std::size_t packets = 0;
    std::uint64_t payload_bytes = 0;
    std::size_t unpack_errors = 0;
    std::size_t send_ready = 0;
    std::size_t timers = 0;
    std::size_t dials_failed = 0;
    std::size_t recv_ends = 0;
    std::size_t drains = 0;
    std::size_t closed = 0;
  };

  EventRecorder();
  ~EventRecorder() override;

  std::function<void(const ConnPtr&)> on_accept;
  std::function<void(const ConnPtr&)> on_connected;
  std::function<void(const ConnPtr&, std::string_view payload)> on_recv;
  std::function<void(const ConnPtr&)> on_closed;
  std::function<void(const ConnPtr&, std::span<const std::byte>, std::error_code)> on_unpack_error;
  std::function<void(const ConnPtr&)> on_send_ready;
  std::function<void(const ConnPtr&)> on_timer;
  std::function<void(const ConnPtr&, std::error_code)> on_dial_failed;
  std::function<void(const ConnPtr&)> on_recv_end;  // unless it is set, the library's own answer
  std::function<void(const ConnPtr&)> on_drain;

  bool hold_handles = true;
  bool keep_payloads = true;

  void OnEvent(EventType event, const ConnPtr& conn, PacketPtr packet) override;
  void OnUnpackError(const ConnPtr& conn, std::span<const std::byte> bad,
                     std::error_code error) override;
  void OnSendReady(const ConnPtr& conn) override;
  void OnTimer(const ConnPtr& conn) override;
  void OnRecvEnd(const ConnPtr& conn) override;
  void OnDrain(const ConnPtr& conn) override;
  void OnDialFailed(const ConnPtr& conn, std::error_code error) override;

  // Waits until `condition` holds for the totals; false when the deadline passed first.
  bool WaitFor(const std::function<bool(const Totals&)>& condition,
               std::chrono::milliseconds deadline = kDeadline);
  bool WaitForAccepted(std::size_t n);
  bool WaitForConnected(std::size_t n);
  bool WaitForPackets(std::size_t n, std::chrono::milliseconds deadline = kDeadline);
  bool WaitForUnpackErrors(std::size_t n);
  bool WaitForSendReady(std::size_t n);
  bool WaitForTimers(std::size_t n);
  bool WaitForDialsFailed(std::size_t n);
  bool WaitForRecvEnds(std::size_t n);
  bool WaitForDrains(std::size_t n);
  bool WaitForClosed(std::size_t n, std::chrono::milliseconds deadline = kDeadline);

  Totals totals() const;

  // In the order of their first events.
  std::vector<Connection> connections() const;
  Connection connection(std::size_t i = 0) const;
  ConnPtr conn(std::size_t i = 0) const { return connection(i).conn; }

  // Checks every connection, each of which has ended, and returns what was wrong, a line each. No
  // callback may come any more.
  std::string Verify();

  // Several servers and clients may share a recorder. The last one to release it verifies.
  void AddUser();
  bool ReleaseUser();  // whether it was the last

  // Whether more than one ever used it.
  bool shared() const;

 private:
  struct Record {
    Connection seen;
    std::string name;
    std::atomic<bool> inside{false};
    std::uint64_t socket = 0;  // the inode of its socket, while it had one
    int descriptor = -1;
  };
  class Visit;

  std::shared_ptr<Record> Enter(EventType event, const ConnPtr& conn, const Packet* packet);
  std::shared_ptr<Record> Find(const ConnPtr& conn);
  void NoteFirst(Record& record, EventType event, const ConnPtr& conn);
  void NoteRecv(Record& record, const Packet* packet);
  void NoteClosed(Record& record, const ConnPtr& conn);
  void Leave(Record& record, bool closed);
  static void Complain(const Record* record, std::string_view text);
  void RunHook(EventType event, const ConnPtr& conn, const Packet* packet);
  void VerifyOne(const Record& record, std::string* problems) const;

  mutable std::mutex mutex_;
  std::condition_variable changed_;
  std::vector<std::shared_ptr<Record>> records_;
  std::map<const Conn*, std::shared_ptr<Record>> open_;
  Totals totals_;
  int users_ = 0;
  int users_ever_ = 0;
  std::atomic<bool> verified_{false};
  const int unwinding_ = std::uncaught_exceptions();
};

// The number of a descriptor's file, 0 when it is not open.
std::uint64_t InodeOf(int fd);

// Hooks that tests share.
void Echo(const ConnPtr& conn, std::string_view payload);

}  // namespace xtcp::test
