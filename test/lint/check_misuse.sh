#!/bin/bash
# An application that is compiled with the address sanitizer, or runs under valgrind, is told of its
# own errors, although the archive that it is linked with was compiled without: a packet that is used
# after its end or deleted twice, and a view that is read after OnEvent ([seen-18] of the faults found
# by use).
export LC_ALL=C
cd "$(dirname "$0")/../.." || exit 1
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
bad=0
complain() {
  echo "$1"
  bad=1
}

build() {  # name, flags
  ${CXX:-g++} -std=c++20 -O1 -g -pthread -Iinclude "${@:2}" test/lint/misuse.cc \
    "${BUILD:-build}/release/libxtcp.a" -o "$folder/$1" 2>&1 || exit 1
}

# find_error TEXT COMMAND...: what it prints has the text, unless that is empty; then it succeeds.
find_error() {
  local output status
  output=$(timeout 60 "${@:2}" 2>&1)
  status=$?
  if [ -z "$1" ]; then
    [ $status = 0 ] || complain "without an error ${*:2} ends with status $status: $output"
  else
    grep -qE "$1" <<<"$output" || complain "${*:2} does not report '$1': $output"
  fi
}

build asan -fsanitize=address
find_error '' "$folder/asan"
find_error 'heap-use-after-free' "$folder/asan" packet
find_error 'heap-use-after-free|double-free' "$folder/asan" packet-twice
find_error 'use-after-poison' "$folder/asan" view
find_error 'use-after-poison' "$folder/asan" view-of-many

if ! command -v valgrind >/dev/null; then
  [ $bad = 1 ] || echo "valgrind is not here; with the address sanitizer all is well"
  exit $((bad == 1 ? 1 : 77))
fi
build plain
find_error '' valgrind -q --error-exitcode=9 "$folder/plain"
find_error 'Invalid write' valgrind -q "$folder/plain" packet
find_error 'Invalid free' valgrind -q "$folder/plain" packet-twice

exit $bad
