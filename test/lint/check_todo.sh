#!/bin/bash
# Every TODO says of what type it is, as TODO(perf) or TODO(test). TODO(now) must be gone before a
# commit.
export LC_ALL=C
cd "$(dirname "$0")/../.." || exit 1
bad=0

notes=$(find include lib demo test bench -path test/lint -prune -o \
  \( -name '*.h' -o -name '*.cc' -o -name '*.proto' -o -name '*.sh' \) -exec grep -nHwE 'TODO' {} + \
  2>/dev/null)
if grep -E 'TODO\(now\)' <<<"$notes"; then
  echo "TODO(now) is left"
  bad=1
fi
if grep -E 'TODO' <<<"$notes" | grep -vE 'TODO\([a-z]+\)'; then
  echo "a TODO has no type"
  bad=1
fi
exit $bad
