#!/bin/bash
# demo/redis_server beside redis-server, both driven by redis-benchmark: bench/redis.sh
#
# In each round each of the two serves each load, one after the other; every other round begins with
# redis-server. The table has the medians of the rounds: commands a second, and the processor time of
# the server for each (utime and stime of /proc/PID/stat). A ratio is the median of those of the
# rounds, ours to theirs. Both are without persistence and have one thread that serves.
#
#   XTCP_BENCH_ROUNDS      default 5
#   XTCP_BENCH_REQUESTS    of each load, default 100000; four times as many with -P 16
#   XTCP_BENCH_CSV=FOLDER  the table is also written there
export LC_ALL=C
cd "$(dirname "$0")/.." || exit 1
rounds=${XTCP_BENCH_ROUNDS:-5}
requests=${XTCP_BENCH_REQUESTS:-100000}
ours=${BUILD:-build}/release/demo/redis_server
seconds=60  # for what should take milliseconds, on a busy machine

for program in redis-server redis-benchmark redis-cli; do
  if ! command -v $program >/dev/null; then
    echo "redis: left out: $program is not installed"
    exit 0
  fi
done
if [ ! -x "$ours" ]; then
  echo "$ours is missing: make programs-demo" >&2
  exit 1
fi

folder=$(mktemp -d)
declare -A pid port
trap 'kill "${pid[@]}" 2>/dev/null; wait; rm -rf "$folder"' EXIT

await() {  # server
  local tries
  for ((tries = 0; tries < seconds * 10; ++tries)); do
    [ "$(redis-cli -p "${port[$1]}" ping 2>/dev/null)" = PONG ] && return
    kill -0 "${pid[$1]}" 2>/dev/null || return
    read -rt 0.1 <> <(:)
  done
  false
}

mkfifo "$folder/said"
$ours 127.0.0.1:0 >"$folder/said" &
pid[xtcp]=$!
read -rt $seconds line <"$folder/said"
port[xtcp]=${line##*:}
# It cannot choose a port by itself.
for tries in 1 2 3 4 5; do
  port[redis]=$((20000 + RANDOM % 10000))
  redis-server --bind 127.0.0.1 --port "${port[redis]}" --save '' --appendonly no >"$folder/log" &
  pid[redis]=$!
  await redis
  kill -0 ${pid[redis]} 2>/dev/null && break
done
for server in xtcp redis; do
  await $server && kill -0 ${pid[$server]} 2>/dev/null ||
    { echo "redis: $server does not answer" >&2; cat "$folder/log" >&2; exit 1; }
done

ticks() {  # server; its processor time
  local -a fields
  read -ra fields <<<"$(sed 's/.*) //' "/proc/${pid[$1]}/stat")"
  echo $((fields[11] + fields[12]))
}

measure() {  # round, server, test, pipeline, size; appends to $folder/all
  local count=$requests before after rate
  [ "$4" = 1 ] || count=$((requests * 4))
  before=$(ticks "$2")
  rate=$(redis-benchmark -p "${port[$2]}" -t "$3" -P "$4" -d "$5" -n "$count" --csv 2>/dev/null |
    sed -nE 's/^"[SG]ET","([0-9.]+)".*/\1/p')
  after=$(ticks "$2")
  [ -n "$rate" ] || { echo "redis: $2 did not serve redis-benchmark" >&2; exit 1; }
  echo "$3,$4,$5 $1 $2 $rate $(((after - before) * 1000000000 / $(getconf CLK_TCK) / count))" >>"$folder/all"
}

for ((round = 1; round <= rounds; ++round)); do
  order='xtcp redis'
  [ $((round % 2)) = 1 ] || order='redis xtcp'
  for pipeline in 1 16; do
    for size in 3 4096; do
      for test in set get; do
        for server in $order; do measure $round $server $test $pipeline $size; done
      done
    done
  done
done

table() {
  echo 'test,pipeline,bytes,xtcp_per_s,redis_per_s,ratio,xtcp_cpu_ns,redis_cpu_ns,cpu_ratio'
  awk '
    function median(list,    n, i, j, value, numbers) {
      n = split(list, numbers, " ")
      for (i = 2; i <= n; ++i) {
        value = numbers[i]
        for (j = i - 1; j > 0 && numbers[j] + 0 > value + 0; --j) numbers[j + 1] = numbers[j]
        numbers[j + 1] = value
      }
      return n % 2 ? numbers[(n + 1) / 2] : (numbers[n / 2] + numbers[n / 2 + 1]) / 2
    }
    !($1 in seen) { seen[$1] = 1; loads[++count] = $1 }
    {
      rate[$1, $2, $3] = $4; rates[$1, $3] = rates[$1, $3] " " $4
      cpu[$1, $2, $3] = $5; cpus[$1, $3] = cpus[$1, $3] " " $5
      if ($2 > rounds) rounds = $2
    }
    END {
      for (i = 1; i <= count; ++i) {
        load = loads[i]; ratios = ""; cpu_ratios = ""
        for (r = 1; r <= rounds; ++r) {
          ratios = ratios " " rate[load, r, "xtcp"] / rate[load, r, "redis"]
          if (cpu[load, r, "redis"] > 0) cpu_ratios = cpu_ratios " " cpu[load, r, "xtcp"] / cpu[load, r, "redis"]
        }
        printf "%s,%d,%d,%.2f,%d,%d,%.2f\n", load, median(rates[load, "xtcp"]), median(rates[load, "redis"]),
               median(ratios), median(cpus[load, "xtcp"]), median(cpus[load, "redis"]), median(cpu_ratios)
      }
    }' "$folder/all"
}

table >"$folder/table"
[ -z "$XTCP_BENCH_CSV" ] || cp "$folder/table" "$XTCP_BENCH_CSV/redis.csv"
echo
echo "redis: demo/redis_server and $(redis-server --version | sed -nE 's/.*v=([0-9.]+).*/redis-server \1/p')," \
  "$requests commands, median of $rounds"
echo
awk -F, '
  NR == 1 { print "| load | xtcp, /s | redis, /s | ratio | xtcp, CPU ns | redis, CPU ns | ratio |"; print "|---|---|---|---|---|---|---|" }
  NR > 1 { printf "| %s -P %d -d %d | %d | %d | %s | %d | %d | %s |\n", $1, $2, $3, $4, $5, $6, $7, $8, $9 }
' "$folder/table"
