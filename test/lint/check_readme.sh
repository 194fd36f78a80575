#!/bin/bash
# The first ```cpp block of README.md is a program that compiles and links.
export LC_ALL=C
cd "$(dirname "$0")/../.." || exit 1

program=$(awk '/^```/ { if (inside) exit; if ($0 ~ /^```cpp[[:space:]]*$/) { inside = 1; next } } inside' \
  README.md) || exit 1
if [ -z "$program" ]; then
  echo 'README.md has no ```cpp block'
  exit 1
fi
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
${CXX:-g++} -std=c++20 -Wall -Wextra -Werror -Iinclude -x c++ - -x none \
  "${BUILD:-build}/release/libxtcp.a" -pthread \
  -o "$folder/readme" <<<"$program" 2>&1
