#!/bin/bash
# The picture of the source in docs/design.md is what the includes say: a room for each folder of lib/
# with its files, on the floor above everything that it includes.
#
#   test/lint/check_picture.sh           checks
#   test/lint/check_picture.sh --write   draws it anew
export LC_ALL=C.UTF-8
cd "$(dirname "$0")/../.." || exit 1
document=docs/design.md

picture=$(mktemp)
wanted=$(mktemp)
trap 'rm -f "$picture" "$wanted"' EXIT

# Files first, then includes: "file FOLDER NAME", "edge FOLDER FOLDER".
{
  find lib -mindepth 2 \( -name '*.h' -o -name '*.cc' \) | sed -E 's#lib/([a-z]+)/(.*)\.(h|cc)#file \1 \2#' | sort -u
  grep -rE --include='*.h' --include='*.cc' '^#include "[a-z]+/' lib |
    sed -E 's#^lib/([a-z]+)/[^:]*:.include "([a-z]+)/.*#edge \1 \2#' | awk '$2 != $3' | sort -u
} | awk '
  function repeat(text, n,    out) { while (n-- > 0) out = out text; return out }
  function floor_of(folder,    i, above) {
    if (folder in floors) return floors[folder]
    floors[folder] = 0  # a circle, which check_layers.sh finds, ends here
    for (i = 1; i <= count; i++)
      if ((folder, folders[i]) in edge) { above = floor_of(folders[i]) + 1; if (above > floors[folder]) floors[folder] = above }
    if (floors[folder] > top) top = floors[folder]
    return floors[folder]
  }
  # A room is as wide as the page; its names are wrapped.
  function draw(folder,    words, n, i, line, needs, level) {
    for (level = top; level >= 0; level--)
      for (i = 1; i <= count; i++)
        if (floors[folders[i]] == level && (folder, folders[i]) in edge) needs = needs " " folders[i]
    line = " " folder " "
    print sprintf("%2d  ", floors[folder]) "┌─" line repeat("─", width - length(line) - 1) "┐" \
      (needs == "" ? "" : "  ►" needs)
    n = split(files[folder], words, " ")
    line = ""
    for (i = 1; i <= n; i++) {
      if (line != "" && length(line " " words[i]) > width - 2) { print_line(line); line = "" }
      line = line (line == "" ? "" : " ") words[i]
    }
    print_line(line)
    print "    └" repeat("─", width) "┘"
  }
  function print_line(line) { print "    │ " line repeat(" ", width - 1 - length(line)) "│" }
  BEGIN { width = 52 }
  $1 == "file" { if (!($2 in files)) folders[++count] = $2; files[$2] = files[$2] " " $3 }
  $1 == "edge" { edge[$2, $3] }
  END {
    for (i = 1; i <= count; i++) floor_of(folders[i])
    for (level = top; level >= 0; level--)
      for (i = 1; i <= count; i++) if (floors[folders[i]] == level) draw(folders[i])
  }' >"$picture"

# It is the first block of code after the line that names this script.
awk -v picture="$picture" '
  !skipping { print }
  /check_picture\.sh/ && !drawn { waiting = 1 }
  waiting && /^```/ {
    waiting = 0; drawn = skipping = 1
    while ((getline line <picture) > 0) print line
    next
  }
  skipping && /^```/ { skipping = 0; print }' "$document" >"$wanted"

if ! grep -q 'check_picture\.sh' "$document" || [ ! -s "$picture" ]; then
  echo "there is no picture in $document"
  exit 1
fi
if [ "$1" = --write ]; then
  cp "$wanted" "$document"
elif ! difference=$(diff "$document" "$wanted"); then
  echo "$document has an old picture, run $0 --write:"
  echo "$difference"
  exit 1
fi
