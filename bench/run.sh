#!/bin/bash
# Runs benchmarks that are built: bench/run.sh [echo|peers|threads|growth|fair|sizes|micro|loops|drain|shared|pressure|redis]...
#
# The first line describes the machine; then come tables. One thing at a time, so nothing else
# should run on the machine. CXX is the compiler that built them. With XTCP_BENCH_CSV=FOLDER each
# table is also written there.
export LC_ALL=C
cd "$(dirname "$0")/.." || exit 1

programs=${BUILD:-build}/release/bench
processor=$(sed -n 's/^model name[^:]*: //p' /proc/cpuinfo | head -n 1)
compiler=$(${CXX:-g++} --version 2>/dev/null | head -n 1)  # CXX may be two words: ccache g++
commit=$(git rev-parse --short=10 HEAD 2>/dev/null || echo unknown)
[ -z "$(git status --porcelain 2>/dev/null)" ] || commit="$commit with changes"
echo "machine: ${processor:-unknown processor} ($(nproc)), Linux $(uname -r | cut -d- -f1), ${compiler:-unknown compiler}, commit $commit"

for what in "${@:-echo}"; do
  case $what in
    echo | threads | growth | fair | sizes | micro | loops | drain | shared | pressure) "$programs/$what" ;;
    peers) "$programs/echo" --peers ;;
    redis) bench/redis.sh ;;
    *)
      echo "usage: bench/run.sh [echo|peers|threads|growth|fair|sizes|micro|loops|drain|shared|pressure|redis]..." >&2
      exit 2 ;;
  esac || exit 1
done
