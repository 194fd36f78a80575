#!/bin/bash
# Makes docs/benchmarks.md anew: runs everything, writes the tables as CSV into build/bench-report/,
# draws docs/benchmarks/*.svg from them, and puts the tables between the page's markers.
export LC_ALL=C
cd "$(dirname "$0")/.." || exit 1
command -v gnuplot >/dev/null || { echo 'gnuplot is missing: make bench-deps' >&2; exit 1; }

page=docs/benchmarks.md
folder=${BUILD:-build}/bench-report
rm -rf "$folder"
mkdir -p "$folder" docs/benchmarks
XTCP_BENCH_CSV=$folder bench/run.sh peers echo threads growth micro | tee "$folder/tables.md"
[ "${PIPESTATUS[0]}" = 0 ] || exit 1
gnuplot -e "csv='$folder'; svg='docs/benchmarks'" bench/plots.gp || exit 1

awk -v tables="$folder/tables.md" '
  /^<!-- end/ { inside = 0 }
  !inside { print }
  /^<!-- begin/ {
    inside = 1
    print ""
    while ((getline line < tables) > 0) print line
    print ""
  }
' "$page" >"$folder/page.md" && cp "$folder/page.md" "$page"
