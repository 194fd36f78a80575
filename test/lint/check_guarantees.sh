#!/bin/bash
# docs/guarantees.md and the tests fit together: each id has a text and a test, the tests that it names
# are those that carry it, and each id that is cited anywhere has a text. Those that the document says
# are not yet in force have a text and no test.
#
#   test/lint/check_guarantees.sh           checks
#   test/lint/check_guarantees.sh --write   brings the lists of tests in the document up to date
#
# A test carries an id as a tag, "[M5]" in a string of a *_test.cc, or in the comment that opens a
# check of this folder.
export LC_ALL=C.UTF-8
cd "$(dirname "$0")/../.." || exit 1
document=docs/guarantees.md
bad=0

tests=$(mktemp)    # id, program, name: one line for each test file that carries the id
wanted=$(mktemp)   # the document as it should be
problems=$(mktemp)
trap 'rm -f "$tests" "$wanted" "$problems"' EXIT

{
  find test -name '*_test.cc' -exec grep -HE '^[^/]*"[^"]*\[[A-Z][0-9]+\]' {} + |
    sed -E 's/^([^:]*):/\1 /'
  grep -HE '^# ' test/lint/check_*.sh | grep -vF '"[' | sed -E 's/^([^:]*):/\1 /'
} | awk '
  {
    path = $1; sub(/^test\//, "", path); sub(/(_test\.cc|\.sh)$/, "", path)
    program = path; sub(/\/.*/, "", program); sub(/^[^\/]*\//, "", path)
    for (rest = $0; match(rest, /\[[A-Z][0-9]+\]/); rest = substr(rest, RSTART + RLENGTH))
      print substr(rest, RSTART + 1, RLENGTH - 2), program, path
  }' | sort -u >"$tests"

# An id begins a paragraph, in bold. Its last lines, from "*Tests: " on, are made here.
awk -v problems="$problems" '
  function complain(text) { print text >problems }
  function put(line) { line_of[++lines] = line }
  # *Tests: stop (account, delivery), unit (base/gate).*, within 120 columns.
  function put_tests(list,    words, n, i, line) {
    n = split("*Tests: " list ").*", words, " ")
    line = words[1]
    for (i = 2; i <= n; i++) {
      if (length(line " " words[i]) > 120) { put(line); line = words[i] } else line = line " " words[i]
    }
    put(line)
  }
  function end_id(last) {
    if (id == "") return
    while (line_of[lines] == "") lines--
    if (exempt != "") {
      if (id in carried) complain(id " has a test, though the document says: " exempt)
    } else if (id in carried) {
      if (line_of[lines] ~ /^\|/) put("")
      put_tests(carried[id])
    } else {
      complain("no test is tagged [" id "]")
    }
    if (!last) put("")
    id = ""
  }
  FNR == NR {
    if (!($1 in carried)) carried[$1] = $2 " (" $3
    else carried[$1] = carried[$1] ($2 == program[$1] ? ", " : "), " $2 " (") $3
    program[$1] = $2
    next
  }
  /^\*Tests: / { skipping = 1 }
  skipping { if ($0 == "") skipping = 0; else next }
  /^#/ { end_id() }
  /^Not yet in force: / { listing = 1 }
  listing {
    if ($0 == "") listing = 0
    for (i = split($0, words, /[^A-Z0-9]+/); i > 0; i--) if (words[i] ~ /^[A-Z][0-9]+$/) to_come[words[i]]
  }
  match($0, /^\*\*[A-Z][0-9]+\.\*\*/) {
    end_id()
    id = substr($0, 3, RLENGTH - 5)
    if (id in text) complain(id " has two texts")
    if ($0 == substr($0, 1, RLENGTH)) complain(id " has no text")
    text[id]
    exempt = id in to_come ? "it is not yet in force" : ""
    if (exempt != "") exempted[id]
  }
  /^No test/ { exempt = $0 }
  { put($0) }
  END {
    end_id(1)
    for (id in carried) if (!(id in text)) complain("[" id "] is the tag of a test, and has no text")
    for (id in to_come) {
      if (!(id in text)) complain(id " is not yet in force, and has no text")
      else if (id in carried && !(id in exempted)) complain(id " has a text before the list of what is not yet in force")
    }
    for (i = 1; i <= lines; i++) print line_of[i]
    if (lines == 0) complain("the document is empty")
  }' "$tests" "$document" >"$wanted"

if [ -s "$problems" ]; then
  sort "$problems"
  bad=1
fi
if [ "$1" = --write ]; then
  cp "$wanted" "$document"
elif ! difference=$(diff "$document" "$wanted"); then
  echo "$document is out of date, run $0 --write:"
  echo "$difference"
  bad=1
fi

# What looks like an id is one. The names of functions (U8), of options (-O2) and of processors (X86) are
# not cited alone.
texts=$(sed -nE 's/^\*\*([A-Z][0-9]+)\.\*\*.*/\1/p' "$document" | sort)
cited=$(grep -rnowE --exclude='*.svg' --exclude-dir=build '[A-Z][1-9][0-9]?' lib include test docs demo bench \
  ./*.md | grep -vE ':(U8|O[0-3]|X86)$')
unknown=$(grep -vE ":($(paste -sd'|' <<<"$texts"))\$" <<<"$cited")
if [ -n "$unknown" ]; then
  echo "cited, and without a text in $document:"
  echo "$unknown"
  bad=1
fi

exit $bad
