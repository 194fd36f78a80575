#!/bin/bash
# The library compiles under clang++ with the analysis of the annotations in
# lib/base/thread_annotations.h, all warnings being errors.
export LC_ALL=C
cd "$(dirname "$0")/../.." || exit 1

if ! command -v clang++ >/dev/null; then
  echo "clang++ is not here"
  exit 77
fi
sources=$(find lib -name '*.cc' | sort)
if [ -z "$sources" ]; then
  echo "no sources"
  exit 1
fi
xargs -P 2 -n 1 clang++ -std=c++20 -fsyntax-only -Iinclude -Ilib -Wall -Wextra -Wpedantic \
  -Wconversion -Wshadow -Wthread-safety -Werror <<<"$sources" 2>&1
