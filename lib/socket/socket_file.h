#pragma once

#include <sys/types.h>

#include <array>
#include <system_error>

#include "socket/socket_address.h"
#include "socket/unique_fd.h"

namespace xtcp::internal {

// The file of a listening Unix socket, and the right to it. A socket file says nothing about who
// serves it, and neither a look at it nor its inode's number, which is used again, can tell in time.
// So its owner holds a lock (flock(2)) on a file beside it, "/path.lock", from before bind(2) until
// after the file's end. The lock is the owner's and that of the children it forks, until the last of
// them lets go.
//
// Empty for every address that is not a path: then all of it does nothing.
class SocketFile {
 public:
  SocketFile() = default;
  SocketFile(SocketFile&&) noexcept = default;
  SocketFile& operator=(SocketFile&&) noexcept = default;

  // Takes the lock. EADDRINUSE while somebody else holds it.
  std::error_code Lock(const SocketAddress& address) noexcept;

  // Removes the file of a server that is gone: nobody answers on it (unix(7), ECONNREFUSED). Whether
  // it did. Only with the lock.
  bool RemoveAbandoned(const SocketAddress& address) noexcept;

  // Remembers the file that bind(2) has just made.
  void NoteBound() noexcept;

  // Removes the file, and the lock's, unless a child or a parent still serves it. The listening
  // socket must be closed already.
  void Remove() noexcept;

 private:
  using Path = std::array<char, sizeof(sockaddr_un::sun_path)>;
  std::error_code TakeLock() noexcept;
  const char* LockPath(std::array<char, sizeof(Path) + 8>* out) const noexcept;

  Path path_{};
  UniqueFd lock_;
  dev_t device_ = 0;  // of the bound file; 0, with the inode: none
  ino_t inode_ = 0;
};

}  // namespace xtcp::internal
