#pragma once

#include <sys/types.h>

#include <array>
#include <system_error>

#include "socket/socket_address.h"
#include "socket/unique_fd.h"

namespace xtcp::internal {

// The file of a listening Unix socket, and the right to it. A socket file does not say which
// process serves it, and neither a look at it nor the number of its inode, which is used again, can
// tell in time. So its owner holds a lock (flock(2)) on a file beside it, "/path.lock", from before
// bind(2) until after the socket file was removed. The owner shares the lock with the children that
// it forks; it is free when the last of them has released it.
//
// For every address that is not a path it is empty, and its methods do nothing.
class SocketFile {
 public:
  SocketFile() = default;
  SocketFile(SocketFile&&) noexcept = default;
  SocketFile& operator=(SocketFile&&) noexcept = default;

  // Takes the lock. Returns EADDRINUSE while another owner holds it.
  std::error_code Lock(const SocketAddress& address) noexcept;

  // Removes the file of a server that is gone, on which nobody answers (unix(7), ECONNREFUSED).
  // Returns whether it did. The lock must be held.
  bool RemoveAbandoned(const SocketAddress& address) noexcept;

  // Remembers the file that bind(2) has just made.
  void NoteBound() noexcept;

  // Removes the file, and that of the lock, unless a child or a parent still serves it. The
  // listening socket must be closed already.
  void Remove() noexcept;

 private:
  using Path = std::array<char, sizeof(sockaddr_un::sun_path)>;

  // Opens the file of the lock, and locks it.
  std::error_code TakeLock() noexcept;

  // Writes the path of that file into `*out` and returns it.
  const char* LockPath(std::array<char, sizeof(Path) + 8>* out) const noexcept;

  Path path_{};
  UniqueFd lock_;
  dev_t device_ = 0;  // of the bound file; 0, like the inode, if there is none
  ino_t inode_ = 0;
};

}  // namespace xtcp::internal
