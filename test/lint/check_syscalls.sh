#!/bin/bash
# The list of system calls in docs/compatibility.md is what the seam refers to, no more and no less.
export LC_ALL=C
cd "$(dirname "$0")/../.." || exit 1
archive=${1:-build/release/libxtcp.a}
if [ ! -e "$archive" ]; then
  echo "$archive is missing: make"
  exit 1
fi

published=$(sed -n '/^## System calls/,/^The C library/p' docs/compatibility.md |
  sed '1,/^$/d; /^For those/d; /^The C library/d; s/([^)]*)//g' | tr -d ' .' | tr ',' '\n' |
  sed '/^$/d; s/^eventfd2$/eventfd/' | sort -u)

# Calls of the C and C++ runtime that make none, or whose own ones the page leaves to the C library:
# names, threads, locks, signal masks.
made=$(nm --undefined-only "$archive" | awk '
  /^syscalls.o:$/ { seam = 1; next }
  /:$/ { seam = 0 }
  seam && $1 == "U" && $2 !~ /^_/ { print $2 }' |
  grep -vxE '(free|get)addrinfo|pthread_sigmask|sig[a-z]+set' | sort -u)

if [ -z "$made" ] || [ -z "$published" ]; then
  echo "nothing to compare: $archive, docs/compatibility.md"
  exit 1
fi
difference=$(diff <(echo "$published") <(echo "$made"))
if [ -n "$difference" ]; then
  echo "docs/compatibility.md (<) and the seam (>) differ:"
  echo "$difference"
  exit 1
fi
