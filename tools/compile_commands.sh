#!/bin/bash
# Makes compile_commands.json of what make says that it would run: make -Bn | tools/compile_commands.sh
#
# The shell expands each command as it would to run it, so what pkg-config says is in it too.
folder=$(pwd)
separator='['

quote() { local text=${1//\\/\\\\}; printf '"%s"' "${text//\"/\\\"}"; }

while read -r line; do
  # Lines that end in a backslash are joined by read, unless it is told not to.
  [[ $line == *' -c '* && $line == *.cc\ * ]] || continue
  eval "words=($line)"
  source=
  for word in "${words[@]}"; do [[ $word == *.cc ]] && source=$word; done
  printf '%s\n{"directory": %s, "file": %s, "arguments": [' "$separator" "$(quote "$folder")" "$(quote "$source")"
  comma=
  for word in "${words[@]}"; do
    printf '%s%s' "$comma" "$(quote "$word")"
    comma=', '
  done
  printf ']}'
  separator=,
done
[ "$separator" = , ] || { echo "compile_commands: make said no command that compiles" >&2; exit 1; }
printf '\n]\n'
