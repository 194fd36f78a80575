#include "loop/turn.h"

#include <cerrno>
#include <new>
#include <string>

#include "base/log.h"
#include "base/poison.h"

namespace xtcp::internal {

void LogUserExceptionOf(const Conn& conn) noexcept {
  if (!logger_is_set.load(std::memory_order_relaxed)) return;
  std::string name;
  try {
    name = conn.ToString();
  } catch (const std::bad_alloc&) {
    // Then it has none.
  }
  LogUserException(name.empty() ? "a connection" : name.c_str());
}

void Turn::Allocate() {
  // Not initialised: a page costs memory only once it is used.
  read_buffer_.reset(new std::byte[kReadSize]);
  gather_buffer_.reset(new std::byte[kGatherSize]);
  ClearGathered();
}

void Turn::Free() {
  if (read_buffer_ != nullptr) Unpoison(read_buffer());
  read_buffer_.reset();
  gather_buffer_.reset();
  ClearGathered();
}

void Turn::Begin(const void* connection, const ConnPtr& self, int fd, const Service& service) {
  XTCP_DCHECK(connection_ == nullptr, "a turn begins within another one");
  XTCP_DCHECK(gathered().empty(), "a turn begins with what another one has gathered");
  XTCP_DCHECK(read_buffer_ != nullptr, "a turn begins without its buffers");
  current_ = this;
  connection_ = connection;
  self_ = &self;
  service_ = &service;
  fd_ = fd;
  writes_ = 0;
  starvation_ = 0;
  resting_ = false;
  wants_times_ = service.has_deadlines;
  traffic_ = false;
  doom_ = CloseReason::kNone;
}

void Turn::Leave() {
  XTCP_DCHECK(connection_ != nullptr, "a turn is left twice");
  XTCP_DCHECK(gathered().empty(), "a turn is left with what it has gathered");
  current_ = nullptr;
  connection_ = nullptr;
  charged_end_ = next_;
}

void Turn::Abandon() {
  ClearGathered();
  current_ = nullptr;
  connection_ = nullptr;
}

void Turn::Doom(CloseReason reason, std::error_code error) {
  XTCP_DCHECK(connection_ != nullptr, "a connection is to close in nobody's turn");
  if (doomed()) return;
  doom_ = reason;
  doom_error_ = error;
}

void Turn::DoomBySocket(int error) {
  const bool reset = error == ECONNRESET || error == EPIPE;
  Doom(reset ? CloseReason::kPeerReset : CloseReason::kSystemError,
       {error, std::system_category()});
}

void Turn::NoteException() {
  Add(totals().exceptions, 1);
  Doom(CloseReason::kException);
  LogUserExceptionOf(*self());
}

}  // namespace xtcp::internal
