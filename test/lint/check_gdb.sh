#!/bin/bash
# tools/gdb/xtcp-gdb.py prints what it should of a program that stopped in a breakpoint, and of its
# core: test/lint/gdb/expected.txt. Numbers that differ from run to run are replaced by words.
export LC_ALL=C
cd "$(dirname "$0")/../.." || exit 1
build=${BUILD:-build}
archive=${1:-$build/release/libxtcp.a}
if [ ! -e "$archive" ]; then
  echo "$archive is missing: make"
  exit 1
fi
if ! command -v gdb >/dev/null; then
  echo "gdb is not here: the printers were not tried"
  exit 77
fi
unset DEBUGINFOD_URLS

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
g++ -std=c++20 -g -O0 -Wall -Wextra -Werror -Iinclude test/lint/gdb/stopped.cc "$archive" -pthread \
  -o "$folder/stopped" || exit 1

cat >"$folder/commands" <<'END'
set pagination off
set width 0
set print pretty on
source tools/gdb/xtcp-gdb.py
END

# Some containers forbid ptrace(2).
if ! gdb -q -nx -batch -ex 'break main' -ex run "$folder/stopped" 2>&1 | grep -q 'Breakpoint 1, main'; then
  echo "gdb may not run a program here: the printers were not tried"
  exit 0
fi

timeout 60 gdb -q -nx -batch -x "$folder/commands" -ex 'break Stopped' -ex run -ex 'echo \n----\n' \
  -ex 'echo ---- one\n' -ex 'print $xtcp_conn(one)' \
  -ex 'echo ---- two\n' -ex 'print $xtcp_conn(two._M_ptr)' \
  -ex 'echo ---- three\n' -ex 'print $xtcp_conn(three)' \
  -ex 'echo ---- parts\n' -ex 'print address' \
  -ex 'print ((xtcp::internal::ConnImpl*)one._M_ptr)->in_.buffer_' \
  -ex 'print ((xtcp::internal::ConnImpl*)two._M_ptr)->out_.sending_' \
  -ex 'print *(xtcp::internal::SendBudget*)&((xtcp::internal::ConnImpl*)one._M_ptr)->intake_.sends_' \
  -ex 'print ((xtcp::internal::ConnImpl*)one._M_ptr)->intake_.ends_' \
  -ex 'print ((xtcp::internal::ConnImpl*)one._M_ptr)->deadlines_' \
  -ex 'echo ---- connections\n' -ex xtcp-connections \
  -ex "generate-core-file $folder/core" "$folder/stopped" >"$folder/live" 2>&1
{
  echo '---- connections of the core'
  timeout 60 gdb -q -nx -batch -x "$folder/commands" -ex xtcp-connections "$folder/stopped" \
    "$folder/core" 2>&1 | sed -n '/^thread [0-9]* (/,$p'
} >"$folder/dead"

sed -n '/^----$/,$p' "$folder/live" | grep -vE '^----$|^Saved corefile|^warning: ' |
  cat - "$folder/dead" | sed -E 's/127\.0\.0\.1:[0-9]+/127.0.0.1:PORT/g; s/0x[0-9a-f]+/ADDRESS/g
    s/[0-9]+\.[0-9]{3} s/TIME/g; s/^\$[0-9]+ = //; s/descriptor = [0-9]+/descriptor = N/' >"$folder/printed"
if [ "$2" = --write ]; then
  cp "$folder/printed" test/lint/gdb/expected.txt
elif ! diff test/lint/gdb/expected.txt "$folder/printed"; then
  echo "expected (<) and printed (>) differ; the session was:"
  cat "$folder/live"
  exit 1
fi
