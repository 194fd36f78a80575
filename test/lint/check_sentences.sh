#!/bin/bash
# Each id in test/sentences.txt is the tag of a test: "[M5]" in a string of some *_test.cc, or in a
# comment of a check of this folder.
export LC_ALL=C
cd "$(dirname "$0")/../.." || exit 1
bad=0
ids=0

tags=$({
  find test -name '*_test.cc' -exec grep -hE '^[^/]*"[^"]*\[[A-Z][0-9]+\]' {} +
  grep -hE '^# ' test/lint/check_*.sh | grep -vF '"['
} | grep -oE '\[[A-Z][0-9]+\]' | sort -u)

while read -r id _; do
  case $id in '' | '#'*) continue ;; esac
  ids=$((ids + 1))
  if ! grep -qxF "[$id]" <<<"$tags"; then
    echo "no test is tagged [$id]"
    bad=1
  fi
done <test/sentences.txt

if [ $ids = 0 ]; then
  echo "test/sentences.txt names no sentence"
  bad=1
fi
exit $bad
