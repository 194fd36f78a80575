#!/bin/bash
# The library makes the system calls that docs/compatibility.md publishes, all of them, and no others
# ([X7] of the guarantees): what the seam refers to is that list, and the functional tests under
# strace(1) make no call beside it, the C library's own and their own. That nothing but the seam
# refers to system calls is check_seam.sh's.
export LC_ALL=C
cd "$(dirname "$0")/../.." || exit 1
archive=${1:-build/release/libxtcp.a}
program=${2:-build/plain/test/integration}
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
  sed 's/^eventfd$/eventfd2/' | sort)
if ! difference=$(diff <(echo "$published") <(echo "$called")); then
  echo "published in docs/compatibility.md (<), and called by the seam (>):"
  grep '^[<>]' <<<"$difference"
  bad=1
fi

# --- The calls that are made. --------------------------------------------------------------------

# Some containers forbid ptrace(2).
if [ -x "$(command -v strace)" ] && ! strace -qq -o /dev/null true 2>/dev/null; then
  echo "strace may not trace here: only the list was compared"
  exit $bad
fi

kernel_names=$(sed -E 's/^open$/openat/; s/^(recv|send)$/&from/; s/^sendfrom$/sendto/; s/^getrlimit$/prlimit64/' <<<"$published")
# For memory, threads, locks, signal masks, the program's start and end. lstat may be newfstatat.
c_library='brk mmap munmap mprotect madvise mremap futex clone clone3 exit exit_group execve
  set_tid_address set_robust_list rseq arch_prctl rt_sigprocmask rt_sigreturn getrandom access openat
  read pread64 lseek newfstatat restart_syscall recvmsg uname'
# Catch2 takes signals; the tests look into /proc, and play peers, handlers and loggers.
tests='rt_sigaction sigaltstack poll pipe2 dup2 readlink getdents64 clock_nanosleep getpid gettid
  tgkill kill wait4'

trace=$(mktemp)
output=$(mktemp)
trap 'rm -f "$trace" "$output"' EXIT
# shellcheck disable=SC2086
allowed=$(printf '%s\n' $kernel_names $c_library $tests | paste -sd,)
# With --seccomp-bpf only calls that are not in the list stop the program, so it is hardly slower.
# Whether the tests pass there is not the question.
strace -f -qq --seccomp-bpf -o "$trace" -e signal=none -e "trace=!$allowed" "$program" >"$output" 2>&1
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
