#!/bin/bash
# demo/daemon does what docs/stopping.md says of a daemon: SIGTERM stops it gracefully, without
# waiting, a second one immediately; then it prints what was lost, which its exit status tells, too.
export LC_ALL=C
cd "$(dirname "$0")/../.." || exit 1
daemon=${BUILD:-build}/release/demo/daemon
if [ ! -x "$daemon" ]; then
  echo "$daemon is missing: make programs-demo"
  exit 1
fi
seconds=60  # for anything that should take milliseconds, on a busy machine
bad=0
complain() {
  echo "$1"
  bad=1
}

log=$(mktemp)
pid=
trap 'rm -f "$log"; [ -z "$pid" ] || kill -KILL "$pid" 2>/dev/null' EXIT

# Waits until the log has this.
said() {  # pattern
  local tries
  for ((tries = 0; tries < seconds * 50; ++tries)); do
    grep -qE "$1" "$log" && return 0
    read -rt 0.02 <> <(:)
  done
  complain "it did not say '$1':"
  cat "$log"
  return 1
}

start() {
  "$daemon" 127.0.0.1:0 2>"$log" &
  pid=$!
  # The whole of it: standard error is written in pieces.
  said 'sends back what comes to 127\.0\.0\.1:[0-9]+;' || exit 1
  port=$(sed -nE 's/.* comes to 127\.0\.0\.1:([0-9]+);.*/\1/p' "$log")
  exec 3<>"/dev/tcp/127.0.0.1/$port" || exit 1
  echo hello >&3
  read -rt $seconds answer <&3 && [ "$answer" = hello ] || complain "it does not echo: '$answer'"
}

ended() {  # exit status
  local status
  # A daemon that does not end is killed, and has another status.
  (exec 3>&-; exec timeout $seconds tail --pid="$pid" -f /dev/null) || kill -KILL "$pid"
  wait "$pid" 2>/dev/null
  status=$?
  pid=
  [ $status = "$1" ] || complain "exit status $status, not $1"
}

# The peer gets its end of stream, and ends its own.
start
kill -TERM $pid
read -rt $seconds answer <&3
[ $? = 1 ] || complain "no end of stream after the first SIGTERM"
kill -0 $pid 2>/dev/null || complain "it did not wait for its peer"
exec 3>&-
ended 0
grep -qx 'daemon: connections open at the stop: 1, cut: 0; bytes unsent: 0, unacknowledged: 0' "$log" ||
  complain "the report of a graceful stop: $(tail -n 1 "$log")"

# The peer does not, so a second signal is needed.
start
kill -TERM $pid
read -rt $seconds answer <&3  # it has seen the first one: two at a time may be one
[ $? = 1 ] || complain "no end of stream after the first SIGTERM"
kill -TERM $pid
ended 1
exec 3>&-
grep -qx 'daemon: connections open at the stop: 1, cut: 1; bytes unsent: 0, unacknowledged: 0' "$log" ||
  complain "the report of an immediate stop: $(tail -n 1 "$log")"

exit $bad
