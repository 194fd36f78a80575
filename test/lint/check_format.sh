#!/bin/bash
# Every source is as clang-format leaves it. --fix formats them. Files that git does not know yet
# are looked at too. Only clang-format 14 will do, since versions differ in what they like.
export LC_ALL=C
cd "$(dirname "$0")/../.." || exit 1

format=clang-format-14
command -v $format >/dev/null || format=clang-format
if ! $format --version 2>/dev/null | grep -q 'version 14\.'; then
  echo "clang-format 14 is not here"
  exit 77
fi

mapfile -t files < <(find . \( -path ./build -o -path ./.git \) -prune -o \
  \( -name '*.h' -o -name '*.cc' \) -print | sort)
if [ ${#files[@]} = 0 ]; then
  echo "no sources"
  exit 1
fi

if [ "$1" = --fix ]; then
  exec $format -i "${files[@]}"
fi
if ! found=$($format --dry-run -Werror "${files[@]}" 2>&1); then
  # Of each place that differs, only the file.
  sed -nE 's/^([^:]+):[0-9].*/\1 is not formatted: make format/p' <<<"$found" | sort -u | grep . ||
    echo "$found"
  exit 1
fi
