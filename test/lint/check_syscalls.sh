#!/bin/bash
# The library makes the system calls that docs/compatibility.md publishes, all of them, and no others
# ([X7] of the guarantees): what the seam refers to is that list, and the functional tests under
# strace(1) make no call beside it, the C library's own and their own. That nothing but the seam
# refers to system calls is check_seam.sh's.
export LC_ALL=C
cd "$(dirname "$0")/../.." || exit 1
build=${BUILD:-build}
archive=${1:-$build/release/libxtcp.a}
program=${2:-$build/plain/test/integration}
for file in "$archive" "$program"; do
  if [ ! -e "$file" ]; then
    echo "$file is missing: make all build/plain/test/integration"
    exit 1
  fi
done
bad=0

# --- The list. -----------------------------------------------------------------------------------

# The paragraph that names them, without what stands in brackets.
published=$(awk '
    /^## / { inside = $0 == "## System calls" }
    inside && /^socket, / { listing = 1 }
    listing && /^$/ { exit }
    listing' docs/compatibility.md |
  tr '\n' ' ' | sed -E 's/\([^)]*\)//g; s/\. *$//' | tr ',' '\n' | tr -d ' ' | sort)
if [ "$(wc -l <<<"$published")" -lt 20 ]; then
  echo "docs/compatibility.md: no list of system calls is found"
  exit 1
fi

# The functions that the seam calls: names of C, less those that make no system call, or those of
# the C library; `syscall` is std::atomic's futex(2).
called=$(nm --undefined-only "$archive" 2>/dev/null | awk '
    /^syscalls\.o:$/ { inside = 1; next }
    /^[^ ].*:$/ { inside = 0 }
    inside && $1 == "U" { print $2 }' |
  grep -vE '^_Z|^_Unwind_|^__(cxa|gxx|stack_chk)' |
  grep -vxE 'getaddrinfo|freeaddrinfo|syscall|__errno_location|pthread_sigmask|sigfillset|sigdelset|__sched_cpucount|mem(cpy|move|set)' |
  sed 's/^eventfd$/eventfd2/; s/^sigaction$/rt_sigaction/' | sort)
if ! difference=$(diff <(echo "$published") <(echo "$called")); then
  echo "published in docs/compatibility.md (<), and called by the seam (>):"
  grep '^[<>]' <<<"$difference"
  bad=1
fi

# --- The calls that are made. --------------------------------------------------------------------

if ! command -v strace >/dev/null; then
  [ $bad = 0 ] || exit $bad
  echo "strace is not here; the list is right"
  exit 77
fi
# Some containers forbid ptrace(2).
if ! strace -qq -o /dev/null true 2>/dev/null; then
  echo "strace may not trace here: only the list was compared"
  exit $bad
fi

# By whatever name a C library and a processor make them: all of a family, where one is needed.
kernel_names=$(sed -E 's/^(recv|send)$/&from/; s/^sendfrom$/sendto/; s/^getrlimit$/prlimit64 getrlimit ugetrlimit/
  s/^epoll_wait$/epoll_wait epoll_pwait/; s/^fcntl$/fcntl fcntl64/; s/^unlink$/unlink unlinkat/
  s/^lstat$/lstat lstat64 newfstatat fstatat64 statx/
  s/^clock_gettime$/clock_gettime clock_gettime64 gettimeofday time/' <<<"$published")
# For memory, threads, locks, signal masks, the program's start and end, and its own files.
c_library='brk mmap mmap2 munmap mprotect madvise mremap futex futex_time64 futex_waitv clone clone3 exit
  exit_group execve set_tid_address set_robust_list get_robust_list rseq arch_prctl set_thread_area
  rt_sigprocmask rt_sigreturn getrandom access faccessat faccessat2 open openat read readv pread64 lseek
  _llseek stat stat64 fstat fstat64 restart_syscall membarrier uname prctl sysinfo riscv_hwprobe'
# Catch2 takes signals; the tests look into /proc, and play peers, handlers and loggers.
tests='rt_sigaction sigaltstack poll ppoll ppoll_time64 pipe pipe2 dup2 dup3 readlink readlinkat getdents
  getdents64 nanosleep clock_nanosleep clock_nanosleep_time64 getpid gettid tgkill kill wait4 recvmsg getrusage'

trace=$(mktemp)
output=$(mktemp)
trap 'rm -f "$trace" "$output"' EXIT
# shellcheck disable=SC2086
# "?": a name that this processor has not is no error.
allowed=$(printf '?%s\n' $kernel_names $c_library $tests | paste -sd,)
# With --seccomp-bpf only calls that are not in the list stop the program, so it is hardly slower.
# Whether the tests pass there is not the question. Names are left out: how the C library looks them
# up depends on the system's configuration.
strace -f -qq --seccomp-bpf -o "$trace" -e signal=none -e "trace=!$allowed" "$program" '~[names]' \
  >"$output" 2>&1
if ! grep -qE '^(All tests passed|test cases: )' "$output"; then
  echo "$program did not run to its end under strace:"
  tail -n 5 "$output"
  bad=1
fi
others=$(sed -nE 's/^[0-9]+ +([a-z0-9_]+)\(.*/\1/p' "$trace" | sort | uniq -c)
if [ -n "$others" ]; then
  echo "calls that are neither published nor expected, and how often:"
  echo "$others"
  bad=1
fi

exit $bad
