# Draws the plots of docs/benchmarks.md from the tables that the benchmarks wrote as CSV; see
# report.sh. Each figure is followed by the least and the greatest of the rounds.
set datafile separator ","
set terminal svg size 900,380 dynamic font "sans-serif,13" background "white"
set style data histograms
set style histogram clustered gap 1.5
set style fill solid 0.85 noborder
set grid ytics linecolor "#dddddd"
set border 3
set xrange [-0.6:*]
set tics nomirror out
set key outside right top noautotitle

# In these the second column is the floor in itself, the others are ratios to it.
columns_of(table) = int(system(sprintf("head -n 1 %s/%s.csv | tr ',' '\n' | wc -l", csv, table)))
columns = columns_of("rate")

set ylabel "ratio to the floor"
set yrange [0:2]

set output svg . "/rate.svg"
set title "Messages a second (more is better)"
plot for [i = 5:columns:3] csv . "/rate.csv" using i:xtic(1) title columnheader(i), \
  1 with lines linecolor "black" dashtype 2 title "floor"

set output svg . "/cpu.svg"
set title "CPU time a message (less is better; bars that end at the top go on)"
plot for [i = 5:columns:3] csv . "/cpu.csv" using i:xtic(1) title columnheader(i), \
  1 with lines linecolor "black" dashtype 2 title "floor"

columns = columns_of("senders")
set output svg . "/senders.svg"
set title "Sends from other threads: messages a second (more is better)"
set xlabel "producers to connections"
plot for [i = 5:columns:3] csv . "/senders.csv" using i:xtic(1) title columnheader(i), \
  1 with lines linecolor "black" dashtype 2 title "floor"

set output svg . "/senders_cpu.svg"
set title "Sends from other threads: CPU time a message (less is better; bars that end at the top go on)"
plot for [i = 5:columns:3] csv . "/senders_cpu.csv" using i:xtic(1) title columnheader(i), \
  1 with lines linecolor "black" dashtype 2 title "floor"
unset xlabel

set output svg . "/latency.svg"
set title "Round trip, 100 connections with one frame on its way on each"
set ylabel "microseconds"
set yrange [0:*]
plot for [i = 2:11:3] csv . "/latency.csv" using i:xtic(1) title columnheader(i)

set output svg . "/idle.svg"
set title "Memory of an idle connection"
set ylabel "bytes (logarithmic)"
set logscale y
set yrange [10:*]
plot csv . "/idle.csv" using 2:xtic(1) linecolor "#4477aa"
