#!/bin/bash
# Runs test programs and lint checks: test/run.sh [plain|asan|tsan|lint]... Started by make, which
# builds them and hands over the list of programs.
#
# Several at a time, each under two limits. One line for each; the whole output only of what failed.
# The last line is "N passed, N failed": the sum of Catch2 test cases and lint checks. A crash, a
# time-out, a sanitizer report or a missing program counts as one failed. A lint check whose tool is
# missing (exit status 77) is skipped; with STRICT=1 that is a failure too. What a test program says
# to have left out is shown. Logs: build/test-logs/.
#
#   XTCP_TEST_CPU_SECONDS   processor time that one process may take, default 300: for what spins
#   XTCP_TEST_SECONDS       time that a program may take, default 1800: for what sleeps for ever. It
#                           has to do on a machine that is busy with other things.
#   XTCP_TEST_LANES         how many at a time, default one more than there are processors, since
#                           most of them wait most of the time
export LC_ALL=C
cd "$(dirname "$0")/.." || exit 1

cpu_limit=${XTCP_TEST_CPU_SECONDS:-300}
limit=${XTCP_TEST_SECONDS:-1800}
lanes=${XTCP_TEST_LANES:-$(($(nproc) + 1))}
build=${BUILD:-build}
logs=$build/test-logs
mkdir -p "$logs"

# Two runs at once would disturb each other's timing.
exec 9>"$logs/lock"
flock 9

# handle_*=2: a crash is the sanitizer's to report; Catch2's handler would say less.
# allocator_may_return_null: a size that nothing can have is refused, as without a sanitizer.
crash=handle_segv=2:handle_sigbus=2:handle_sigfpe=2:allocator_may_return_null=1
export ASAN_OPTIONS="halt_on_error=1:detect_leaks=1:$crash${ASAN_OPTIONS:+:$ASAN_OPTIONS}"
export UBSAN_OPTIONS="halt_on_error=1:print_stacktrace=1${UBSAN_OPTIONS:+:$UBSAN_OPTIONS}"
export TSAN_OPTIONS="halt_on_error=1:second_deadlock_stack=1:report_signal_unsafe=0:$crash${TSAN_OPTIONS:+:$TSAN_OPTIONS}"

# The thread sanitizer of g++ 12 does not start where the kernel randomizes addresses by more than
# 28 bits.
fixed_addresses=
setarch "$(uname -m)" -R true 2>/dev/null && fixed_addresses="setarch $(uname -m) -R"

jobs=()
for what in "${@:-plain}"; do
  case $what in
    plain | asan | tsan)
      : "${XTCP_TEST_PROGRAMS:?is empty. Start this by make: make test-$what}"
      for program in $XTCP_TEST_PROGRAMS; do
        [ "${program%/*}" = "$what" ] && jobs+=("$what ${program#*/}")
      done ;;
    lint)
      for check in test/lint/check_*.sh; do jobs+=("lint $(basename "$check" .sh)"); done ;;
    *)
      echo "usage: test/run.sh [plain|asan|tsan|lint]..." >&2
      exit 2 ;;
  esac
done

passed=0
failed=0
declare -A job_of started_at

finish() {
  echo "$passed passed, $failed failed"
  [ "$failed" = 0 ] && exit 0
  exit 1
}

interrupted() {
  trap '' INT TERM HUP
  kill "${!job_of[@]}" 2>/dev/null
  wait
  failed=$((failed + ${#job_of[@]} + waiting))
  echo "interrupted"
  finish
}

# Runs in a subshell of its own, which ends well whatever the program does: bash forgets about jobs
# that a signal killed.
run() {  # log, command...
  local log=$1 pid
  shift
  exec 9>&-
  # `timeout` hands the signal on to everything that the program started.
  trap 'kill $pid' TERM
  ulimit -St "$cpu_limit"
  timeout -k 10 "$limit" "$@" </dev/null >"$log" 2>&1 &
  pid=$!
  wait $pid
  echo $? >"$log.status"
  exit 0
}

start() {  # variant, name
  local log=$logs/$1-$2.log
  local -a command
  case $1 in
    lint) command=("test/lint/$2.sh") ;;
    tsan) command=($fixed_addresses "$build/$1/test/$2") ;;
    *) command=("$build/$1/test/$2") ;;
  esac
  rm -f "$log.status"
  run "$log" "${command[@]}" 2>/dev/null &
  job_of[$!]="$1 $2"
  started_at[$!]=$EPOCHREALTIME
}

# The number before WORD in Catch2's summary, which is one of
#   All tests passed (12 assertions in 3 test cases)
#   test cases: 3 | 1 passed | 2 failed
count() {  # word, log
  local all table
  all=$(sed -nE 's/^All tests passed \([0-9]+ assertions? in ([0-9]+) test cases?.*/\1/p' "$2" | tail -n 1)
  table=$(grep -E '^test cases: ' "$2" | tail -n 1)
  case $1 in
    passed) echo "${all:-$(sed -nE 's/.*\| *([0-9]+) passed.*/\1/p' <<<"$table")}" ;;
    failed) sed -nE 's/.*\| *([0-9]+) failed( \|.*)?$/\1/p' <<<"$table" ;;
  esac
}

reap() {
  local pid status seconds variant name log good bad why=
  wait -n -p pid "${!job_of[@]}"
  status=$?
  if [ -z "$pid" ]; then
    # A signal interrupted the wait; or the shell knows of no child that we wait for, and never will.
    [ "$status" = 127 ] || return
    failed=$((failed + ${#job_of[@]}))
    echo "lost: ${job_of[*]}"
    job_of=()
    return
  fi
  read -r variant name <<<"${job_of[$pid]}"
  seconds=$(((${EPOCHREALTIME/./} - ${started_at[$pid]/./}) / 100000))
  unset "job_of[$pid]"
  log=$logs/$variant-$name.log
  status=$(cat "$log.status" 2>/dev/null || echo 1)

  if [ "$variant" = lint ]; then
    if [ "$status" = 77 ] && [ -z "$STRICT" ]; then
      printf 'skip  lint  %-22s %s\n' "$name" "$(tail -n 1 "$log")"
      return
    fi
    good=$((status == 0)) bad=$((status != 0))
  else
    good=$(count passed "$log") bad=$(count failed "$log")
    good=${good:-0} bad=${bad:-0}
    if [ "$status" = 0 ] && grep -qE 'ERROR: [A-Za-z]+Sanitizer|WARNING: ThreadSanitizer|: runtime error: ' "$log"; then
      why='sanitizer report of a child'
    elif [ "$status" = 0 ] && [ $((good + bad)) = 0 ]; then
      why='no test ran'
    elif [ "$status" != 0 ] && [ "$bad" = 0 ]; then
      why="exit status $status"
    fi
    [ -z "$why" ] || bad=$((bad + 1))
  fi
  case $status in
    124 | 137) why="more than $limit s, XTCP_TEST_SECONDS" ;;
    152) why="more than $cpu_limit s of processor time, XTCP_TEST_CPU_SECONDS" ;;  # SIGXCPU
    126 | 127) why="missing: exit status $status" ;;
  esac
  passed=$((passed + good))
  failed=$((failed + bad))

  local word=ok
  [ "$bad" = 0 ] || word=FAIL
  printf '%-4s  %-5s %-22s %4d.%d s  %4d passed' "$word" "$variant" "$name" \
    $((seconds / 10)) $((seconds % 10)) "$good"
  [ "$bad" = 0 ] || printf ', %d failed' "$bad"
  [ -z "$why" ] || printf '  (%s)' "$why"
  echo
  [ "$variant" = lint ] || sed -n 's/^left out: /      &/p' "$log"
  if [ "$bad" != 0 ]; then
    echo "----- $log"
    cat "$log"
    echo "-----"
  fi
}

waiting=${#jobs[@]}
trap interrupted INT TERM HUP
for job in "${jobs[@]}"; do
  while [ ${#job_of[@]} -ge "$lanes" ]; do reap; done
  # shellcheck disable=SC2086
  start $job
  waiting=$((waiting - 1))
done
while [ ${#job_of[@]} -gt 0 ]; do reap; done

# Nothing executed is a failure, too.
[ $((passed + failed)) -gt 0 ] || failed=1
finish
