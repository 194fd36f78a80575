#include "support/event_recorder.h"

#include <sys/stat.h>

#include "support/books.h"
#include "support/test_protocol.h"
#include "support/violations.h"

namespace xtcp::test {
namespace {

// Callbacks that the current thread is inside of.
thread_local int callback_depth = 0;

bool IsFirst(EventType event) {
  return event == EventType::kAccept || event == EventType::kConnected;
}

bool SameStats(const ConnStats& a, const ConnStats& b) {
  return a.received_bytes == b.received_bytes && a.received_packets == b.received_packets &&
         a.accepted_bytes == b.accepted_bytes && a.accepted_sends == b.accepted_sends &&
         a.refused_sends == b.refused_sends && a.written_bytes == b.written_bytes &&
         a.unacked_bytes == b.unacked_bytes && a.age == b.age && a.reason == b.reason &&
         a.error == b.error;
}

}  // namespace

// Marks the time that a callback of `record` takes, also when a hook throws.
class EventRecorder::Visit {
 public:
  Visit(EventRecorder* recorder, std::shared_ptr<Record> record, bool closed = false)
      : recorder_(recorder), record_(std::move(record)), closed_(closed) {
    if (callback_depth++ > 0) recorder_->Complain(record_.get(), "M27: nested in another callback");
    if (recorder_->verified_) recorder_->Complain(record_.get(), "M20: a callback after the end");
    if (record_ == nullptr) return;
    if (record_->inside.exchange(true)) recorder_->Complain(record_.get(), "M6: callbacks overlap");
  }
  ~Visit() {
    --callback_depth;
    if (record_ != nullptr) recorder_->Leave(*record_, closed_);
  }
  Visit(const Visit&) = delete;
  Visit& operator=(const Visit&) = delete;

 private:
  EventRecorder* recorder_;
  std::shared_ptr<Record> record_;
  bool closed_;
};

EventRecorder::EventRecorder() = default;

EventRecorder::~EventRecorder() {
  // A failed REQUIRE leaves the test early; then this is no news.
  if (verified_ || records_.empty() || std::uncaught_exceptions() > unwinding_) return;
  AddViolation("the test did not ask for the result of its EventRecorder: call Finish or Verify");
}

void EventRecorder::OnEvent(EventType event, const ConnPtr& conn, PacketPtr packet) {
  const std::shared_ptr<Record> record = Enter(event, conn, packet.get());
  const Visit visit(this, record, event == EventType::kClosed);
  RunHook(event, conn, packet.get());
}

void EventRecorder::OnUnpackError(const ConnPtr& conn, std::span<const std::byte> bad,
                                  std::error_code error) {
  const std::shared_ptr<Record> record = Find(conn);
  const Visit visit(this, record);
  if (record != nullptr) {
    std::lock_guard lock(mutex_);
    record->seen.unpack_errors.emplace_back(AsText(bad), error);
    ++totals_.unpack_errors;
    changed_.notify_all();
  }
  if (on_unpack_error) on_unpack_error(conn, bad, error);
}

void EventRecorder::OnSendReady(const ConnPtr& conn) {
  const std::shared_ptr<Record> record = Find(conn);
  const Visit visit(this, record);
  if (record != nullptr) {
    std::lock_guard lock(mutex_);
    ++record->seen.send_ready;
    ++totals_.send_ready;
    changed_.notify_all();
  }
  if (on_send_ready) on_send_ready(conn);
}

void EventRecorder::OnTimer(const ConnPtr& conn) {
  const std::shared_ptr<Record> record = Find(conn);
  const Visit visit(this, record);
  {
    std::lock_guard lock(mutex_);
    ++totals_.timers;
    changed_.notify_all();
  }
  if (on_timer) on_timer(conn);
}

void EventRecorder::OnRecvEnd(const ConnPtr& conn) {
  const std::shared_ptr<Record> record = Find(conn);
  const Visit visit(this, record);
  {
    std::lock_guard lock(mutex_);
    ++totals_.recv_ends;
    changed_.notify_all();
  }
  if (on_recv_end) {
    on_recv_end(conn);
  } else {
    Handler::OnRecvEnd(conn);
  }
}

void EventRecorder::OnDrain(const ConnPtr& conn) {
  const std::shared_ptr<Record> record = Find(conn);
  const Visit visit(this, record);
  {
    std::lock_guard lock(mutex_);
    ++totals_.drains;
    changed_.notify_all();
  }
  if (on_drain) on_drain(conn);
}

// It has no record: there was no first event, and there will be none.
void EventRecorder::OnDialFailed(const ConnPtr& conn, std::error_code error) {
  if (conn->Stats().reason != CloseReason::kConnectFailed || conn->Stats().error != error) {
    Complain(nullptr, "M51: OnDialFailed, and Stats say something else");
  }
  if (!conn->IsStopped()) Complain(nullptr, "IsStopped() is false in OnDialFailed");
  if (on_dial_failed) on_dial_failed(conn, error);
  std::lock_guard lock(mutex_);
  if (open_.contains(conn.get())) Complain(nullptr, "M51: OnDialFailed after a first event");
  ++totals_.dials_failed;
  changed_.notify_all();
}

// Writes the event down and gives the connection's record, null when it has none.
std::shared_ptr<EventRecorder::Record> EventRecorder::Enter(EventType event, const ConnPtr& conn,
                                                            const Packet* packet) {
  std::shared_ptr<Record> record;
  if (IsFirst(event)) {
    std::lock_guard lock(mutex_);
    std::shared_ptr<Record>& slot = open_[conn.get()];
    if (slot != nullptr) Complain(slot.get(), "M5: a second first event");
    slot = std::make_shared<Record>();
    records_.push_back(slot);
    record = slot;
  } else {
    record = Find(conn);
    if (record == nullptr) return nullptr;
  }
  if (event == EventType::kRecv) {
    NoteRecv(*record, packet);
  } else if (packet != nullptr) {
    Complain(record.get(), "an event other than kRecv has a packet");
  }
  if (IsFirst(event)) NoteFirst(*record, event, conn);
  if (event == EventType::kClosed) NoteClosed(*record, conn);
  return record;
}

std::shared_ptr<EventRecorder::Record> EventRecorder::Find(const ConnPtr& conn) {
  std::shared_ptr<Record> record;
  {
    std::lock_guard lock(mutex_);
    if (const auto found = open_.find(conn.get()); found != open_.end()) record = found->second;
  }
  if (record == nullptr) {
    Complain(nullptr,
             "M5: a callback before the first event or after kClosed: " + conn->ToString());
  } else if (record->seen.thread != std::this_thread::get_id()) {
    Complain(record.get(), "M25: a callback on another thread than the first event");
  }
  return record;
}

void EventRecorder::NoteFirst(Record& record, EventType event, const ConnPtr& conn) {
  record.descriptor = conn->Descriptor();
  record.socket = InodeOf(record.descriptor);
  if (record.socket == 0) Complain(&record, "M8: no descriptor in the first event");
  if (conn->Stats().reason != CloseReason::kNone) Complain(&record, "a reason before the end");
  std::lock_guard lock(mutex_);
  record.name = conn->ToString();
  if (hold_handles) record.seen.conn = conn;
  record.seen.thread = std::this_thread::get_id();
  record.seen.events.push_back(event);
  ++(event == EventType::kAccept ? totals_.accepted : totals_.connected);
  changed_.notify_all();
}

void EventRecorder::NoteRecv(Record& record, const Packet* packet) {
  if (packet == nullptr) return Complain(&record, "kRecv without a packet");
  const std::string_view payload = PayloadOf(*packet);
  std::lock_guard lock(mutex_);
  record.seen.events.push_back(EventType::kRecv);
  if (keep_payloads) record.seen.payloads.emplace_back(payload);
  ++record.seen.packets;
  ++totals_.packets;
  totals_.payload_bytes += payload.size();
  changed_.notify_all();
}

void EventRecorder::NoteClosed(Record& record, const ConnPtr& conn) {
  if (conn->Descriptor() != -1) Complain(&record, "M8: Descriptor() is not -1 in kClosed");
#if !defined( \
    __SANITIZE_THREAD__)  // it takes the question for a race with whoever has the number now
  // Another thread may have the number again, but not this socket.
  if (record.socket != 0 && InodeOf(record.descriptor) == record.socket) {
    Complain(&record, "M8: the socket is still open in kClosed");
  }
#endif
  if (!conn->IsStopped()) Complain(&record, "IsStopped() is false in kClosed");
  const ConnStats stats = conn->Stats();
  if (stats.reason == CloseReason::kNone) Complain(&record, "E5: no reason in kClosed");
  if (stats.written_bytes > stats.accepted_bytes) {
    Complain(&record, "M11: more written than accepted");
  }
  if (stats.unacked_bytes > stats.written_bytes) {
    Complain(&record, "M23: more unacknowledged than written");
  }
  EnterBooks({.own = conn->LocalAddress().ToString(),
              .peer = conn->RemoteAddress().ToString(),
              .received = stats.received_bytes,
              .saw_end = stats.reason == CloseReason::kPeerClosed,
              .wrote_by_library = true,
              .written = stats.written_bytes,
              .unacked = stats.unacked_bytes});
  std::lock_guard lock(mutex_);
  record.seen.events.push_back(EventType::kClosed);
  record.seen.at_closed = stats;
  open_.erase(conn.get());
}

void EventRecorder::Leave(Record& record, bool closed) {
  record.inside.store(false);
  if (!closed) return;
  std::lock_guard lock(mutex_);
  record.seen.closed = true;
  ++totals_.closed;
  changed_.notify_all();
}

void EventRecorder::Complain(const Record* record, std::string_view text) {
  std::string line(text);
  if (record != nullptr && !record->name.empty()) line += " (" + record->name + ")";
  AddViolation(std::move(line));
}

void EventRecorder::RunHook(EventType event, const ConnPtr& conn, const Packet* packet) {
  switch (event) {
    case EventType::kAccept:
      if (on_accept) on_accept(conn);
      break;
    case EventType::kConnected:
      if (on_connected) on_connected(conn);
      break;
    case EventType::kRecv:
      if (on_recv && packet != nullptr) on_recv(conn, PayloadOf(*packet));
      break;
    case EventType::kClosed:
      if (on_closed) on_closed(conn);
      break;
  }
}

bool EventRecorder::WaitFor(const std::function<bool(const Totals&)>& condition,
                            std::chrono::milliseconds deadline) {
  std::unique_lock lock(mutex_);
  return WaitUntil(
      lock, changed_, [&] { return condition(totals_); }, deadline);
}

bool EventRecorder::WaitForAccepted(std::size_t n) {
  return WaitFor([n](const Totals& totals) { return totals.accepted >= n; });
}
bool EventRecorder::WaitForConnected(std::size_t n) {
  return WaitFor([n](const Totals& totals) { return totals.connected >= n; });
}
bool EventRecorder::WaitForPackets(std::size_t n, std::chrono::milliseconds deadline) {
  return WaitFor([n](const Totals& totals) { return totals.packets >= n; }, deadline);
}
bool EventRecorder::WaitForUnpackErrors(std::size_t n) {
  return WaitFor([n](const Totals& totals) { return totals.unpack_errors >= n; });
}
bool EventRecorder::WaitForSendReady(std::size_t n) {
  return WaitFor([n](const Totals& totals) { return totals.send_ready >= n; });
}
bool EventRecorder::WaitForTimers(std::size_t n) {
  return WaitFor([n](const Totals& totals) { return totals.timers >= n; });
}
bool EventRecorder::WaitForRecvEnds(std::size_t n) {
  return WaitFor([n](const Totals& totals) { return totals.recv_ends >= n; });
}
bool EventRecorder::WaitForDrains(std::size_t n) {
  return WaitFor([n](const Totals& totals) { return totals.drains >= n; });
}
bool EventRecorder::WaitForDialsFailed(std::size_t n) {
  return WaitFor([n](const Totals& totals) { return totals.dials_failed >= n; });
}
bool EventRecorder::WaitForClosed(std::size_t n, std::chrono::milliseconds deadline) {
  return WaitFor([n](const Totals& totals) { return totals.closed >= n; }, deadline);
}

EventRecorder::Totals EventRecorder::totals() const {
  std::lock_guard lock(mutex_);
  return totals_;
}

std::vector<EventRecorder::Connection> EventRecorder::connections() const {
  std::lock_guard lock(mutex_);
  std::vector<Connection> all;
  for (const auto& record : records_) all.push_back(record->seen);
  return all;
}

EventRecorder::Connection EventRecorder::connection(std::size_t i) const {
  std::lock_guard lock(mutex_);
  return records_.at(i)->seen;
}

std::string EventRecorder::Verify() {
  std::lock_guard lock(mutex_);
  verified_ = true;
  std::string problems;
  for (const auto& record : records_) VerifyOne(*record, &problems);
  return problems;
}

void EventRecorder::VerifyOne(const Record& record, std::string* problems) const {
  const auto complain = [&](std::string_view text) {
    problems->append(text).append(" (").append(record.name).append(")\n");
  };
  const std::vector<EventType>& events = record.seen.events;
  if (!record.seen.closed) complain("E2: no kClosed");
  if (record.inside.load()) complain("M20: a callback is still running");
  for (std::size_t i = 0; i < events.size(); ++i) {
    if (IsFirst(events[i]) != (i == 0)) complain("M5: the first event is not first, or not once");
    const bool last = i + 1 == events.size();
    if (events[i] == EventType::kClosed && !last) complain("M5: kClosed is not last");
  }
  const ConnStats& stats = record.seen.at_closed;
  if (!record.seen.closed) return;
  if (stats.received_packets != record.seen.packets) {
    complain("received_packets is " + std::to_string(stats.received_packets) + ", events were " +
             std::to_string(record.seen.packets));
  }
  if (record.seen.conn == nullptr) return;
  if (!SameStats(stats, record.seen.conn->Stats())) complain("M8: Stats changed after kClosed");
  if (!record.seen.conn->IsStopped()) complain("IsStopped is false after the end");
}

void EventRecorder::AddUser() {
  std::lock_guard lock(mutex_);
  ++users_;
  ++users_ever_;
}

bool EventRecorder::ReleaseUser() {
  std::lock_guard lock(mutex_);
  return --users_ == 0;
}

bool EventRecorder::shared() const {
  std::lock_guard lock(mutex_);
  return users_ever_ > 1;
}

std::uint64_t InodeOf(int fd) {
  struct stat status {};
  if (fd < 0 || ::fstat(fd, &status) != 0) return 0;
  return status.st_ino;
}

void Echo(const ConnPtr& conn, std::string_view payload) {
  // A refusal has a reason that the test sees: the peer misses bytes.
  static_cast<void>(conn->Send(Frame(payload)));
}

}  // namespace xtcp::test
