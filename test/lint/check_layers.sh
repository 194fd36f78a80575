#!/bin/bash
# A folder of lib/ needs only the folders below it, at compile time and at link time:
#
#   server        the server and its listeners
#   conn          one connection's life
#   loop          a group of loops, and what services share on each
#   reactor       epoll, mailbox, timers  buffer    memory
#   socket        the kernel's boundary
#   types         what the public headers declare
#   base          locks, logging, checks
#   sys           the system calls
#
# Public headers are for everybody and include only each other. Nothing goes round in a circle.
export LC_ALL=C
cd "$(dirname "$0")/../.." || exit 1
build=${BUILD:-build}
archive=${1:-$build/release/libxtcp.a}
objects=${2:-$build/release/obj/lib}

below() {  # folder: itself and those it may need
  case $1 in
    sys) echo sys ;;
    base) echo base sys ;;
    types) echo types base sys ;;
    buffer) echo buffer base sys ;;
    socket) echo socket types base sys ;;
    reactor) echo reactor socket types base sys ;;
    loop) echo loop reactor buffer socket types base sys ;;
    conn) echo conn loop reactor buffer socket types base sys ;;
    server) echo server conn loop reactor buffer socket types base sys ;;
  esac
}

bad=0
complain() {
  echo "$1"
  bad=1
}

edges=$(mktemp)
symbols=$(mktemp)
trap 'rm -f "$edges" "$symbols"' EXIT

# --- Includes. -----------------------------------------------------------------------------------

exec 3>"$edges"
files=$(find include lib -name '*.h' -o -name '*.cc' | sort)
[ -n "$files" ] || complain "no sources"
while IFS=: read -r file line name; do
  [ -n "$file" ] || continue
  at=$file:$line
  folder=
  allowed=
  case $file in
    lib/*)
      folder=${file#lib/}
      folder=${folder%%/*}
      allowed=$(below "$folder")
      [ -n "$allowed" ] || complain "$file: is in no layer" ;;
  esac
  path=${name:1:-1}
  if [ -e "include/$path" ]; then
    echo "$file include/$path" >&3
  elif [ -e "lib/$path" ]; then
    echo "$file lib/$path" >&3
    if [ -z "$folder" ]; then
      complain "$at: a public header includes $name"
    else
      case " $allowed " in
        *" ${path%%/*} "*) ;;
        *) complain "$at: $folder must not include $name" ;;
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

# --- Symbols. ------------------------------------------------------------------------------------

# A public header declares what a folder defines: only the linker sees who needs whom.
if [ ! -e "$archive" ]; then
  complain "$archive is missing: make"
else
  for object in $(find "$objects" -name '*.o' | sort); do
    [ -e "lib/${object#"$objects"/}" ] || [ -e "$(sed 's#/obj/lib/#/lib/#; s#.*/lib/#lib/#; s#\.o$#.cc#' <<<"$object")" ] || continue
    folder=${object#"$objects"/}
    folder=${folder%%/*}
    # Weak ones (inline functions, templates) are defined by whoever uses them.
    nm "$object" 2>/dev/null | awk -v folder="$folder" -v object="$object" '
      $(NF - 1) ~ /^[TDBR]$/ { print "defines", folder, $NF, object }
      $(NF - 1) == "U" && $NF ~ /4xtcp/ { print "needs", folder, $NF, object }'
  done >"$symbols"
  [ -s "$symbols" ] || complain "no symbols are found in $objects"
  while read -r needs defines symbol object; do
    case " $(below "$needs") " in
      *" $defines "*) ;;
      *) complain "$object: $needs must not need $(c++filt "$symbol") of $defines" ;;
    esac
  done < <(awk '
    $1 == "defines" { place[$3] = $2 }
    $1 == "needs" { n++; who[n] = $2; what[n] = $3; in_object[n] = $4 }
    END {
      for (i = 1; i <= n; i++)
        if (what[i] in place && !seen[who[i], what[i]]++) print who[i], place[what[i]], what[i], in_object[i]
    }' "$symbols")
fi

exit $bad
