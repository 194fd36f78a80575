#!/bin/bash
# The library compiles under clang++ with the analysis of the annotations in
# lib/base/thread_annotations.h, all warnings being errors. The same objects, which look for undefined
# behaviour, then serve little_of_everything.cc: clang's sanitizer knows of more than g++'s, such as
# arithmetic on null pointers ([seen-14] of the faults found by use).
export LC_ALL=C
cd "$(dirname "$0")/../.." || exit 1

if ! command -v clang++ >/dev/null; then
  echo "clang++ is not here"
  exit 77
fi
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT

compile() {  # source; its object is named after its path, since two layers may share a file's name
  clang++ -std=c++20 -pthread -O0 -Iinclude -Ilib -Wall -Wextra -Wpedantic -Wconversion -Wshadow \
    -Wthread-safety -Werror -DXTCP_DEBUG_CHECKS -fsanitize=undefined -fno-sanitize-recover=all \
    -c "$1" -o "$folder/${1//\//_}.o" 2>&1
}
export -f compile
export folder
sources=$(find lib -name '*.cc' | sort)
if [ -z "$sources" ]; then
  echo "no sources"
  exit 1
fi
xargs -P 2 -I{} bash -c 'compile {}' <<<"$sources
test/lint/little_of_everything.cc" || exit 1

if ! clang++ -fsanitize=undefined -x c++ - -o "$folder/nothing" <<<'int main() {}' 2>/dev/null; then
  echo "clang's sanitizer is not here; there is no warning"
  exit 77
fi
clang++ -fsanitize=undefined -pthread "$folder"/*.o -o "$folder/program" 2>&1 || exit 1
timeout 120 "$folder/program" 2>&1
status=$?
[ $status = 0 ] || echo "little_of_everything ended with status $status"
exit $status
