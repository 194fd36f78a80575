#pragma once

#include <chrono>
#include <cstddef>
#include <system_error>
#include <vector>

#include "conn/dialed_conn.h"
#include "conn/worker.h"
#include "reactor/channel.h"
#include "socket/socket.h"
#include "socket/socket_address.h"

namespace xtcp::internal {

// Tries the addresses of one dial in turn, each with an equal share of the time that is left, on
// the dialled connection's own loop. What it leaves behind is a served connection, or an error and
// a loop that ends.
class Dialer final : public Channel {
 public:
  // All must outlive the dialer.
  Dialer(DialedConn& conn, Worker& worker, const Options& options,
         const std::vector<SocketAddress>& addresses);

  // Begins when the loop runs.
  void Begin();

  // The connection was stopped before it stood.
  void Cancel();

  // No error: the connection stood.
  std::error_code result() const { return result_; }

 private:
  using Time = std::chrono::nanoseconds;

  void HandleEvents(std::uint32_t events) override;
  void HandleTimer() override;
  void HandlePosted() override;

  void TryNext();
  bool Try(const SocketAddress& address);
  void ArmForShare();
  void Establish(const SocketAddress& address, int reset);
  void GiveUp(std::error_code error);
  void Drop();

  DialedConn& conn_;
  Worker& worker_;
  const Options& options_;
  const std::vector<SocketAddress>& addresses_;
  std::size_t next_address_ = 0;
  Time due_{0};                 // of the whole dial
  std::error_code last_error_;  // of the last address tried
  std::error_code result_;
};

}  // namespace xtcp::internal
