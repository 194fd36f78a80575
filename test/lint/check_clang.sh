#!/bin/bash
# The library compiles under clang++ with the analysis of the annotations in
# lib/base/thread_annotations.h, all warnings being errors. The same objects, which look for undefined
# behaviour, then serve little_of_everything.cc: clang's sanitizer knows of more than g++'s, such as
# arithmetic on null pointers ([seen-14] of the faults found by use). What has not changed since it
# was compiled is not compiled again.
export LC_ALL=C
cd "$(dirname "$0")/../.." || exit 1
. test/lint/make_by.sh
build=${BUILD:-build}

if ! command -v clang++ >/dev/null; then
  echo "clang++ is not here"
  exit 77
fi

make_by clang++ "$build/clang/libxtcp.a" || exit 1

nothing=$(mktemp)
trap 'rm -f "$nothing"' EXIT
if ! clang++ -fsanitize=undefined -x c++ - -o "$nothing" <<<'int main() {}' 2>/dev/null; then
  echo "clang's sanitizer is not here; there is no warning"
  exit 77
fi
make_by clang++ "$build/clang/little_of_everything" || exit 1
timeout 120 "$build/clang/little_of_everything" 2>&1
status=$?
[ $status = 0 ] || echo "little_of_everything ended with status $status"
exit $status
