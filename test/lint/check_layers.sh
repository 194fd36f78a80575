#!/bin/bash
# Who may include whom:
#
#   api -> conn -> reactor -> socket -> base
#          conn -> buffer -> base
#
# A file includes its own layer and those that the arrows reach; api may include all of them. Public
# headers are for everybody and include only each other. Nothing goes round in a circle.
export LC_ALL=C
cd "$(dirname "$0")/../.." || exit 1

reaches() {  # layer
  case $1 in
    base) echo base ;;
    buffer) echo buffer base ;;
    socket) echo socket base ;;
    reactor) echo reactor socket base ;;
    conn) echo conn reactor buffer socket base ;;
    api) echo api conn reactor buffer socket base ;;
  esac
}

bad=0
complain() {
  echo "$1"
  bad=1
}

edges=$(mktemp)
trap 'rm -f "$edges"' EXIT
exec 3>"$edges"

files=$(find include lib -name '*.h' -o -name '*.cc' | sort)
[ -n "$files" ] || complain "no sources"
while IFS=: read -r file line name; do
  [ -n "$file" ] || continue
  at=$file:$line
  layer=
  allowed=
  case $file in
    lib/*)
      layer=${file#lib/}
      layer=${layer%%/*}
      allowed=$(reaches "$layer")
      [ -n "$allowed" ] || complain "$file: is in no layer" ;;
  esac
  path=${name:1:-1}
  if [ -e "include/$path" ]; then
    echo "$file include/$path" >&3
  elif [ -e "lib/$path" ]; then
    echo "$file lib/$path" >&3
    if [ -z "$layer" ]; then
      complain "$at: a public header includes $name"
    else
      case " $allowed " in
        *" ${path%%/*} "*) ;;
        *) complain "$at: $layer must not include $name" ;;
      esac
    fi
  elif [ "${name:0:1}" = '"' ] || [[ $path == xtcp/* ]]; then
    # Paths start at lib/ or include/, so that each says its layer.
    complain "$at: $name is neither below lib/ nor below include/"
  fi
done < <(grep -nE '^[[:space:]]*#[[:space:]]*include' $files /dev/null |
  sed -nE 's/^([^:]+):([0-9]+):[^"<]*("[^"]*"|<[^>]*>).*/\1:\2:\3/p')

# tsort names the members of each circle.
circle=$(tsort "$edges" 2>&1 >/dev/null) || complain "includes go round in a circle:
$circle"

exit $bad
