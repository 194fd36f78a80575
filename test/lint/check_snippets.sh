#!/bin/bash
# Each ```cpp block of README.md and of docs compiles. One with a main() is a program: it is compiled
# as it is, and linked. The others are declarations, each in a namespace of its own, in a file that
# includes the public headers and those of the standard library. A block of statements is the body of a
# function, which the line above the block names, with whatever parameters the statements need:
#
#   <!-- body of: void Restart(xtcp::Server& server) -->
export LC_ALL=C.UTF-8
cd "$(dirname "$0")/../.." || exit 1
bad=0
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT

mapfile -t documents < <(find README.md docs -name '*.md' | sort)
awk -v folder="$folder" '
  function finish(    file) {
    if (block ~ /(^|\n)int main\(/) {
      file = folder "/program_" ++programs ".cc"
      printf "#line %d \"%s\"\n%s", line, name, block >file
      close(file)
      return
    }
    printf "%s", includes >(folder "/includes.h")
    printf "namespace block_%d {\n", ++blocks >(folder "/blocks.h")
    if (body != "") printf "%s {\n", body >(folder "/blocks.h")
    printf "#line %d \"%s\"\n%s%s}\n", line, name, block, body == "" ? "" : "}\n" >(folder "/blocks.h")
  }
  FNR == 1 && fenced { printf "%s: a block has no end\n", name; exit 1 }
  /^[ \t]*```/ {
    if (fenced && wanted) finish()
    fenced = !fenced
    wanted = fenced && $0 ~ /^[ \t]*```(cpp|c\+\+|cc)[ \t]*$/
    name = FILENAME; line = FNR + 1; block = includes = ""
    body = ""
    if (match(previous, /^<!-- body of: .* -->$/)) body = substr(previous, 15, length(previous) - 18)
    next
  }
  wanted && /^#include/ { includes = includes $0 "\n" }
  # In a block with main() the includes stay; elsewhere an empty line keeps the numbers right.
  wanted { block = block $0 "\n" }
  { previous = $0 }
' "${documents[@]}" || exit 1

if [ ! -s "$folder/blocks.h" ] || [ ! -e "$folder/program_1.cc" ]; then
  echo 'README.md and docs have no ```cpp blocks'
  exit 1
fi

compiler=(${CXX:-g++} -std=c++20 -Wall -Wextra -Werror -Iinclude -x c++)
for program in "$folder"/program_*.cc; do
  "${compiler[@]}" "$program" -x none "${BUILD:-build}/release/libxtcp.a" -pthread \
    -o "$folder/program" 2>&1 || bad=1
done

sed -i 's/^#include.*//' "$folder/blocks.h"
read -ra spdlog < <(pkg-config --cflags spdlog 2>/dev/null)
{
  # What a reader takes as included.
  printf '#include <%s>\n' sys/socket.h unistd.h xtcp/xtcp.h algorithm any array atomic chrono cstddef \
    cstdint cstdio cstdlib deque functional iostream memory mutex optional span string string_view \
    system_error thread unordered_map utility vector
  cat "$folder/includes.h" "$folder/blocks.h"
} | "${compiler[@]}" "${spdlog[@]}" -fsyntax-only - 2>&1 || bad=1

exit $bad
