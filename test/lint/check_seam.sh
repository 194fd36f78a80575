#!/bin/bash
# Every system call, the clock and thread creation go through lib/sys/syscalls.h: no other member
# of the archive refers to one. And what is private has hidden visibility.
export LC_ALL=C
cd "$(dirname "$0")/../.." || exit 1
archive=${1:-${BUILD:-build}/release/libxtcp.a}
if [ ! -e "$archive" ]; then
  echo "$archive is missing: make"
  exit 1
fi
bad=0

forbidden='
recv recvfrom recvmsg recvmmsg send sendto sendmsg sendmmsg sendfile splice tee vmsplice
read readv pread preadv write writev pwrite pwritev open openat creat close close_range closefrom
dup dup2 dup3 pipe pipe2 socketpair accept accept4 connect socket bind listen shutdown
setsockopt getsockopt getsockname getpeername ioctl fcntl
epoll_create epoll_create1 epoll_ctl epoll_wait epoll_pwait epoll_pwait2
eventfd eventfd_read eventfd_write timerfd_create timerfd_settime timerfd_gettime signalfd
inotify_init inotify_init1 io_uring_setup poll ppoll select pselect
clock_gettime clock_getres clock_nanosleep gettimeofday time ftime clock nanosleep usleep sleep alarm setitimer
rand srand rand_r random srandom drand48 lrand48 getrandom getentropy arc4random
getaddrinfo freeaddrinfo getnameinfo gethostbyname gethostbyname_r gethostbyaddr if_nametoindex if_indextoname
stat lstat fstat fstatat statx access unlink unlinkat remove rename mkdir rmdir chmod fchmod chown
getrlimit setrlimit prlimit sched_getaffinity sched_setaffinity sched_yield sysconf get_nprocs
mmap munmap mprotect madvise memfd_create
fork vfork clone posix_spawn execve execv execvp waitpid wait kill raise tgkill
signal sigaction sigprocmask pthread_sigmask pthread_kill sigwait sigtimedwait
pthread_create pthread_timedjoin_np thrd_create prctl pthread_setname_np syscall exit _exit quick_exit
_ZNSt6chrono3_V212steady_clock3nowEv _ZNSt6chrono3_V212system_clock3nowEv
_ZNSt6thread15_M_start_threadE _ZNSt6thread20hardware_concurrencyEv
_ZNSt13random_device
'

symbols=$(nm -A --undefined-only "$archive" 2>&1) || { echo "$symbols"; exit 1; }
seams=$(ar t "$archive" | grep -cx syscalls.o)
if [ "$seams" != 1 ]; then
  echo "$archive has $seams members named syscalls.o"
  bad=1
fi

# A name counts in its fortified (__read_chk), 64-bit (fcntl64) and reserved (__poll) forms too;
# mangled names by their beginning.
awk -v forbidden="$forbidden" '
  BEGIN {
    count = split(forbidden, list)
    for (i = 1; i <= count; i++) if (list[i] ~ /^_Z/) mangled[list[i]]; else plain[list[i]]
  }
  $(NF - 1) == "U" {
    split($1, place, ":")
    member = place[2]
    if (member == "syscalls.o") next
    symbol = $NF
    sub(/@.*/, "", symbol)
    name = symbol
    found = name in plain
    if (!found) {
      sub(/^(__libc_|__)/, "", name); sub(/_chk$/, "", name); sub(/64$/, "", name)
      sub(/^isoc[0-9]*_/, "", name)
      found = name in plain
    }
    for (m in mangled) if (index(symbol, m) == 1) found = 1
    if (found) { print member " refers to " symbol ", which only syscalls.o may"; bad = 1 }
  }
  END { exit bad }
' <<<"$symbols" || bad=1

visible=$(readelf -sW "$archive" | awk '
  /^File: / { file = $2; sub(/.*\(/, "", file); sub(/\)$/, "", file) }
  $5 != "LOCAL" && $6 == "DEFAULT" && $7 != "UND" && $8 ~ /4xtcp(8internal|3sys)/ {
    print file ": visible from outside: " $8
  }' | c++filt)
if [ -n "$visible" ]; then
  echo "$visible"
  bad=1
fi

exit $bad
