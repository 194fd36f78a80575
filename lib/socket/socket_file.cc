#include "socket/socket_file.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "sys/syscalls.h"

namespace xtcp::internal {
namespace {

std::error_code LastError() noexcept { return {errno, std::system_category()}; }

std::error_code InUse() noexcept { return {EADDRINUSE, std::system_category()}; }

}  // namespace

std::error_code SocketFile::Lock(const SocketAddress& address) noexcept {
  if (address.base.sa_family != AF_UNIX || address.local.sun_path[0] == '\0') return {};
  // The path ends with a NUL, for which ResolveForListen has left room.
  std::copy_n(address.local.sun_path, path_.size(), path_.begin());
  return TakeLock();
}

std::error_code SocketFile::TakeLock() noexcept {
  std::array<char, sizeof(Path) + 8> path;
  // The former owner may be removing the file of the lock at this moment. Then the file that was
  // locked here has no name any more, and does not count.
  for (int tries = 0; tries < 16; ++tries) {
    UniqueFd fd(sys::OpenFile(LockPath(&path), O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW,
                              S_IRUSR | S_IWUSR));
    if (!fd.valid()) return LastError();
    int result;
    do {
      result = sys::Flock(fd.get(), LOCK_EX | LOCK_NB);
    } while (result != 0 && errno == EINTR);
    if (result != 0) return errno == EWOULDBLOCK ? InUse() : LastError();
    struct stat locked {
    }, named{};
    if (sys::Fstat(fd.get(), &locked) != 0) return LastError();
    if (sys::Lstat(path.data(), &named) != 0) {
      if (errno != ENOENT) return LastError();
    } else if (named.st_dev == locked.st_dev && named.st_ino == locked.st_ino) {
      lock_ = std::move(fd);
      return {};
    }
  }
  return InUse();
}

bool SocketFile::RemoveAbandoned(const SocketAddress& address) noexcept {
  if (!lock_.valid()) return false;
  struct stat status {};
  if (sys::Lstat(path_.data(), &status) != 0 || !S_ISSOCK(status.st_mode)) return false;
  // Any error but ECONNREFUSED means that a server answers, or might: one that knows nothing of our
  // lock. That includes EAGAIN, which is a full backlog.
  const UniqueFd probe(sys::Socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
  if (!probe.valid()) return false;
  if (sys::Connect(probe.get(), address.get(), address.size) == 0 || errno != ECONNREFUSED) {
    return false;
  }
  return sys::Unlink(path_.data()) == 0;
}

void SocketFile::NoteBound() noexcept {
  struct stat status {};
  if (!lock_.valid() || sys::Lstat(path_.data(), &status) != 0) return;
  device_ = status.st_dev;
  inode_ = status.st_ino;
}

void SocketFile::Remove() noexcept {
  if (!lock_.valid()) return;
  // A lock that a fork has shared ends with its last holder. So it is released and taken anew.
  lock_.Reset();
  if (TakeLock()) return;  // a child or a parent still serves, or the next owner does already
  struct stat status {};
  if (sys::Lstat(path_.data(), &status) == 0 && S_ISSOCK(status.st_mode) &&
      status.st_dev == device_ && status.st_ino == inode_) {
    sys::Unlink(path_.data());
  }
  std::array<char, sizeof(Path) + 8> path;
  sys::Unlink(LockPath(&path));
  lock_.Reset();
}

const char* SocketFile::LockPath(std::array<char, sizeof(Path) + 8>* out) const noexcept {
  const std::size_t size = ::strnlen(path_.data(), path_.size());
  std::memcpy(out->data(), path_.data(), size);
  std::memcpy(out->data() + size, ".lock", sizeof ".lock");
  return out->data();
}

}  // namespace xtcp::internal
